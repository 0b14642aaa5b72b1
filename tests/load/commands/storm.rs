//! `storm`: a node is killed, and all of its clients reconnect at once.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::client::ClientBehaviour;
use crate::clock;
use crate::commands::memory::default_mode;
use crate::events::{Events, Form};
use crate::figures::{float, medians, mib, ms_at};
use crate::fleet::{Fleet, allow_files};
use crate::machine;
use crate::options::{Common, RunPlan, duration};
use crate::producer::Producer;
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::schedule::{EventTiming, Schedule};
use crate::servers::{Limits, ServerKind};
use crate::tally::Round;
use crate::trial::{Clients, Trial};

/// Kills a node (SIGKILL) and measures how its clients reconnect, to it or to another node.
///
/// Clients reconnect like socket.io-client: after 1 s ± 50 %, doubling up to 5 s. Their thread yields to all
/// others, as real clients run on other machines. Other clients, on a second node that survives, receive
/// events all the time. Their latency is reported for three periods: the time before the kill; the kill, in
/// which the kernel closes all connections of the killed node; and the time in which its clients reconnect.
///
/// Belfry runs with PostgreSQL and default limits. Its two nodes share queue and database, and the surviving
/// one is the leader. Peers have a queue each, and no limits.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    plan: RunPlan,
    /// The node to which the clients reconnect.
    #[arg(long, value_delimiter = ',', default_value = "restarted,other")]
    to: Vec<ReconnectTarget>,
    /// Clients of the second node.
    #[arg(long, default_value_t = 1_000)]
    watchers: u64,
    /// Events per second for the clients of the second node.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// How long the node is down before it is restarted.
    #[arg(long, default_value = "0s", value_parser = duration)]
    down: Duration,
    /// Timeout for all clients to reconnect.
    #[arg(long, default_value = "60s", value_parser = duration)]
    patience: Duration,
}

/// The node to which the clients of a killed node reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum ReconnectTarget {
    /// To the same node, which is restarted
    Restarted,
    /// To the second node, which has clients already
    Other,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    kind: ServerKind,
    to: ReconnectTarget,
    /// Seconds from the kill until the node serves again; NaN if it is not restarted.
    serves_after: f64,
    /// Seconds from the kill until half of the clients are connected again.
    half_connected_after: f64,
    all_connected_after: f64,
    reconnected: u64,
    attempts: u64,
    failed: u64,
    /// The peak of resident memory of the node to which the clients reconnected.
    peak_rss: u64,
    /// Its resident memory some seconds after all were connected.
    rss: u64,
    /// Its resident memory 10 s after all were connected.
    settled_rss: u64,
    before_p99_ms: f64,
    kill_max_ms: f64,
    storm_p99_ms: f64,
    storm_max_ms: f64,
    lost: u64,
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let plan = &options.plan;
    ensure!(
        !plan.turns.servers.contains(&ServerKind::Baseline),
        "a baseline is only measured as a single node"
    );
    let rig = super::rig(common, &plan.turns.servers, true).await?;
    let facts = machine::facts(&rig, &plan.turns.servers).await;
    let mut report = Report::new("A node's clients reconnect at once", facts);
    let mut runs = Vec::new();
    for (run, kind) in plan.turns.iter() {
        for &to in &options.to {
            let found = measure_once(options, &rig, (kind, to), run).await?;
            report.record(&found)?;
            runs.push(found);
        }
    }
    report.table(table(options, &runs));
    report.publish(common)
}

async fn measure_once(
    options: &Options,
    rig: &Rig,
    (kind, to): (ServerKind, ReconnectTarget),
    run: u32,
) -> anyhow::Result<Sample> {
    /// The time after the kill in which no client reconnects yet.
    const KILL: Duration = Duration::from_millis(500);
    const WARM_UP: Duration = Duration::from_secs(3);
    /// The period before the kill.
    const CALM: Duration = Duration::from_secs(10);
    const SETTLED: Duration = Duration::from_secs(10);
    /// The first user number of the watchers.
    const WATCHERS: u64 = 1_000_000;
    /// Few clients per address, so that the limits per address do not delay them.
    const PER_ADDRESS: u64 = 20;

    let database = rig.fresh_database().await;
    let (mode, form) = default_mode(kind, database.url());
    let connections = options.plan.connections;
    // Either node may have all clients.
    allow_files(connections + options.watchers)?;
    let each = |count| Clients {
        per_address: PER_ADDRESS,
        limits: Limits::Default,
        ..Clients::each_alone(count)
    };
    let watchers = Clients { first_user: WATCHERS, ..each(options.watchers) };
    // The node that starts first becomes the leader. It survives the kill.
    let survivor = Trial::open(rig, one_of_two(kind), mode, watchers).await?;
    let reconnect_to = (to == ReconnectTarget::Other).then_some(survivor.server.address);
    let clients = Clients {
        behaviour: ClientBehaviour::Reconnect(reconnect_to),
        yielding: true,
        ..each(connections)
    };
    let mut victim = Trial::open_another(&survivor, mode, clients).await?;

    let time = WARM_UP + CALM + options.down + options.patience + Duration::from_secs(10);
    let total = crate::figures::whole(time.as_secs_f64() * options.rate);
    let round = Round::new(0, 0, total, 1);
    survivor.fleet.begin(&round);
    let schedule = Schedule {
        begin: clock::now(),
        rate: options.rate,
        first: 0,
        total,
        timing: EventTiming::TICKS,
    };
    let events = Events::for_users(form, options.watchers).starting_with(WATCHERS);
    let publisher = survivor.publisher(form == Form::Store).await?;
    let producer = Producer::start(publisher, events, schedule);
    // The first events are not measured, because caches are cold.
    sleep(WARM_UP).await;
    survivor.fleet.take_latency();
    sleep(CALM).await;
    let before_kill = survivor.fleet.take_latency();

    let counters = &victim.fleet.counters;
    let before = (counters.attempts.load(Relaxed), counters.failed.load(Relaxed));
    let killed = Instant::now();
    victim.server.kill();
    let mut serves_after = f64::NAN;
    if to == ReconnectTarget::Restarted {
        sleep(options.down).await;
        victim.server.restart().await?;
        serves_after = killed.elapsed().as_secs_f64();
    }
    sleep(KILL.saturating_sub(killed.elapsed())).await;
    let kill = survivor.fleet.take_latency();
    let [half_connected_after, all_connected_after] =
        wait_until_reconnected(&victim.fleet, killed, options.patience).await;
    let connected = Instant::now();
    let storm = survivor.fleet.take_latency();
    sleep(Duration::from_secs(3)).await;
    let sent = producer.finish(Duration::ZERO).await?.events;
    survivor.wait_for_events(&round, sent).await;
    let process = match to {
        ReconnectTarget::Restarted => victim.server.process(),
        ReconnectTarget::Other => survivor.server.process(),
    };
    let rss = process.rss();
    sleep(SETTLED.saturating_sub(connected.elapsed())).await;
    let found = Sample {
        run,
        server: kind.to_string(),
        kind,
        to,
        serves_after,
        half_connected_after,
        all_connected_after,
        reconnected: victim.fleet.connected(),
        attempts: counters.attempts.load(Relaxed) - before.0,
        failed: counters.failed.load(Relaxed) - before.1,
        peak_rss: process.peak_rss(),
        rss,
        settled_rss: process.rss(),
        kill_max_ms: ms_at(&kill, 100.0),
        before_p99_ms: ms_at(&before_kill, 99.0),
        storm_p99_ms: ms_at(&storm, 99.0),
        storm_max_ms: ms_at(&storm, 100.0),
        lost: round.delivery_counts(sent).lost,
    };
    survivor.close().await;
    victim.close().await;
    Ok(found)
}

/// Seconds from the kill until half of the clients are connected again, and until all are.
async fn wait_until_reconnected(fleet: &Fleet, killed: Instant, patience: Duration) -> [f64; 2] {
    let shares = [fleet.connections.div_ceil(2), fleet.connections];
    let mut after = [f64::NAN; 2];
    while killed.elapsed() < patience && after[1].is_nan() {
        sleep(Duration::from_millis(20)).await;
        // A lost connection counts as connected until its client notices the loss.
        let all_were_cut_off = fleet.counters.cut_off.load(Relaxed) >= fleet.connections;
        let present = if all_were_cut_off { fleet.connected() } else { 0 };
        for (share, after) in shares.iter().zip(&mut after) {
            if after.is_nan() && present >= *share {
                *after = killed.elapsed().as_secs_f64();
            }
        }
    }
    after
}

/// The kind of a server that is one of two nodes.
const fn one_of_two(kind: ServerKind) -> ServerKind {
    match kind {
        ServerKind::Belfry => ServerKind::BelfryNodes,
        other => other,
    }
}

fn table(options: &Options, runs: &[Sample]) -> Table {
    let note = format!(
        "{} clients of a node that is killed reconnect to it after its restart, or to another node; {} other clients \
         are connected to that other node all the time and receive {} events/s together; medians of {} runs. \
         Seconds are since the kill.",
        options.plan.connections, options.watchers, options.rate, options.plan.turns.runs
    );
    let columns = [
        "server",
        "reconnect to",
        "serves again after s",
        "half connected after s",
        "all connected after s",
        "attempts",
        "failed",
        "peak MiB",
        "MiB after",
        "MiB 10 s after",
        "p99 ms before",
        "max ms at the kill",
        "p99 ms after the kill",
        "ratio",
        "max ms",
        "lost",
    ];
    let mut table = Table::new(&note, &columns);
    for &kind in &options.plan.turns.servers {
        for &to in &options.to {
            let median_of = medians(runs.iter().filter(|run| (run.kind, run.to) == (kind, to)));
            let place = match to {
                ReconnectTarget::Restarted => "the same node, restarted",
                ReconnectTarget::Other => "the other node",
            };
            table.row([
                kind.to_string(),
                place.to_owned(),
                median_of(|run| run.serves_after),
                median_of(|run| run.half_connected_after),
                median_of(|run| run.all_connected_after),
                median_of(|run| float(run.attempts)),
                median_of(|run| float(run.failed)),
                median_of(|run| mib(run.peak_rss)),
                median_of(|run| mib(run.rss)),
                median_of(|run| mib(run.settled_rss)),
                median_of(|run| run.before_p99_ms),
                median_of(|run| run.kill_max_ms),
                median_of(|run| run.storm_p99_ms),
                median_of(|run| run.storm_p99_ms / run.before_p99_ms),
                median_of(|run| run.storm_max_ms),
                median_of(|run| float(run.lost)),
            ]);
        }
    }
    table
}
