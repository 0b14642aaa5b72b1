//! `polling`: the cost of clients that use HTTP long polling.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use serde::Serialize;
use tokio::time::sleep;

use crate::commands::Comparison;
use crate::device::Transport;
use crate::events::Form;
use crate::figures::{float, kib, show};
use crate::machine;
use crate::options::{Common, Turns, duration};
use crate::outcome::{ConnectCost, Idle, Outcome};
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::schedule::EventTiming;
use crate::servers::{Mode, ServerKind};
use crate::trial::{Clients, Load, Trial};

/// Compares servers with clients that poll.
///
/// Each client has one persistent connection, on which a poll is almost always waiting. It posts its pongs
/// between two polls. Servers forward events from RabbitMQ: one event is `notification:new` and
/// `notification:unread_count` to one random user, which a server sends in one response or in two. Each run
/// starts every server again, one after the other, on a new queue.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The servers to measure, one after the other in each run. bare-bridge has no polling.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "belfry,node")]
    servers: Vec<ServerKind>,
    /// Signed-in clients, one per user.
    #[arg(long, default_value_t = 10_000)]
    connections: u64,
    /// Number of runs. The report contains the medians.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Events per second.
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// How long idle clients are measured, and then clients with events. The server pings each client every
    /// 25 s, so each multiple of 25 s contains the same share of pings.
    #[arg(long, default_value = "25s", value_parser = duration)]
    duration: Duration,
    /// How long events are sent before the measurement.
    #[arg(long, default_value = "5s", value_parser = duration)]
    warm_up: Duration,
    /// Further events per client, on average, before memory is measured again. They are published as fast as the
    /// clients receive them.
    #[arg(long, default_value_t = 20)]
    events: u64,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    kind: ServerKind,
    connect_cost: ConnectCost,
    idle: Idle,
    outcome: Outcome,
    /// Memory after the further events.
    used_kib_per_connection: f64,
    /// The number of further events that were lost.
    used_lost: u64,
    cpu_us_per_event: f64,
    polls_per_event: f64,
    cpu_us_per_poll: f64,
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    ensure!(
        !options.servers.contains(&ServerKind::BareBridge),
        "bare-bridge does not serve polling"
    );
    let rig = super::rig(common, &options.servers, false).await?;
    let facts = machine::facts(&rig, &options.servers).await;
    let mut report = Report::new("Polling: servers compared", facts);
    let turns = Turns { servers: options.servers.clone(), runs: options.runs };
    let mut runs = Vec::new();
    for (run, kind) in turns.iter() {
        let sample = measure_once(options, &rig, run, kind).await?;
        eprintln!(
            "run {run}, {kind}: {} KiB per idle connection, {} µs CPU per poll, p99 {} ms, {} lost",
            show(sample.connect_cost.kib_per_connection),
            show(sample.cpu_us_per_poll),
            show(sample.outcome.p99_ms),
            sample.outcome.lost
        );
        report.raw(&sample);
        runs.push(sample);
    }
    report.table(summary(options, &runs));
    report.table(details(&runs));
    report.publish(common)
}

async fn measure_once(
    options: &Options,
    rig: &Rig,
    run: u32,
    kind: ServerKind,
) -> anyhow::Result<Sample> {
    /// The number of further events that may be published and not yet delivered.
    const AHEAD: u64 = 1_000;
    /// The time from the last event until memory is measured.
    const PAUSE: Duration = Duration::from_secs(3);

    let connections = options.connections;
    let clients = Clients { transport: Transport::Polling, ..Clients::each_alone(connections) };
    let mut trial = Trial::open(rig, kind, Mode::Forward, clients).await?;
    let idle = trial.idle(options.duration).await;
    let load = Load {
        form: Form::Forward,
        rate: options.rate,
        timing: EventTiming::TICKS,
        warm_up: options.warm_up,
        time: options.duration,
    };
    let outcome = trial.send(load).await?;
    let used = trial.flood(Form::Forward, connections * options.events, Some(AHEAD)).await?;
    sleep(PAUSE).await;
    let (connect_cost, used_rss) = (trial.connect_cost, trial.server.process().rss());
    trial.close().await;
    let grown = kib(float(used_rss) - float(connect_cost.empty_rss));
    // Both measurements contain pings, which are not a part of the cost of an event.
    let cpu_us_per_event = outcome.cost.server - idle.cpu_us_per_second / options.rate;
    let polls_per_second = float(outcome.polls) / options.duration.as_secs_f64();
    let polls_per_event = (polls_per_second - idle.polls_per_second) / options.rate;
    Ok(Sample {
        run,
        server: kind.to_string(),
        kind,
        connect_cost,
        idle,
        outcome,
        used_kib_per_connection: grown / float(connections.max(1)),
        used_lost: used.delivery.lost,
        cpu_us_per_event,
        polls_per_event,
        cpu_us_per_poll: cpu_us_per_event / polls_per_event,
    })
}

fn summary(options: &Options, runs: &[Sample]) -> Table {
    let note = format!(
        "{} polling clients, {} events/s for {:?}, medians of {} runs. Memory is growth over the empty server, 3 s \
         after the last client has connected, and after each has received {} further events on average. CPU per \
         event and per poll exclude the CPU of idle clients. `belfry ÷` is the median of the ratios of \
         belfry to this server in the same run; below 1, belfry needs less.",
        options.connections, options.rate, options.duration, options.runs, options.events
    );
    let columns = [
        "server",
        "KiB per idle connection",
        "belfry ÷",
        "after events",
        "belfry ÷",
        "µs CPU per poll",
        "belfry ÷",
        "polls per event",
        "µs CPU per event",
        "belfry ÷",
        "p50 ms",
        "p99 ms",
        "ms CPU per connect",
        "belfry ÷",
        "ms CPU per idle second",
        "belfry ÷",
    ];
    let mut table = Table::new(&note, &columns);
    let comparison = Comparison { samples: runs, turn: |run| (run.run, run.kind) };
    for &kind in &options.servers {
        let median = |figure: fn(&Sample) -> f64| comparison.median(kind, figure);
        let with_ratio = |figure: fn(&Sample) -> f64| comparison.with_ratio(kind, figure);
        let mut row = vec![kind.to_string()];
        row.extend(with_ratio(|run| run.connect_cost.kib_per_connection));
        row.extend(with_ratio(|run| run.used_kib_per_connection));
        row.extend(with_ratio(|run| run.cpu_us_per_poll));
        row.push(median(|run| run.polls_per_event));
        row.extend(with_ratio(|run| run.cpu_us_per_event));
        row.push(median(|run| run.outcome.p50_ms));
        row.push(median(|run| run.outcome.p99_ms));
        row.extend(with_ratio(|run| run.connect_cost.cpu_ms_per_connect));
        row.extend(with_ratio(|run| run.idle.cpu_us_per_second / 1_000.0));
        table.row(row);
    }
    table
}

fn details(runs: &[Sample]) -> Table {
    let columns = [
        "server",
        "run",
        "KiB per idle connection",
        "after events",
        "µs CPU per poll",
        "broker per event",
        "tool per event",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "delivered",
        "lost",
        "duplicated",
        "lost of further events",
        "cut off",
    ];
    let mut table = Table::new("Each run.", &columns);
    for sample in runs {
        let outcome = &sample.outcome;
        table.row([
            sample.server.clone(),
            sample.run.to_string(),
            show(sample.connect_cost.kib_per_connection),
            show(sample.used_kib_per_connection),
            show(sample.cpu_us_per_poll),
            show(outcome.cost.broker),
            show(outcome.cost.tool),
            show(outcome.p50_ms),
            show(outcome.p99_ms),
            show(outcome.p999_ms),
            outcome.delivered.to_string(),
            outcome.lost.to_string(),
            outcome.duplicated.to_string(),
            sample.used_lost.to_string(),
            outcome.cut_off.to_string(),
        ]);
    }
    table
}
