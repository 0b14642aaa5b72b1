//! `idle`: the CPU time of connections on which nothing happens except heartbeats.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::commands::Comparison;
use crate::figures::{float, show};
use crate::fleet::{ConnectPace, PER_ADDRESS_RECONNECTING};
use crate::machine;
use crate::options::{Common, Turns, duration};
use crate::outcome::{ConnectCost, Idle};
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::servers::{Mode, ServerKind};
use crate::trial::{Clients, Trial};

/// The interval of heartbeats, which is the default of Engine.IO, of Belfry and of all peers.
const PING_INTERVAL: Duration = Duration::from_secs(25);

/// How long the server without clients is measured.
const EMPTY: Duration = Duration::from_secs(10);

/// Measures the server's CPU time while its signed-in clients only answer heartbeats.
///
/// The server's CPU time without clients is subtracted. It comes from timers and from heartbeats with the broker.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    turns: Turns,
    /// Signed-in clients, one per user.
    #[arg(long, default_value_t = 10_000)]
    connections: u64,
    /// How the clients connect.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "burst,spread")]
    connect: Vec<Connect>,
    /// With `burst`: clients that connect at the same time.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    connecting: u64,
    /// Length of the measurement, at least two intervals of heartbeats, 50 s.
    #[arg(long, default_value = "60s", value_parser = duration)]
    duration: Duration,
}

/// How the clients connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Connect {
    /// As fast as the server accepts them
    Burst,
    /// Evenly over one interval of heartbeats
    Spread,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    kind: ServerKind,
    connect: Connect,
    connections: u64,
    connect_cost: ConnectCost,
    /// CPU time per second without clients.
    empty_us_per_second: f64,
    idle: Idle,
    cut_off: u64,
}

impl Sample {
    /// CPU time of all connections together, per second.
    fn us_per_second(&self) -> f64 {
        self.idle.cpu_us_per_second - self.empty_us_per_second
    }

    fn us_per_connection_second(&self) -> f64 {
        self.us_per_second() / float(self.connections.max(1))
    }

    fn us_per_heartbeat(&self) -> f64 {
        self.us_per_second() / self.idle.pings_per_second
    }
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    ensure!(
        options.duration >= 2 * PING_INTERVAL,
        "--duration must be at least two intervals of heartbeats, {:?}",
        2 * PING_INTERVAL
    );
    let rig = super::rig(common, &options.turns.servers, false).await?;
    let facts = machine::facts(&rig, &options.turns.servers).await;
    let mut report = Report::new("Idle connections", facts);
    let mut samples = Vec::new();
    for run in 1..=options.turns.runs {
        for &connect in &options.connect {
            for &kind in &options.turns.servers {
                let sample = measure_once(options, &rig, (kind, connect), run).await?;
                report.record(&sample)?;
                samples.push(sample);
            }
        }
    }
    report.table(table(options, samples));
    report.publish(common)
}

async fn measure_once(
    options: &Options,
    rig: &Rig,
    (kind, connect): (ServerKind, Connect),
    run: u32,
) -> anyhow::Result<Sample> {
    let connections = options.connections;
    let pace = match connect {
        Connect::Burst => ConnectPace::AtOnce(options.connecting),
        Connect::Spread => ConnectPace::PerSecond(float(connections) / PING_INTERVAL.as_secs_f64()),
    };
    let per_address = PER_ADDRESS_RECONNECTING;
    let clients = Clients { pace: Some(pace), per_address, ..Clients::each_alone(connections) };
    let mut trial = Trial::start(rig, kind, Mode::Forward, clients).await?;
    let empty = trial.idle(EMPTY).await;
    trial.connect().await?;
    let idle = trial.idle(options.duration).await;
    trial.server.must_run()?;
    let sample = Sample {
        run,
        server: kind.to_string(),
        kind,
        connect,
        connections,
        connect_cost: trial.connect_cost,
        empty_us_per_second: empty.cpu_us_per_second,
        idle,
        cut_off: trial.fleet.counters.cut_off.load(Relaxed),
    };
    trial.close().await;
    Ok(sample)
}

fn table(options: &Options, samples: Vec<Sample>) -> Table {
    let note = format!(
        "{} signed-in clients that answer heartbeats, for {:?}; they connect all at once (`burst`, {} at a time) or \
         evenly over {PING_INTERVAL:?} (`spread`); medians of {} runs. CPU per connection and per heartbeat is above \
         that of the server without clients. `belfry ÷` is the median of the ratios of belfry to this server in the \
         same run; below 1, belfry needs less.",
        options.connections, options.duration, options.connecting, options.turns.runs
    );
    let columns = [
        "server",
        "connect",
        "µs CPU per connection and second",
        "belfry ÷",
        "µs CPU per heartbeat",
        "belfry ÷",
        "heartbeats/s",
        "ms CPU per second, no clients",
        "KiB per connection",
        "connected after s",
        "cut off",
    ];
    let mut table = Table::new(&note, &columns);
    let (bursts, spread): (Vec<_>, Vec<_>) =
        samples.into_iter().partition(|sample| sample.connect == Connect::Burst);
    for (connect, samples) in [("burst", bursts), ("spread", spread)] {
        let all =
            Comparison { samples: samples.as_slice(), turn: |sample| (sample.run, sample.kind) };
        for &kind in options.turns.servers.iter().filter(|kind| all.of(**kind).next().is_some()) {
            let mut row = vec![kind.to_string(), connect.to_owned()];
            row.extend(all.with_ratio(kind, Sample::us_per_connection_second));
            row.extend(all.with_ratio(kind, Sample::us_per_heartbeat));
            row.push(all.median(kind, |sample| sample.idle.pings_per_second));
            row.push(all.median(kind, |sample| sample.empty_us_per_second / 1_000.0));
            row.push(all.median(kind, |sample| sample.connect_cost.kib_per_connection));
            row.push(all.median(kind, |sample| sample.connect_cost.connect_seconds));
            row.push(show(float(all.of(kind).map(|sample| sample.cut_off).sum())));
            table.row(row);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_without_clients_is_subtracted() {
        let idle =
            Idle { cpu_us_per_second: 5_000.0, polls_per_second: 0.0, pings_per_second: 40.0 };
        let sample = Sample {
            run: 1,
            server: String::new(),
            kind: ServerKind::Belfry,
            connect: Connect::Burst,
            connections: 1_000,
            connect_cost: ConnectCost::default(),
            empty_us_per_second: 1_000.0,
            idle,
            cut_off: 0,
        };
        assert!((sample.us_per_connection_second() - 4.0).abs() < 1e-9);
        assert!((sample.us_per_heartbeat() - 100.0).abs() < 1e-9);
    }
}
