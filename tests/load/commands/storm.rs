//! `storm`: a node is killed and started again, and all of its clients come back at once.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::commands::memory::normal;
use crate::events::{Events, Form};
use crate::figures::{float, medians, mib, ms_at};
use crate::fleet::Life;
use crate::machine;
use crate::options::{Common, Sides, duration};
use crate::producer::{Producer, Schedule};
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::servers::Kind;
use crate::tally::Round;
use crate::trial::{Guests, Trial};

/// Kills a node (SIGKILL), starts it again, and watches its clients come back.
///
/// They come back as socket.io-client does: after 1 s ± 50 %, doubling up to 5 s. Other clients, on a
/// second node that goes on, hear events all the time; how late, before and during the storm, is told.
/// Belfry runs with PostgreSQL; its two nodes share queue and database, and the one that goes on relays.
/// Peers have a queue each.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    sides: Sides,
    /// Clients of the second node.
    #[arg(long, default_value_t = 1_000)]
    watchers: u64,
    /// Events per second for them.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// How long the node is gone.
    #[arg(long, default_value = "0s", value_parser = duration)]
    down: Duration,
    /// How long is waited for all to be back.
    #[arg(long, default_value = "60s", value_parser = duration)]
    patience: Duration,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    kind: Kind,
    /// Since the kill, until the node served again and until shares of the clients were back.
    serves_after: f64,
    half_back_after: f64,
    all_back_after: f64,
    back: u64,
    tries: u64,
    failed: u64,
    /// The new process's, at most and some seconds after all were back.
    peak_rss: u64,
    rss: u64,
    calm_p99_ms: f64,
    storm_p99_ms: f64,
    storm_max_ms: f64,
    lost: u64,
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let sides = &options.sides;
    let rig = super::rig(common, &sides.servers, true).await?;
    let facts = machine::facts(&rig, &sides.servers).await;
    let mut report = Report::new("A node's clients come back at once", facts);
    let mut runs = Vec::new();
    for (run, kind) in sides.turns() {
        let found = once(options, &rig, kind, run).await?;
        eprintln!("{}", serde_json::to_string(&found)?);
        report.raw(&found);
        runs.push(found);
    }
    report.table(table(options, &runs));
    report.publish(common)
}

async fn once(options: &Options, rig: &Rig, kind: Kind, run: u32) -> anyhow::Result<Sample> {
    const WARM_UP: Duration = Duration::from_secs(3);
    const CALM: Duration = Duration::from_secs(10);
    /// The numbers of the watchers' users begin here.
    const WATCHERS: u64 = 1_000_000;

    let database = rig.fresh_database().await;
    let (mode, form) = normal(kind, database.url());
    let connections = options.sides.connections;
    let guests = Guests { life: Life::ComeBack, ..Guests::each_alone(connections) };
    let watchers = Guests { first_user: WATCHERS, ..Guests::each_alone(options.watchers) };
    // The first one relays, and goes on doing so.
    let spared = Trial::open(rig, one_of_two(kind), mode, watchers).await?;
    let mut hit = Trial::beside(&spared, mode, guests).await?;

    let time = WARM_UP + CALM + options.down + options.patience + Duration::from_secs(10);
    let total = crate::figures::whole(time.as_secs_f64() * options.rate);
    let round = Round::new(0, 0, total, 1);
    spared.fleet.begin(&round);
    let schedule = Schedule { begin: clock::now(), rate: options.rate, first: 0, total };
    let events = Events::for_users(form, options.watchers).starting_with(WATCHERS);
    let publisher = spared.publisher(form == Form::Store).await?;
    let producer = Producer::start(publisher, events, schedule);
    // The first events find everything cold.
    sleep(WARM_UP).await;
    spared.fleet.take_latency();
    sleep(CALM).await;
    let calm = spared.fleet.take_latency();

    let counters = &hit.fleet.counters;
    let before = (counters.tries.load(Relaxed), counters.failed.load(Relaxed));
    let killed = Instant::now();
    hit.server.kill();
    sleep(options.down).await;
    hit.server.restart().await?;
    let serves_after = killed.elapsed().as_secs_f64();
    let (mut half, mut all) = (f64::NAN, f64::NAN);
    // Those that were cut off are counted out only when they notice.
    let gone = |fleet: &crate::fleet::Fleet| fleet.counters.cut.load(Relaxed) >= connections;
    while killed.elapsed() < options.patience && all.is_nan() {
        sleep(Duration::from_millis(20)).await;
        let present = if gone(&hit.fleet) { hit.fleet.present() } else { 0 };
        if half.is_nan() && present >= connections.div_ceil(2) {
            half = killed.elapsed().as_secs_f64();
        }
        if present >= connections {
            all = killed.elapsed().as_secs_f64();
        }
    }
    let storm = spared.fleet.take_latency();
    sleep(Duration::from_secs(3)).await;
    let sent = producer.finish(Duration::ZERO).await?;
    spared.settle(&round, sent).await;
    let process = hit.server.process();
    let found = Sample {
        run,
        server: kind.to_string(),
        kind,
        serves_after,
        half_back_after: half,
        all_back_after: all,
        back: hit.fleet.present(),
        tries: counters.tries.load(Relaxed) - before.0,
        failed: counters.failed.load(Relaxed) - before.1,
        peak_rss: process.peak_rss(),
        rss: process.rss(),
        calm_p99_ms: ms_at(&calm, 99.0),
        storm_p99_ms: ms_at(&storm, 99.0),
        storm_max_ms: ms_at(&storm, 100.0),
        lost: round.fate(sent).lost,
    };
    spared.close().await;
    hit.close().await;
    Ok(found)
}

/// Neither of two nodes is the only one.
const fn one_of_two(kind: Kind) -> Kind {
    match kind {
        Kind::Belfry => Kind::BelfryNodes,
        other => other,
    }
}

fn table(options: &Options, runs: &[Sample]) -> Table {
    let note = format!(
        "{} clients of a node that is killed and started again, {} of another one that hears {} events/s; \
         medians of {} runs. Seconds are since the kill.",
        options.sides.connections, options.watchers, options.rate, options.sides.runs
    );
    let columns = [
        "server",
        "serves again after s",
        "half back after s",
        "all back after s",
        "tries",
        "failed",
        "peak MiB",
        "MiB after",
        "p99 ms before",
        "p99 ms during",
        "max ms during",
        "lost",
    ];
    let mut table = Table::new(&note, &columns);
    for &kind in &options.sides.servers {
        let of = medians(runs.iter().filter(|run| run.kind == kind));
        table.row([
            kind.to_string(),
            of(|run| run.serves_after),
            of(|run| run.half_back_after),
            of(|run| run.all_back_after),
            of(|run| float(run.tries)),
            of(|run| float(run.failed)),
            of(|run| mib(run.peak_rss)),
            of(|run| mib(run.rss)),
            of(|run| run.calm_p99_ms),
            of(|run| run.storm_p99_ms),
            of(|run| run.storm_max_ms),
            of(|run| float(run.lost)),
        ]);
    }
    table
}
