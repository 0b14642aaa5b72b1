//! What can be measured.

use crate::options::{Command, Common, Options};
use crate::rig::Rig;
use crate::servers::{Kind, build};

pub(crate) mod attack;
pub(crate) mod ceiling;
pub(crate) mod compare;
pub(crate) mod growth;
mod inboxes;
pub(crate) mod memory;
mod pgbench;
pub(crate) mod store;
pub(crate) mod storm;

/// Runs the command that was given.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let Options { command, common } = options;
    match command {
        Command::Compare(options) => compare::run(&options, &common).await,
        Command::Ceiling(options) => ceiling::run(&options, &common).await,
        Command::Store(options) => store::run(&options, &common).await,
        Command::Memory(options) => memory::run(&options, &common).await,
        Command::Storm(options) => storm::run(&options, &common).await,
        Command::Growth(options) => growth::run(&options, &common).await,
        Command::Attack(options) => attack::run(&options, &common).await,
    }
}

/// Builds what these servers need and starts what they share.
async fn rig(common: &Common, servers: &[Kind], database: bool) -> anyhow::Result<Rig> {
    for server in servers {
        server.prepare()?;
    }
    let belfry = match &common.belfry {
        Some(path) => std::path::absolute(path)?,
        None => build("belfry", "belfry")?,
    };
    Rig::start(common, belfry, database).await
}
