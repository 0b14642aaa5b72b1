//! `memory`: what a connection costs while nothing happens, after events, and over hours of comings and
//! goings.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::chart::{Chart, Scale};
use crate::events::{Events, Form};
use crate::figures::{float, kib, medians, mib, show};
use crate::fleet::Life;
use crate::machine;
use crate::options::{Common, Sides, duration};
use crate::outcome::Entry;
use crate::producer::{Producer, Schedule};
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::servers::{Kind, Mode};
use crate::trial::{Clients, Trial};

/// Measures resident memory for each signed-in websocket.
///
/// Belfry runs as it normally does, with PostgreSQL and an empty inbox for every user; peers store
/// nothing.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    sides: Sides,
    /// How many events each client receives, on average, before memory is looked at again.
    #[arg(long, default_value_t = 100)]
    events: u64,
    /// In the place of that: clients connect, receive and leave all the time, for so long.
    #[arg(long, value_parser = duration)]
    churn: Option<Duration>,
    /// How long a client stays then, on average.
    #[arg(long, default_value = "20s", value_parser = duration)]
    stay: Duration,
    /// Events per second then.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    kind: Kind,
    entry: Entry,
    /// After every client has received its events, and a rest.
    used_rss: u64,
    used_kib_per_connection: f64,
    lost: u64,
}

/// Memory over time, while clients come and go.
#[derive(Debug, Serialize)]
struct Churned {
    server: String,
    connects: u64,
    failed: u64,
    /// Why the last of those failed.
    why: String,
    /// Seconds and bytes.
    rss: Vec<(f64, u64)>,
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let sides = &options.sides;
    let rig = super::rig(common, &sides.servers, true).await?;
    let facts = machine::facts(&rig, &sides.servers).await;
    let mut report = Report::new("Memory", facts);
    if let Some(time) = options.churn {
        churn(options, &rig, time, &mut report).await?;
    } else {
        idle_and_used(options, &rig, &mut report).await?;
    }
    report.publish(common)
}

/// How a server of that kind normally runs, and the form of events that it takes then.
pub(crate) fn normal(kind: Kind, database: &str) -> (Mode<'_>, Form) {
    match kind {
        belfry if belfry.is_belfry() => (Mode::Store(database), Form::Store),
        _ => (Mode::Forward, Form::Forward),
    }
}

async fn idle_and_used(options: &Options, rig: &Rig, report: &mut Report) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for (run, kind) in options.sides.turns() {
        let found = once(options, rig, kind, run).await?;
        eprintln!(
            "run {run}, {kind}: {} KiB per idle connection, {} after events",
            show(found.entry.kib_per_connection),
            show(found.used_kib_per_connection)
        );
        report.raw(&found);
        runs.push(found);
    }
    let note = format!(
        "{} signed-in clients; growth over the empty server, 3 s after the last one came, and after each \
         has received {} events on average; medians of {} runs.",
        options.sides.connections, options.events, options.sides.runs
    );
    let columns = ["server", "empty MiB", "KiB per idle connection", "after events", "lost"];
    let mut table = Table::new(&note, &columns);
    for &kind in &options.sides.servers {
        let of = medians(runs.iter().filter(|run| run.kind == kind));
        table.row([
            kind.to_string(),
            of(|run| mib(run.entry.empty_rss)),
            of(|run| run.entry.kib_per_connection),
            of(|run| run.used_kib_per_connection),
            of(|run| float(run.lost)),
        ]);
    }
    report.table(table);
    Ok(())
}

async fn once(options: &Options, rig: &Rig, kind: Kind, run: u32) -> anyhow::Result<Sample> {
    let database = rig.fresh_database().await;
    let connections = options.sides.connections;
    let clients = Clients::each_alone(connections);
    let (mode, form) = normal(kind, database.url());
    let mut trial = Trial::open(rig, kind, mode, clients).await?;
    let flood = trial.flood(form, connections * options.events, None).await?;
    sleep(Duration::from_secs(3)).await;
    let (entry, used_rss) = (trial.entry, trial.server.process().rss());
    trial.close().await;
    let grown = kib(float(used_rss) - float(entry.empty_rss));
    let used_kib_per_connection = grown / float(connections.max(1));
    let (server, lost) = (kind.to_string(), flood.fate.lost);
    Ok(Sample { run, server, kind, entry, used_rss, used_kib_per_connection, lost })
}

async fn churn(
    options: &Options,
    rig: &Rig,
    time: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut chart = Chart::new(
        "Resident memory while clients come and go",
        ("minutes", Scale::Linear),
        ("MiB", Scale::Linear),
    );
    let note = format!(
        "{} clients that stay for {:?} on average and come again, {} events/s, for {time:?}.",
        options.sides.connections, options.stay, options.rate
    );
    let columns =
        ["server", "connects", "failed", "MiB empty", "after a tenth", "half", "at the end"];
    let mut table = Table::new(&note, &columns);
    for &kind in &options.sides.servers {
        let churned = come_and_go(options, rig, kind, time).await?;
        if churned.failed > 0 {
            eprintln!("{kind}: {} connects failed, the last one: {}", churned.failed, churned.why);
        }
        chart.line(&kind.to_string(), churned.rss.iter().map(|(at, rss)| (at / 60.0, mib(*rss))));
        let at = |tenths: usize| {
            let index = (churned.rss.len().saturating_sub(1)) * tenths / 10;
            churned.rss.get(index).map_or(f64::NAN, |(_, rss)| mib(*rss))
        };
        table.row([
            kind.to_string(),
            churned.connects.to_string(),
            churned.failed.to_string(),
            show(at(0)),
            show(at(1)),
            show(at(5)),
            show(at(10)),
        ]);
        report.raw(&churned);
    }
    report.table(table);
    report.chart("churn", chart);
    Ok(())
}

async fn come_and_go(
    options: &Options,
    rig: &Rig,
    kind: Kind,
    time: Duration,
) -> anyhow::Result<Churned> {
    use std::sync::atomic::Ordering::Relaxed;

    let database = rig.fresh_database().await;
    let connections = options.sides.connections;
    let clients = Clients { life: Life::Churn(options.stay), ..Clients::each_alone(connections) };
    let (mode, form) = normal(kind, database.url());
    let mut trial = Trial::empty(rig, kind, mode, clients).await?;
    let begin = Instant::now();
    let mut rss = vec![(0.0, trial.server.process().rss())];
    let schedule = Schedule {
        begin: crate::clock::now(),
        rate: options.rate,
        first: 0,
        total: crate::figures::whole(options.rate * time.as_secs_f64()),
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
    let (connects, failed) = (counters.tries.load(Relaxed), counters.failed.load(Relaxed));
    let why = counters.why();
    trial.close().await;
    Ok(Churned { server: kind.to_string(), connects, failed, why, rss })
}
