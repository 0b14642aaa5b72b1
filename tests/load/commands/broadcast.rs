//! `broadcast`: one event for each client at the same time.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::sleep;

use crate::commands::Comparison;
use crate::events::Form;
use crate::figures::{float, median, ms_at, show};
use crate::fleet::PER_ADDRESS_RECONNECTING;
use crate::machine;
use crate::options::{Common, Turns};
use crate::outcome::Flood;
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::servers::{Mode, ServerKind};
use crate::trial::{Clients, Trial};

/// Measures how fast each of many clients receives an event, if all events are due at once.
///
/// The producer publishes a message for each client as fast as the broker accepts them. All times count from
/// the first message. A run starts with one broadcast that is not measured, and then measures several.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    turns: Turns,
    /// Signed-in clients, one per user.
    #[arg(long, default_value_t = 10_000)]
    connections: u64,
    /// Measured broadcasts per run, with a pause between them. The figures of a run are their medians.
    #[arg(long, default_value_t = 5)]
    broadcasts: u32,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    kind: ServerKind,
    /// From the first message until the broker had all messages.
    published_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// From the first message until the last client had its event.
    last_ms: f64,
    cpu_us: f64,
    broker_cpu_us: f64,
    tool_cpu_us: f64,
    /// Lost events in all broadcasts of the run.
    lost: u64,
    /// Duplicated events in all broadcasts of the run.
    duplicated: u64,
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let rig = super::rig(common, &options.turns.servers, false).await?;
    let facts = machine::facts(&rig, &options.turns.servers).await;
    let mut report = Report::new("An event for every client at once", facts);
    let mut samples = Vec::new();
    for (run, kind) in options.turns.iter() {
        let sample = measure_once(options, &rig, kind, run).await?;
        report.record(&sample)?;
        samples.push(sample);
    }
    report.table(table(options, &samples));
    report.publish(common)
}

async fn measure_once(
    options: &Options,
    rig: &Rig,
    kind: ServerKind,
    run: u32,
) -> anyhow::Result<Sample> {
    const PAUSE: Duration = Duration::from_secs(2);

    let per_address = PER_ADDRESS_RECONNECTING;
    let clients = Clients { per_address, ..Clients::each_alone(options.connections) };
    let mut trial = Trial::open(rig, kind, Mode::Forward, clients).await?;
    // The first broadcast is not measured: caches are cold, and Node has not compiled the code yet.
    trial.broadcast(Form::Forward).await?;
    let mut floods = Vec::new();
    for _ in 0..options.broadcasts {
        sleep(PAUSE).await;
        floods.push(trial.broadcast(Form::Forward).await?);
    }
    trial.close().await;
    let median_of = |figure: fn(&Flood) -> f64| median(floods.iter().map(figure));
    Ok(Sample {
        run,
        server: kind.to_string(),
        kind,
        published_ms: median_of(|flood| flood.published_seconds * 1_000.0),
        p50_ms: median_of(|flood| ms_at(&flood.latency, 50.0)),
        p99_ms: median_of(|flood| ms_at(&flood.latency, 99.0)),
        last_ms: median_of(|flood| ms_at(&flood.latency, 100.0)),
        cpu_us: median_of(|flood| flood.cost.server),
        broker_cpu_us: median_of(|flood| flood.cost.broker),
        tool_cpu_us: median_of(|flood| flood.cost.tool),
        lost: floods.iter().map(|flood| flood.delivery.lost).sum(),
        duplicated: floods.iter().map(|flood| flood.delivery.duplicated).sum(),
    })
}

fn table(options: &Options, samples: &[Sample]) -> Table {
    let note = format!(
        "One event for each of {} clients, published as fast as possible; {} broadcasts per run, medians of {} runs. \
         Times count from the first message. `belfry ÷` is the median of the ratios of belfry to this server in the \
         same run; below 1, belfry needs less.",
        options.connections, options.broadcasts, options.turns.runs
    );
    let columns = [
        "server",
        "last client ms",
        "belfry ÷",
        "p50 ms",
        "p99 ms",
        "belfry ÷",
        "published ms",
        "µs CPU per event",
        "belfry ÷",
        "broker µs",
        "tool µs",
        "lost",
        "duplicated",
    ];
    let mut table = Table::new(&note, &columns);
    let all = Comparison { samples, turn: |sample| (sample.run, sample.kind) };
    for &kind in &options.turns.servers {
        let sum = |figure: fn(&Sample) -> u64| show(float(all.of(kind).map(figure).sum()));
        let mut row = vec![kind.to_string()];
        row.extend(all.with_ratio(kind, |sample| sample.last_ms));
        row.push(all.median(kind, |sample| sample.p50_ms));
        row.extend(all.with_ratio(kind, |sample| sample.p99_ms));
        row.push(all.median(kind, |sample| sample.published_ms));
        row.extend(all.with_ratio(kind, |sample| sample.cpu_us));
        row.push(all.median(kind, |sample| sample.broker_cpu_us));
        row.push(all.median(kind, |sample| sample.tool_cpu_us));
        row.push(sum(|sample| sample.lost));
        row.push(sum(|sample| sample.duplicated));
        table.row(row);
    }
    table
}
