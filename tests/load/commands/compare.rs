//! `compare`: each server delivers the same number of events to the same number of clients.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::chart::{Chart, Scale};
use crate::commands::Comparison;
use crate::events::Form;
use crate::figures::show;
use crate::machine;
use crate::options::{Common, RunPlan, duration};
use crate::outcome::{ConnectCost, Outcome};
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::schedule::EventTiming;
use crate::servers::{Mode, ServerKind};
use crate::trial::{Clients, Load, Trial};

/// Compares servers that forward events from RabbitMQ to sockets.
///
/// One event is two frames, `notification:new` and `notification:unread_count`, to one random connected user. Each
/// run starts every server again, one after the other, on a new queue.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    plan: RunPlan,
    /// Events per second.
    #[arg(long, default_value_t = 5_000.0)]
    rate: f64,
    /// Length of the measurement.
    #[arg(long, default_value = "15s", value_parser = duration)]
    duration: Duration,
    /// How long events are sent before the measurement.
    #[arg(long, default_value = "5s", value_parser = duration)]
    warm_up: Duration,
    #[command(flatten)]
    timing: EventTiming,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    kind: ServerKind,
    connect_cost: ConnectCost,
    outcome: Outcome,
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let plan = &options.plan;
    let rig = super::rig(common, &plan.turns.servers, false).await?;
    let facts = machine::facts(&rig, &plan.turns.servers).await;
    let mut runs = Vec::new();
    for (run, kind) in plan.turns.iter() {
        let (connect_cost, outcome) = measure_once(options, &rig, kind, run).await?;
        eprintln!(
            "run {run}, {kind}: {} µs CPU per event, p99 {} ms, {} lost",
            show(outcome.cost.server),
            show(outcome.p99_ms),
            outcome.lost
        );
        runs.push(Sample { run, server: kind.to_string(), kind, connect_cost, outcome });
    }
    let mut report = Report::new("Forwarded events: servers compared", facts);
    report.table(summary(options, &runs));
    report.table(details(&runs));
    report.chart("latency", latencies(plan, &runs));
    for run in &runs {
        report.raw(run);
    }
    report.publish(common)
}

async fn measure_once(
    options: &Options,
    rig: &Rig,
    kind: ServerKind,
    run: u32,
) -> anyhow::Result<(ConnectCost, Outcome)> {
    let clients = Clients::each_alone(options.plan.connections);
    let mut trial = Trial::open(rig, kind, Mode::Forward, clients).await?;
    let load = Load {
        form: Form::Forward,
        rate: options.rate,
        timing: options.timing.in_run(run),
        warm_up: options.warm_up,
        time: options.duration,
    };
    let outcome = trial.send(load).await?;
    let connect_cost = trial.connect_cost;
    trial.close().await;
    Ok((connect_cost, outcome))
}

fn summary(options: &Options, runs: &[Sample]) -> Table {
    let note = format!(
        "{} connections, {} events/s {}, medians of {} runs. `belfry ÷` is the median of the ratios of \
         belfry to this server in the same run; below 1, belfry needs less.",
        options.plan.connections,
        options.rate,
        options.timing.arrivals.describe(),
        options.plan.turns.runs
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
            "duplicated",
            "KiB per connection",
            "belfry ÷",
            "ms CPU per connect",
            "belfry ÷",
        ],
    );
    let comparison = Comparison { samples: runs, turn: |run| (run.run, run.kind) };
    for &kind in &options.plan.turns.servers {
        let median = |figure: fn(&Sample) -> f64| comparison.median(kind, figure);
        let with_ratio = |figure: fn(&Sample) -> f64| comparison.with_ratio(kind, figure);
        let sum =
            |figure: fn(&Sample) -> u64| comparison.of(kind).map(figure).sum::<u64>().to_string();
        let mut row = vec![kind.to_string()];
        row.extend(with_ratio(|run| run.outcome.cost.server));
        row.push(median(|run| run.outcome.p50_ms));
        row.push(median(|run| run.outcome.p90_ms));
        row.push(median(|run| run.outcome.p99_ms));
        row.push(median(|run| run.outcome.p999_ms));
        row.push(median(|run| run.outcome.max_ms));
        row.push(sum(|run| run.outcome.lost));
        row.push(sum(|run| run.outcome.duplicated));
        row.extend(with_ratio(|run| run.connect_cost.kib_per_connection));
        row.extend(with_ratio(|run| run.connect_cost.cpu_ms_per_connect));
        table.row(row);
    }
    table
}

fn details(runs: &[Sample]) -> Table {
    let mut table = Table::new(
        "Each run. The CPU of the broker and of this tool are for information: they share the machine. \
         The lateness of the publisher is the time from when an event was due until it was written to the \
         broker; it is a part of the latency.",
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
            "duplicated",
            "counts missing",
            "cut off",
            "queued at end",
            "published/s",
            "p99 µs late",
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
            outcome.duplicated.to_string(),
            outcome.counts_missing.to_string(),
            outcome.cut_off.to_string(),
            outcome.queued.to_string(),
            show(outcome.published_per_second),
            show(outcome.publisher_p99_late_us),
        ]);
    }
    table
}

/// A chart of the latency of all runs together over the percentile. The horizontal axis is 1 / (1 -
/// percentile), so 100 is p99.
fn latencies(plan: &RunPlan, runs: &[Sample]) -> Chart {
    let mut chart = Chart::new(
        "Latency from publishing to the socket",
        ("1 / (1 - percentile): 10 is p90, 100 is p99", Scale::Logarithmic),
        ("ms", Scale::Logarithmic),
    );
    for &kind in &plan.turns.servers {
        let mut all = crate::tally::no_latency();
        for latency in runs
            .iter()
            .filter(|run| run.kind == kind)
            .filter_map(|run| run.outcome.latency.as_ref())
        {
            all.add(latency).expect("all histograms have the same bounds");
        }
        let points = [1.0, 2.0, 4.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 10_000.0];
        let line = points.map(|x| (x, crate::figures::ms_at(&all, 100.0 * (1.0 - 1.0 / x))));
        chart.line(&kind.to_string(), line);
    }
    chart
}
