//! `compare`: the same events to the same number of clients, server after server.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::chart::{Chart, Scale};
use crate::events::Form;
use crate::figures::{medians, show};
use crate::machine;
use crate::options::{Common, Sides, duration};
use crate::outcome::{Entry, Outcome};
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::servers::{Kind, Mode};
use crate::trial::{Clients, Load, Trial};

/// Compares servers that forward events from RabbitMQ to sockets.
///
/// One event is two frames, `notification:new` and `notification:unread_count`, to one of the connected
/// users at random. Every run starts each server anew, one after the other, on a new queue.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    sides: Sides,
    /// Events per second.
    #[arg(long, default_value_t = 5_000.0)]
    rate: f64,
    /// How long is measured.
    #[arg(long, default_value = "15s", value_parser = duration)]
    duration: Duration,
    /// How long events are sent before that.
    #[arg(long, default_value = "5s", value_parser = duration)]
    warm_up: Duration,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    kind: Kind,
    entry: Entry,
    outcome: Outcome,
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let sides = &options.sides;
    let rig = super::rig(common, &sides.servers, false).await?;
    let facts = machine::facts(&rig, &sides.servers).await;
    let mut runs = Vec::new();
    for (run, kind) in sides.turns() {
        let (entry, outcome) = once(options, &rig, kind).await?;
        eprintln!(
            "run {run}, {kind}: {} µs CPU per event, p99 {} ms, {} lost",
            show(outcome.cost.server),
            show(outcome.p99_ms),
            outcome.lost
        );
        runs.push(Sample { run, server: kind.to_string(), kind, entry, outcome });
    }
    let mut report = Report::new("Forwarded events: servers compared", facts);
    report.table(summary(options, &runs));
    report.table(details(&runs));
    report.chart("latency", latencies(sides, &runs));
    for run in &runs {
        report.raw(run);
    }
    report.publish(common)
}

async fn once(options: &Options, rig: &Rig, kind: Kind) -> anyhow::Result<(Entry, Outcome)> {
    let clients = Clients::each_alone(options.sides.connections);
    let mut trial = Trial::open(rig, kind, Mode::Forward, clients).await?;
    let load = Load {
        form: Form::Forward,
        rate: options.rate,
        warm_up: options.warm_up,
        time: options.duration,
    };
    let outcome = trial.send(load).await?;
    let entry = trial.entry;
    trial.close().await;
    Ok((entry, outcome))
}

fn summary(options: &Options, runs: &[Sample]) -> Table {
    let note = format!(
        "{} connections, {} events/s, medians of {} runs. `belfry ÷` is the median of the ratios of \
         belfry to this server in the same run; below 1, belfry needs less.",
        options.sides.connections, options.rate, options.sides.runs
    );
    let mut table = Table::new(
        &note,
        &[
            "server",
            "µs CPU per event",
            "belfry ÷",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "lost",
            "doubled",
            "KiB per connection",
            "belfry ÷",
            "ms CPU per connect",
            "belfry ÷",
        ],
    );
    for &kind in &options.sides.servers {
        let middle = medians(runs.iter().filter(|run| run.kind == kind));
        let sum = |figure: fn(&Sample) -> u64| -> String {
            runs.iter().filter(|run| run.kind == kind).map(figure).sum::<u64>().to_string()
        };
        let than = |figure: fn(&Sample) -> f64| {
            show(super::ratio(runs, |run| (run.run, run.kind), kind, figure))
        };
        let cpu: fn(&Sample) -> f64 = |run| run.outcome.cost.server;
        let memory: fn(&Sample) -> f64 = |run| run.entry.kib_per_connection;
        let connect: fn(&Sample) -> f64 = |run| run.entry.cpu_ms_per_connect;
        table.row([
            kind.to_string(),
            middle(cpu),
            than(cpu),
            middle(|run| run.outcome.p50_ms),
            middle(|run| run.outcome.p90_ms),
            middle(|run| run.outcome.p99_ms),
            middle(|run| run.outcome.p999_ms),
            middle(|run| run.outcome.max_ms),
            sum(|run| run.outcome.lost),
            sum(|run| run.outcome.doubled),
            middle(memory),
            than(memory),
            middle(connect),
            than(connect),
        ]);
    }
    table
}

fn details(runs: &[Sample]) -> Table {
    let mut table = Table::new(
        "Each run. The CPU of the broker and of this tool are for information: they share the machine.",
        &[
            "server",
            "run",
            "µs CPU per event",
            "broker",
            "tool",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "delivered",
            "lost",
            "doubled",
            "counts missing",
            "cut off",
            "queued at end",
        ],
    );
    for Sample { kind, run, outcome, .. } in runs {
        table.row([
            kind.to_string(),
            run.to_string(),
            show(outcome.cost.server),
            show(outcome.cost.broker),
            show(outcome.cost.tool),
            show(outcome.p50_ms),
            show(outcome.p99_ms),
            show(outcome.p999_ms),
            outcome.delivered.to_string(),
            outcome.lost.to_string(),
            outcome.doubled.to_string(),
            outcome.counts_missing.to_string(),
            outcome.cut_off.to_string(),
            outcome.queued.to_string(),
        ]);
    }
    table
}

/// Latency over percentiles, of all runs together. The axis is 1 / (1 - percentile): 100 is p99.
fn latencies(sides: &Sides, runs: &[Sample]) -> Chart {
    let mut chart = Chart::new(
        "Latency from publishing to the socket",
        ("1 / (1 - percentile): 10 is p90, 100 is p99", Scale::Logarithmic),
        ("ms", Scale::Logarithmic),
    );
    for &kind in &sides.servers {
        let mut all = crate::tally::no_latency();
        for latency in runs
            .iter()
            .filter(|run| run.kind == kind)
            .filter_map(|run| run.outcome.latency.as_ref())
        {
            all.add(latency).expect("all have the same bounds");
        }
        let points = [1.0, 2.0, 4.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 10_000.0];
        let line = points.map(|x| (x, crate::figures::ms_at(&all, 100.0 * (1.0 - 1.0 / x))));
        chart.line(&kind.to_string(), line);
    }
    chart
}
