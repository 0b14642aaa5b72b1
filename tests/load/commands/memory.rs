//! `memory`: memory per connection when idle, after events, and while clients connect and leave for a long time.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::chart::{Chart, Scale};
use crate::events::{Events, Form};
use crate::figures::{float, kib, medians, mib, show};
use crate::fleet::ClientBehaviour;
use crate::machine;
use crate::options::{Common, RunPlan, duration};
use crate::outcome::ConnectCost;
use crate::producer::Producer;
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::schedule::{EventTiming, Schedule};
use crate::servers::{Mode, ServerKind};
use crate::trial::{Clients, Trial};

/// Measures resident memory per signed-in websocket.
///
/// Belfry runs in store mode, with PostgreSQL and an empty inbox for each user; peers store nothing.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    plan: RunPlan,
    /// Events per client, on average, before memory is measured again.
    #[arg(long, default_value_t = 100)]
    events: u64,
    /// Instead, let clients connect, receive and leave for this time.
    #[arg(long, value_parser = duration)]
    churn: Option<Duration>,
    /// With --churn: how long a client stays, on average.
    #[arg(long, default_value = "20s", value_parser = duration)]
    stay: Duration,
    /// With --churn: events per second.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    kind: ServerKind,
    connect_cost: ConnectCost,
    /// After the events and a pause, in bytes.
    used_rss: u64,
    used_kib_per_connection: f64,
    lost: u64,
}

/// Memory over time while clients connect and leave.
#[derive(Debug, Serialize)]
struct ChurnSample {
    server: String,
    connects: u64,
    failed: u64,
    /// The error of the last failed connect.
    last_error: String,
    /// Pairs of seconds since the start and bytes.
    rss: Vec<(f64, u64)>,
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let plan = &options.plan;
    let rig = super::rig(common, &plan.servers, true).await?;
    let facts = machine::facts(&rig, &plan.servers).await;
    let mut report = Report::new("Memory", facts);
    if let Some(time) = options.churn {
        churn(options, &rig, time, &mut report).await?;
    } else {
        idle_and_used(options, &rig, &mut report).await?;
    }
    report.publish(common)
}

/// The default mode of a server, and the form of events for it.
pub(crate) fn default_mode(kind: ServerKind, database: &str) -> (Mode<'_>, Form) {
    match kind {
        belfry if belfry.is_belfry() => (Mode::Store(database), Form::Store),
        _ => (Mode::Forward, Form::Forward),
    }
}

async fn idle_and_used(options: &Options, rig: &Rig, report: &mut Report) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for (run, kind) in options.plan.turns() {
        let found = measure_once(options, rig, kind, run).await?;
        eprintln!(
            "run {run}, {kind}: {} KiB per idle connection, {} after events",
            show(found.connect_cost.kib_per_connection),
            show(found.used_kib_per_connection)
        );
        report.raw(&found);
        runs.push(found);
    }
    let note = format!(
        "{} signed-in clients; growth over the empty server, 3 s after the last one connected, and after each \
         has received {} events on average; medians of {} runs.",
        options.plan.connections, options.events, options.plan.runs
    );
    let columns = ["server", "empty MiB", "KiB per idle connection", "after events", "lost"];
    let mut table = Table::new(&note, &columns);
    for &kind in &options.plan.servers {
        let of = medians(runs.iter().filter(|run| run.kind == kind));
        table.row([
            kind.to_string(),
            of(|run| mib(run.connect_cost.empty_rss)),
            of(|run| run.connect_cost.kib_per_connection),
            of(|run| run.used_kib_per_connection),
            of(|run| float(run.lost)),
        ]);
    }
    report.table(table);
    Ok(())
}

async fn measure_once(
    options: &Options,
    rig: &Rig,
    kind: ServerKind,
    run: u32,
) -> anyhow::Result<Sample> {
    let database = rig.fresh_database().await;
    let connections = options.plan.connections;
    let clients = Clients::each_alone(connections);
    let (mode, form) = default_mode(kind, database.url());
    let mut trial = Trial::open(rig, kind, mode, clients).await?;
    let flood = trial.flood(form, connections * options.events, None).await?;
    sleep(Duration::from_secs(3)).await;
    let (connect_cost, used_rss) = (trial.connect_cost, trial.server.process().rss());
    trial.close().await;
    let grown = kib(float(used_rss) - float(connect_cost.empty_rss));
    let used_kib_per_connection = grown / float(connections.max(1));
    let (server, lost) = (kind.to_string(), flood.delivery.lost);
    Ok(Sample { run, server, kind, connect_cost, used_rss, used_kib_per_connection, lost })
}

async fn churn(
    options: &Options,
    rig: &Rig,
    time: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut chart = Chart::new(
        "Resident memory while clients connect and leave",
        ("minutes", Scale::Linear),
        ("MiB", Scale::Linear),
    );
    let note = format!(
        "{} clients that stay for {:?} on average and reconnect, {} events/s, for {time:?}.",
        options.plan.connections, options.stay, options.rate
    );
    let columns =
        ["server", "connects", "failed", "MiB empty", "after a tenth", "half", "at the end"];
    let mut table = Table::new(&note, &columns);
    for &kind in &options.plan.servers {
        let sample = measure_churn(options, rig, kind, time).await?;
        if sample.failed > 0 {
            eprintln!(
                "{kind}: {} connects failed, last error: {}",
                sample.failed, sample.last_error
            );
        }
        chart.line(&kind.to_string(), sample.rss.iter().map(|(at, rss)| (at / 60.0, mib(*rss))));
        let at = |tenths: usize| {
            let index = (sample.rss.len().saturating_sub(1)) * tenths / 10;
            sample.rss.get(index).map_or(f64::NAN, |(_, rss)| mib(*rss))
        };
        table.row([
            kind.to_string(),
            sample.connects.to_string(),
            sample.failed.to_string(),
            show(at(0)),
            show(at(1)),
            show(at(5)),
            show(at(10)),
        ]);
        report.raw(&sample);
    }
    report.table(table);
    report.chart("churn", chart);
    Ok(())
}

async fn measure_churn(
    options: &Options,
    rig: &Rig,
    kind: ServerKind,
    time: Duration,
) -> anyhow::Result<ChurnSample> {
    use std::sync::atomic::Ordering::Relaxed;

    let database = rig.fresh_database().await;
    let connections = options.plan.connections;
    let clients = Clients {
        behaviour: ClientBehaviour::Churn(options.stay),
        ..Clients::each_alone(connections)
    };
    let (mode, form) = default_mode(kind, database.url());
    let mut trial = Trial::start_connecting(rig, kind, mode, clients).await?;
    let begin = Instant::now();
    let mut rss = vec![(0.0, trial.server.process().rss())];
    let schedule = Schedule {
        begin: crate::clock::now(),
        rate: options.rate,
        first: 0,
        total: crate::figures::whole(options.rate * time.as_secs_f64()),
        timing: EventTiming::TICKS,
    };
    let events = Events::for_users(form, connections);
    let publisher = trial.publisher(form == Form::Store).await?;
    let producer = Producer::start(publisher, events, schedule);
    while begin.elapsed() < time {
        sleep(Duration::from_secs(1).min(time / 10)).await;
        rss.push((begin.elapsed().as_secs_f64(), trial.server.process().rss()));
        if rss.len() % 60 == 0 {
            let (minutes, bytes) = (begin.elapsed().as_secs() / 60, trial.server.process().rss());
            eprintln!("{kind}, {minutes} min: {} MiB", show(mib(bytes)));
            trial.server.must_run()?;
        }
    }
    drop(producer);
    let counters = &trial.fleet.counters;
    let (connects, failed) = (counters.attempts.load(Relaxed), counters.failed.load(Relaxed));
    let last_error = counters.last_error();
    trial.close().await;
    Ok(ChurnSample { server: kind.to_string(), connects, failed, last_error, rss })
}
