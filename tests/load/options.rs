//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::commands::{attack, ceiling, compare, growth, memory, polling, store, storm};
use crate::servers::Kind;

/// Measures Belfry under load, side by side with servers that do the same.
///
/// Brings RabbitMQ and PostgreSQL (a Docker engine's or this machine's programs, in temporary folders),
/// starts the servers one after the other, connects many Socket.IO clients, publishes events and counts
/// what arrives, when, and what CPU time and memory it took. The report is Markdown on standard output;
/// progress goes to standard error. Run it as a release build on a machine that does nothing else.
#[derive(Debug, Parser)]
#[command(name = "belfry-load", version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What can be measured.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    Compare(compare::Options),
    Ceiling(ceiling::Options),
    Store(store::Options),
    Memory(memory::Options),
    Polling(polling::Options),
    Storm(storm::Options),
    Growth(growth::Options),
    Attack(attack::Options),
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "For every command")]
pub(crate) struct Common {
    /// A RabbitMQ that runs already, `amqp://user:password@host:port/vhost`, in the place of an own one.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) amqp_url: Option<String>,
    /// A PostgreSQL that runs already, `postgres://superuser:password@host:port/database`; databases are
    /// made on it and dropped again.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// The belfry to measure, in the place of a release build of this checkout.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) belfry: Option<PathBuf>,
    /// Another build of Belfry to compare with: the server `baseline`.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) baseline: Option<PathBuf>,
    /// A limit that the baseline does not know, such as `limits.work_per_user`.
    #[arg(long, global = true, value_name = "SETTING")]
    pub(crate) baseline_without: Vec<String>,
    /// A further setting of Belfry, such as amqp.ingest.prefetch=512.
    #[arg(long = "set", global = true, value_name = "SETTING=VALUE", value_parser = setting)]
    pub(crate) settings: Vec<(String, String)>,
    /// Whether peers acknowledge each message, or consume without acknowledgements.
    #[arg(long, global = true, value_name = "none|each", default_value = "each")]
    #[arg(value_parser = ["none", "each"])]
    pub(crate) peer_ack: String,
    /// Connections begun per second. Many at once only queue before the server, and its pings then come
    /// all in the same instant.
    #[arg(long, global = true, default_value_t = 500.0)]
    pub(crate) connect_rate: f64,
    /// Threads for the clients.
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=8))]
    pub(crate) client_threads: u64,
    /// Writes the raw figures of every run to this file.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) json: Option<PathBuf>,
    /// Draws the results to this file. Where there are several plots, their names go before its end.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) svg: Option<PathBuf>,
}

/// Which servers, and how many clients each has.
#[derive(Debug, Clone, Args)]
pub(crate) struct Sides {
    /// The servers to measure, one after the other in every run.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "belfry,nest,node,floor")]
    pub(crate) servers: Vec<Kind>,
    /// Signed-in clients, each of a user of its own.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) connections: u64,
    /// How often everything is measured. Medians are told.
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: u32,
}

impl Sides {
    /// Whose turn it is, and in which run: in every run all servers, one after the other.
    pub(crate) fn turns(&self) -> impl Iterator<Item = (u32, Kind)> {
        (1..=self.runs).flat_map(|run| self.servers.iter().map(move |&kind| (run, kind)))
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (path, value) = text.split_once('=').ok_or("it is SETTING=VALUE")?;
    Ok((path.to_owned(), value.to_owned()))
}

/// `250ms`, `15s`, `30m`
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = text[..text.len() - unit.len()].parse::<f64>();
    let number = number.map_err(|_| format!("{text:?} is no number with ms, s, m or h"))?;
    let seconds = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(format!("{unit:?} is no unit: ms, s, m or h are")),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn every_run_has_all_servers() {
        let sides = Sides { servers: vec![Kind::Belfry, Kind::Node], connections: 1, runs: 2 };
        let turns: Vec<_> = sides.turns().collect();
        let (first, second) = (Kind::Belfry, Kind::Node);
        assert_eq!(turns, [(1, first), (1, second), (2, first), (2, second)]);
    }

    #[test]
    fn durations_are_numbers_with_a_unit() {
        for (text, millis) in [("250ms", 250), ("15s", 15_000), ("1.5m", 90_000), ("2", 2_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        assert!(duration("soon").is_err() && duration("3 days").is_err());
    }
}
