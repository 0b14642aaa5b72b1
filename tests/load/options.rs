//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    attack, broadcast, ceiling, compare, growth, idle, memory, polling, replay, store, storm,
};
use crate::servers::ServerKind;

/// Load tests of Belfry and comparable servers.
///
/// Starts RabbitMQ and PostgreSQL (by Docker, or this machine's programs in temporary folders), then one
/// server after the other. Connects many Socket.IO clients, publishes events, and measures deliveries,
/// latency, CPU time and memory. The report is Markdown on standard output; progress goes to standard error.
/// Use a release build, on a machine without other load.
#[derive(Debug, Parser)]
#[command(name = "belfry-load", version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// The measurements.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    Compare(compare::Options),
    Ceiling(ceiling::Options),
    Store(store::Options),
    Broadcast(broadcast::Options),
    Replay(replay::Options),
    Memory(memory::Options),
    Idle(idle::Options),
    Polling(polling::Options),
    Storm(storm::Options),
    Growth(growth::Options),
    Attack(attack::Options),
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "For every command")]
pub(crate) struct Common {
    /// A running RabbitMQ to use, `amqp://user:password@host:port/vhost`.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) amqp_url: Option<String>,
    /// A running PostgreSQL to use, `postgres://superuser:password@host:port/database`. The tool creates
    /// databases on it and drops them.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// The Belfry executable to measure, instead of a release build of this checkout.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) belfry: Option<PathBuf>,
    /// Another build of Belfry to compare with: the server `baseline`.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) baseline: Option<PathBuf>,
    /// A limit that the baseline does not have, such as `limits.work_per_user`.
    #[arg(long, global = true, value_name = "SETTING")]
    pub(crate) baseline_without: Vec<String>,
    /// An additional setting of Belfry, such as amqp.ingest.prefetch=512.
    #[arg(long = "set", global = true, value_name = "SETTING=VALUE", value_parser = setting)]
    pub(crate) settings: Vec<(String, String)>,
    /// How peers consume: with an acknowledgement of each message, or without acknowledgements.
    #[arg(long, global = true, value_name = "none|each", default_value = "each")]
    #[arg(value_parser = ["none", "each"])]
    pub(crate) peer_ack: String,
    /// Connections opened per second. If many were opened at once, they would queue in front of the server,
    /// and their pings would coincide later.
    #[arg(long, global = true, default_value_t = 500.0)]
    pub(crate) connect_rate: f64,
    /// Client threads.
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=8))]
    pub(crate) client_threads: u64,
    /// Writes the raw figures of every run to this file.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) json: Option<PathBuf>,
    /// Writes plots to this file. If there are several, each has its name before the extension.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) svg: Option<PathBuf>,
}

/// The servers, and the number of runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct Turns {
    /// The servers to measure, one after the other in each run.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "belfry,nest,node,bare-bridge")]
    pub(crate) servers: Vec<ServerKind>,
    /// Number of runs. The report contains the medians.
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: u32,
}

impl Turns {
    /// The run and the server of each measurement, in order. Each run measures all servers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, ServerKind)> {
        (1..=self.runs).flat_map(|run| self.servers.iter().map(move |&kind| (run, kind)))
    }
}

/// The servers, their clients, and the number of runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunPlan {
    #[command(flatten)]
    pub(crate) turns: Turns,
    /// Signed-in clients, one per user.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) connections: u64,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (path, value) = text.split_once('=').ok_or("expected SETTING=VALUE")?;
    Ok((path.to_owned(), value.to_owned()))
}

/// Parses a duration such as `250ms`, `15s` or `30m`. A number without a unit is in seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = text[..text.len() - unit.len()].parse::<f64>();
    let number =
        number.map_err(|_| format!("{text:?} is not a number with the unit ms, s, m or h"))?;
    let seconds = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(format!("unknown unit {unit:?}: use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn each_run_has_all_servers() {
        let turns = Turns { servers: vec![ServerKind::Belfry, ServerKind::Node], runs: 2 };
        let turns: Vec<_> = turns.iter().collect();
        let (first, second) = (ServerKind::Belfry, ServerKind::Node);
        assert_eq!(turns, [(1, first), (1, second), (2, first), (2, second)]);
    }

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, millis) in [("250ms", 250), ("15s", 15_000), ("1.5m", 90_000), ("2", 2_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        assert!(duration("soon").is_err() && duration("3 days").is_err());
    }
}
