//! What can be measured.

use crate::figures::median;
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
pub(crate) mod polling;
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
        Command::Polling(options) => polling::run(&options, &common).await,
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

/// The median ratio of belfry's figure to the other server's in the same run. `turn` returns the run and the
/// server of a sample.
fn ratio<S>(samples: &[S], turn: fn(&S) -> (u32, Kind), other: Kind, figure: fn(&S) -> f64) -> f64 {
    let of_belfry = samples.iter().filter(|sample| turn(sample).1 == Kind::Belfry);
    median(of_belfry.filter_map(|belfry| {
        let (run, _) = turn(belfry);
        let other = samples.iter().find(|sample| turn(sample) == (run, other))?;
        Some(figure(belfry) / figure(other))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_run() {
        let samples = [
            (1, Kind::Belfry, 1.0),
            (1, Kind::Node, 2.0),
            (2, Kind::Belfry, 30.0),
            (2, Kind::Node, 60.0),
            (3, Kind::Belfry, 9.0),
        ];
        let of = |other| ratio(&samples, |it| (it.0, it.1), other, |it| it.2);
        assert!((of(Kind::Node) - 0.5).abs() < 1e-9);
        assert!((of(Kind::Belfry) - 1.0).abs() < 1e-9);
        assert!(of(Kind::Nest).is_nan());
    }
}
