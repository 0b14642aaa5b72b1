//! `replay`: clients whose connections are cut again and again, while events keep flowing.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::sleep;

use crate::client::ClientBehaviour;
use crate::clock;
use crate::commands::Comparison;
use crate::commands::memory::default_mode;
use crate::events::{Events, Form};
use crate::figures::{float, ms_at, show, whole};
use crate::fleet::PER_ADDRESS_RECONNECTING;
use crate::machine;
use crate::options::{Common, Turns, duration};
use crate::outages::Outages;
use crate::producer::Producer;
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::schedule::{EventTiming, Schedule};
use crate::servers::ServerKind;
use crate::tally::Round;
use crate::trial::{Clients, Trial};

/// Measures how soon clients have their events, if each of them is cut off and reconnects again and again.
///
/// Each client is cut off every 15 s for 2 s, in turn or all at the same time. A cut closes the TCP
/// connection without a Socket.IO packet; the client connects again 2 s later. Times count from the event or,
/// for a client that was offline then, from the begin of its reconnect. So they include the handshake and
/// further attempts. The time from the event, which includes the outage, is reported, too.
///
/// Belfry runs in store mode, with PostgreSQL; its clients send the position of their inbox when they
/// connect, and it replays what they have missed. Peers have no replay: they lose the events for clients that
/// are offline, and their times are those of the other events.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    turns: Turns,
    /// Clients, one per user.
    #[arg(long, default_value_t = 10_000)]
    connections: u64,
    /// Events per second, each for a random user.
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    #[command(flatten)]
    timing: EventTiming,
    /// The time from the begin of an outage of a client to the begin of its next one.
    #[arg(long, default_value = "15s", value_parser = duration)]
    every: Duration,
    /// Length of an outage.
    #[arg(long, default_value = "2s", value_parser = duration)]
    down: Duration,
    /// Cuts all clients at the same time. Without this option, their outages are spread over the interval.
    #[arg(long)]
    together: bool,
    /// Length of the measurement.
    #[arg(long, default_value = "60s", value_parser = duration)]
    duration: Duration,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    kind: ServerKind,
    events: u64,
    /// Events that were due before the last reconnect of their client and delivered after it.
    replayed: u64,
    // From the event or, if later, from the begin of the client's reconnect, to the delivery.
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    // Replayed events only: from the begin of the client's reconnect.
    replayed_p50_ms: f64,
    replayed_p99_ms: f64,
    // From the event, outages included.
    event_p50_ms: f64,
    event_p99_ms: f64,
    lost: u64,
    duplicated: u64,
    connects: u64,
    failed: u64,
    /// Connections that the server closed.
    cut_off: u64,
    cpu_us: f64,
}

impl Sample {
    fn lost_percent(&self) -> f64 {
        100.0 * float(self.lost) / float(self.events.max(1))
    }
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let rig = super::rig(common, &options.turns.servers, true).await?;
    let facts = machine::facts(&rig, &options.turns.servers).await;
    let mut report = Report::new("Clients whose connections are cut", facts);
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
    const WARM_UP: Duration = Duration::from_secs(3);

    let database = rig.fresh_database().await;
    let (mode, form) = default_mode(kind, database.url());
    let outages =
        Outages { interval: options.every, down: options.down, together: options.together };
    let clients = Clients {
        behaviour: ClientBehaviour::Outages(outages),
        per_address: PER_ADDRESS_RECONNECTING,
        ..Clients::each_alone(options.connections)
    };
    let mut trial = Trial::open(rig, kind, mode, clients).await?;
    let (rate, timing) = (options.rate, options.timing.in_run(run));
    let [warm, measured] = [WARM_UP, options.duration].map(|time| whole(time.as_secs_f64() * rate));
    let total = warm + measured;
    let round = Round::new(0, warm, total, 1);
    trial.fleet.begin(&round);
    let publisher = trial.publisher(form == Form::Store).await?;
    let schedule = Schedule { begin: clock::now(), rate, first: 0, total, timing };
    let events = Events::for_users(form, options.connections);
    let producer = Producer::start(publisher, events, schedule);
    sleep(WARM_UP).await;
    let counters = std::sync::Arc::clone(&trial.fleet.counters);
    let counts =
        || [&counters.attempts, &counters.failed, &counters.cut_off].map(|it| it.load(Relaxed));
    let (before, cpu) = (counts(), trial.cpu_snapshot());
    trial.fleet.begin_outages.cancel();
    sleep(options.duration).await;
    let cost = trial.cost_since(&cpu, measured);
    let [attempts, failed, cut_off] = counts();
    let sent = producer.finish(Duration::from_secs(30)).await?;
    // Clients that are still offline reconnect meanwhile.
    trial.wait_for_events(&round, sent.events.saturating_sub(warm)).await;
    trial.server.must_run()?;
    let (latency, catch_up) = (trial.fleet.take_latency(), trial.fleet.take_catch_up());
    let delivery = round.delivery_counts(total);
    trial.close().await;
    Ok(Sample {
        run,
        server: kind.to_string(),
        kind,
        events: measured,
        replayed: catch_up.replayed.len(),
        p50_ms: ms_at(&catch_up.reachable, 50.0),
        p99_ms: ms_at(&catch_up.reachable, 99.0),
        max_ms: ms_at(&catch_up.reachable, 100.0),
        replayed_p50_ms: ms_at(&catch_up.replayed, 50.0),
        replayed_p99_ms: ms_at(&catch_up.replayed, 99.0),
        event_p50_ms: ms_at(&latency, 50.0),
        event_p99_ms: ms_at(&latency, 99.0),
        lost: delivery.lost,
        duplicated: delivery.duplicated,
        connects: attempts - before[0],
        failed: failed - before[1],
        cut_off: cut_off - before[2],
        cpu_us: cost.server,
    })
}

fn table(options: &Options, samples: &[Sample]) -> Table {
    let note = format!(
        "{} clients, each cut every {:?} for {:?}, {}; {} events/s {}, for {:?}; medians of {} runs. Times count from \
         the event or, for a client that was offline then, from the begin of its reconnect; those of replayed events \
         from the reconnect; the last two from the event, outages included. Peers have no replay: they lose the events \
         for clients that are offline, and their times are those of the other events. `belfry ÷` is the median of the \
         ratios of belfry to this server in the same run; below 1, belfry needs less.",
        options.connections,
        options.every,
        options.down,
        if options.together { "all at the same time" } else { "in turn" },
        options.rate,
        options.timing.arrivals.describe(),
        options.duration,
        options.turns.runs
    );
    let columns = [
        "server",
        "events",
        "p50 ms",
        "p99 ms",
        "belfry ÷",
        "max ms",
        "replayed",
        "p50 ms, replayed",
        "p99 ms, replayed",
        "p50 ms from the event",
        "p99 ms from the event",
        "lost",
        "lost %",
        "duplicated",
        "connects",
        "failed",
        "cut off by the server",
        "µs CPU per event",
        "belfry ÷",
    ];
    let mut table = Table::new(&note, &columns);
    let all = Comparison { samples, turn: |sample| (sample.run, sample.kind) };
    for &kind in &options.turns.servers {
        let median = |figure: fn(&Sample) -> f64| all.median(kind, figure);
        let sum = |figure: fn(&Sample) -> u64| show(float(all.of(kind).map(figure).sum()));
        let mut row = vec![kind.to_string(), median(|sample| float(sample.events))];
        row.push(median(|sample| sample.p50_ms));
        row.extend(all.with_ratio(kind, |sample| sample.p99_ms));
        row.push(median(|sample| sample.max_ms));
        row.push(median(|sample| float(sample.replayed)));
        row.push(median(|sample| sample.replayed_p50_ms));
        row.push(median(|sample| sample.replayed_p99_ms));
        row.push(median(|sample| sample.event_p50_ms));
        row.push(median(|sample| sample.event_p99_ms));
        row.push(sum(|sample| sample.lost));
        row.push(median(Sample::lost_percent));
        row.push(sum(|sample| sample.duplicated));
        row.push(median(|sample| float(sample.connects)));
        row.push(median(|sample| float(sample.failed)));
        row.push(median(|sample| float(sample.cut_off)));
        row.extend(all.with_ratio(kind, |sample| sample.cpu_us));
        table.row(row);
    }
    table
}
