//! `storm`: a node is killed, and all of its clients come back at once.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::commands::memory::normal;
use crate::events::{Events, Form};
use crate::figures::{float, medians, mib, ms_at};
use crate::fleet::{Fleet, Life, allow_files};
use crate::machine;
use crate::options::{Common, Sides, duration};
use crate::producer::{Producer, Schedule};
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::servers::{Bounds, Kind};
use crate::tally::Round;
use crate::trial::{Clients, Trial};

/// Kills a node (SIGKILL) and watches its clients come back, to it or to another one.
///
/// They come back as socket.io-client does: after 1 s ± 50 %, doubling up to 5 s. Their thread gives way to
/// all others, as clients are elsewhere. Other clients, on a second node that goes on, hear events all the
/// time; how late is told of the time before, of the kill, when the kernel ends all connections of the
/// killed node, and of the time in which its clients come back. Belfry runs with PostgreSQL and with its bounds as
/// they are by default; its two nodes share queue and database, and the one that goes on relays. Peers have
/// a queue each, and no bounds.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    sides: Sides,
    /// Where the clients go then.
    #[arg(long, value_delimiter = ',', default_value = "restarted,other")]
    to: Vec<Refuge>,
    /// Clients of the second node.
    #[arg(long, default_value_t = 1_000)]
    watchers: u64,
    /// Events per second for them.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// How long the node is gone, if it is started again.
    #[arg(long, default_value = "0s", value_parser = duration)]
    down: Duration,
    /// How long is waited for all to be back.
    #[arg(long, default_value = "60s", value_parser = duration)]
    patience: Duration,
}

/// Where the clients of a killed node go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Refuge {
    /// To the same node, which is started again
    Restarted,
    /// To the second node, which has clients already
    Other,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    kind: Kind,
    to: Refuge,
    /// Since the kill, until the node served again and until shares of the clients were back.
    serves_after: f64,
    half_back_after: f64,
    all_back_after: f64,
    back: u64,
    tries: u64,
    failed: u64,
    /// Of the process that they came back to, at most and some seconds after all were back.
    peak_rss: u64,
    rss: u64,
    calm_p99_ms: f64,
    kill_max_ms: f64,
    storm_p99_ms: f64,
    storm_max_ms: f64,
    lost: u64,
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let sides = &options.sides;
    ensure!(
        !sides.servers.contains(&Kind::Baseline),
        "a baseline is only measured as a single node"
    );
    let rig = super::rig(common, &sides.servers, true).await?;
    let facts = machine::facts(&rig, &sides.servers).await;
    let mut report = Report::new("A node's clients come back at once", facts);
    let mut runs = Vec::new();
    for (run, kind) in sides.turns() {
        for &to in &options.to {
            let found = once(options, &rig, (kind, to), run).await?;
            eprintln!("{}", serde_json::to_string(&found)?);
            report.raw(&found);
            runs.push(found);
        }
    }
    report.table(table(options, &runs));
    report.publish(common)
}

async fn once(
    options: &Options,
    rig: &Rig,
    (kind, to): (Kind, Refuge),
    run: u32,
) -> anyhow::Result<Sample> {
    /// Nobody is back before.
    const KILL: Duration = Duration::from_millis(500);
    const WARM_UP: Duration = Duration::from_secs(3);
    const CALM: Duration = Duration::from_secs(10);
    /// The numbers of the watchers' users begin here.
    const WATCHERS: u64 = 1_000_000;
    /// So few that nobody is held back for others of the same address.
    const PER_ADDRESS: u64 = 20;

    let database = rig.fresh_database().await;
    let (mode, form) = normal(kind, database.url());
    let connections = options.sides.connections;
    // Either of the nodes may have them all.
    allow_files(connections + options.watchers)?;
    let each = |count| Clients {
        per_address: PER_ADDRESS,
        bounds: Bounds::Default,
        ..Clients::each_alone(count)
    };
    let watchers = Clients { first_user: WATCHERS, ..each(options.watchers) };
    // The first one relays, and goes on doing so.
    let spared = Trial::open(rig, one_of_two(kind), mode, watchers).await?;
    let refuge = (to == Refuge::Other).then_some(spared.server.address);
    let clients = Clients { life: Life::ComeBack(refuge), aside: true, ..each(connections) };
    let mut hit = Trial::beside(&spared, mode, clients).await?;

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
    let mut serves_after = f64::NAN;
    if to == Refuge::Restarted {
        sleep(options.down).await;
        hit.server.restart().await?;
        serves_after = killed.elapsed().as_secs_f64();
    }
    sleep(KILL.saturating_sub(killed.elapsed())).await;
    let kill = spared.fleet.take_latency();
    let [half_back_after, all_back_after] = back(&hit.fleet, killed, options.patience).await;
    let storm = spared.fleet.take_latency();
    sleep(Duration::from_secs(3)).await;
    let sent = producer.finish(Duration::ZERO).await?;
    spared.settle(&round, sent).await;
    let process = match to {
        Refuge::Restarted => hit.server.process(),
        Refuge::Other => spared.server.process(),
    };
    let found = Sample {
        run,
        server: kind.to_string(),
        kind,
        to,
        serves_after,
        half_back_after,
        all_back_after,
        back: hit.fleet.present(),
        tries: counters.tries.load(Relaxed) - before.0,
        failed: counters.failed.load(Relaxed) - before.1,
        peak_rss: process.peak_rss(),
        rss: process.rss(),
        kill_max_ms: ms_at(&kill, 100.0),
        calm_p99_ms: ms_at(&calm, 99.0),
        storm_p99_ms: ms_at(&storm, 99.0),
        storm_max_ms: ms_at(&storm, 100.0),
        lost: round.fate(sent).lost,
    };
    spared.close().await;
    hit.close().await;
    Ok(found)
}

/// How many seconds after the kill half of the clients were back, and all of them.
async fn back(fleet: &Fleet, killed: Instant, patience: Duration) -> [f64; 2] {
    let shares = [fleet.connections.div_ceil(2), fleet.connections];
    let mut after = [f64::NAN; 2];
    while killed.elapsed() < patience && after[1].is_nan() {
        sleep(Duration::from_millis(20)).await;
        // Those that were cut off are counted out only when they notice.
        let all_were_gone = fleet.counters.cut.load(Relaxed) >= fleet.connections;
        let present = if all_were_gone { fleet.present() } else { 0 };
        for (share, after) in shares.iter().zip(&mut after) {
            if after.is_nan() && present >= *share {
                *after = killed.elapsed().as_secs_f64();
            }
        }
    }
    after
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
        "{} clients of a node that is killed, and come back to it, restarted, or to another one; {} that \
         are at that other one all the time and hear {} events/s together; medians of {} runs. Seconds are \
         since the kill.",
        options.sides.connections, options.watchers, options.rate, options.sides.runs
    );
    let columns = [
        "server",
        "back to",
        "serves again after s",
        "half back after s",
        "all back after s",
        "tries",
        "failed",
        "peak MiB",
        "MiB after",
        "p99 ms before",
        "max ms at the kill",
        "p99 ms after it",
        "ratio",
        "max ms",
        "lost",
    ];
    let mut table = Table::new(&note, &columns);
    for &kind in &options.sides.servers {
        for &to in &options.to {
            let of = medians(runs.iter().filter(|run| (run.kind, run.to) == (kind, to)));
            let place = match to {
                Refuge::Restarted => "the same, restarted",
                Refuge::Other => "the other",
            };
            table.row([
                kind.to_string(),
                place.to_owned(),
                of(|run| run.serves_after),
                of(|run| run.half_back_after),
                of(|run| run.all_back_after),
                of(|run| float(run.tries)),
                of(|run| float(run.failed)),
                of(|run| mib(run.peak_rss)),
                of(|run| mib(run.rss)),
                of(|run| run.calm_p99_ms),
                of(|run| run.kill_max_ms),
                of(|run| run.storm_p99_ms),
                of(|run| run.storm_p99_ms / run.calm_p99_ms),
                of(|run| run.storm_max_ms),
                of(|run| float(run.lost)),
            ]);
        }
    }
    table
}
