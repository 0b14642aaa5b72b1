//! The commands: one module per kind of measurement.

use crate::figures::{median, show};
use crate::options::{Command, Common, Options};
use crate::rig::Rig;
use crate::servers::{ServerKind, build};

pub(crate) mod attack;
pub(crate) mod broadcast;
pub(crate) mod ceiling;
pub(crate) mod compare;
pub(crate) mod growth;
pub(crate) mod idle;
mod inboxes;
pub(crate) mod memory;
mod pgbench;
pub(crate) mod polling;
pub(crate) mod replay;
pub(crate) mod store;
pub(crate) mod storm;

/// Runs the command of the command line.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let Options { command, common } = options;
    match command {
        Command::Compare(options) => compare::run(&options, &common).await,
        Command::Ceiling(options) => ceiling::run(&options, &common).await,
        Command::Store(options) => store::run(&options, &common).await,
        Command::Broadcast(options) => broadcast::run(&options, &common).await,
        Command::Replay(options) => replay::run(&options, &common).await,
        Command::Memory(options) => memory::run(&options, &common).await,
        Command::Idle(options) => idle::run(&options, &common).await,
        Command::Polling(options) => polling::run(&options, &common).await,
        Command::Storm(options) => storm::run(&options, &common).await,
        Command::Growth(options) => growth::run(&options, &common).await,
        Command::Attack(options) => attack::run(&options, &common).await,
    }
}

/// Builds the servers and starts the broker, and PostgreSQL if `database` is set.
async fn rig(common: &Common, servers: &[ServerKind], database: bool) -> anyhow::Result<Rig> {
    for server in servers {
        server.prepare()?;
    }
    let belfry = match &common.belfry {
        Some(path) => std::path::absolute(path)?,
        None => build("belfry", "belfry")?,
    };
    Rig::start(common, belfry, database).await
}

/// The samples of several servers, each of which was measured once in each run.
struct Comparison<'a, S> {
    samples: &'a [S],
    /// Returns the run and the server of a sample.
    turn: fn(&S) -> (u32, ServerKind),
}

impl<'a, S> Comparison<'a, S> {
    /// The samples of one server.
    fn of(&self, server: ServerKind) -> impl Iterator<Item = &'a S> {
        let turn = self.turn;
        self.samples.iter().filter(move |sample| turn(sample).1 == server)
    }

    /// The server's median of a figure.
    fn median(&self, server: ServerKind, figure: fn(&S) -> f64) -> String {
        show(median(self.of(server).map(figure)))
    }

    /// The server's median of a figure, and the ratio of Belfry's figure to it.
    fn with_ratio(&self, server: ServerKind, figure: fn(&S) -> f64) -> [String; 2] {
        [self.median(server, figure), show(self.ratio(server, figure))]
    }

    /// The median of the ratios of Belfry's figure to the other server's in the same run.
    fn ratio(&self, other: ServerKind, figure: fn(&S) -> f64) -> f64 {
        median(self.of(ServerKind::Belfry).filter_map(|belfry| {
            let (run, _) = (self.turn)(belfry);
            let other = self.of(other).find(|sample| (self.turn)(sample).0 == run)?;
            Some(figure(belfry) / figure(other))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_compares_samples_of_the_same_run() {
        let samples = [
            (1, ServerKind::Belfry, 1.0),
            (1, ServerKind::Node, 2.0),
            (2, ServerKind::Belfry, 30.0),
            (2, ServerKind::Node, 60.0),
            (3, ServerKind::Belfry, 9.0),
        ];
        let comparison = Comparison { samples: samples.as_slice(), turn: |it| (it.0, it.1) };
        let ratio_to = |other| comparison.ratio(other, |it| it.2);
        assert!((ratio_to(ServerKind::Node) - 0.5).abs() < 1e-9);
        assert!((ratio_to(ServerKind::Belfry) - 1.0).abs() < 1e-9);
        assert!(ratio_to(ServerKind::Nest).is_nan());
    }
}
