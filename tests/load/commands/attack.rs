//! `attack`: the effect of misbehaving clients on well-behaved ones.

mod inbox;

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::time::sleep;

use crate::attacks::{self, Attack, Inbox, Target};
use crate::bare_listener::BareListener;
use crate::clock;
use crate::events::{Events, Form};
use crate::figures::{float, medians, mib, ms_at, show};
use crate::machine;
use crate::options::{Common, duration};
use crate::process::Process;
use crate::producer::Producer;
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::schedule::{EventTiming, Schedule};
use crate::servers::{Limits, Mode, ServerKind};
use crate::tally::Round;
use crate::trial::{Clients, Trial};

/// Measures signed-in clients that receive events, before and during attacks.
///
/// Belfry has its default limits. Attackers connect from other addresses of this machine than the clients, and
/// their thread yields to all others. Each attack has a new server. An attack that needs no responses is first run
/// against a bare listener that only accepts connections, which shows the effect of the machine alone. The tool
/// attacks only servers that it has started.
///
/// Attacks on an inbox need Belfry with PostgreSQL. Instead of signed-in clients, a service posts notifications. An
/// attack passes if the service's p99 stays below twice the p99 before the attack, and the server's memory below
/// 128 MiB more than without clients.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The servers to attack.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "belfry")]
    servers: Vec<ServerKind>,
    /// The attacks; without this option, all of them.
    #[arg(long, value_enum, value_delimiter = ',')]
    attacks: Vec<Attack>,
    /// Well-behaved signed-in clients.
    #[arg(long, default_value_t = 2_000)]
    connections: u64,
    /// Events per second for all of these clients together.
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
    /// Number of runs. The report contains the medians.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Length of the measurement before and during each attack.
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    attack: String,
    before_p99_ms: f64,
    /// During the same attack on a bare listener; NaN if the attack needs responses.
    bare_listener_p99_ms: f64,
    during_p99_ms: f64,
    /// The number of cores that the server keeps busy.
    before_cpu: f64,
    during_cpu: f64,
    before_rss: u64,
    during_rss: u64,
    /// Connections opened, requests sent or messages sent by the attackers.
    attempts: u64,
    /// Connections of the attackers that the server closed or rejected.
    refused: u64,
    /// Events for the clients that were not delivered.
    lost: u64,
    /// Clients that the server disconnected.
    cut_off: u64,
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let attacks = match options.attacks.as_slice() {
        [] => Attack::value_variants(),
        named => named,
    };
    let (on_inbox, others): (Vec<Attack>, Vec<Attack>) =
        attacks.iter().partition(|attack| attack.needs_inbox());
    let rig = super::rig(common, &options.servers, !on_inbox.is_empty()).await?;
    let facts = machine::facts(&rig, &options.servers).await;
    let mut report = Report::new("Well-behaved clients during attacks", facts);
    if !others.is_empty() {
        measure_clients(options, &rig, &others, &mut report).await?;
    }
    if !on_inbox.is_empty() {
        inbox::measure(options, &rig, &on_inbox, &mut report).await?;
    }
    report.publish(common)
}

async fn measure_clients(
    options: &Options,
    rig: &Rig,
    attacks: &[Attack],
    report: &mut Report,
) -> anyhow::Result<()> {
    let groups =
        measure_each(options, &options.servers, attacks, report, async |run, kind, attack| {
            measure_once(options, rig, run, kind, attack).await
        })
        .await?;
    report.table(table(options, &groups));
    Ok(())
}

/// The samples of one attack on one server, one for each run.
struct Group<S> {
    server: ServerKind,
    attack: Attack,
    samples: Vec<S>,
}

/// Measures each attack on each server in every run, and adds the samples to the report.
async fn measure_each<S: Serialize>(
    options: &Options,
    servers: &[ServerKind],
    attacks: &[Attack],
    report: &mut Report,
    mut measure: impl AsyncFnMut(u32, ServerKind, Attack) -> anyhow::Result<S>,
) -> anyhow::Result<Vec<Group<S>>> {
    let mut groups = Vec::new();
    for &server in servers {
        for &attack in attacks {
            groups.push(Group { server, attack, samples: Vec::new() });
        }
    }
    for run in 1..=options.runs {
        for group in &mut groups {
            let sample = measure(run, group.server, group.attack).await?;
            report.record(&sample)?;
            group.samples.push(sample);
        }
    }
    Ok(groups)
}

fn table(options: &Options, groups: &[Group<Sample>]) -> Table {
    let note = format!(
        "{} signed-in clients that receive {} events/s together, {:?} before and during each attack; medians of \
         {} runs, and the highest of the ratios. Bare listener: during the same attack on a listener that only accepts \
         connections. CPU is in cores.",
        options.connections, options.rate, options.duration, options.runs
    );
    let columns = [
        "server",
        "attack",
        "p99 ms before",
        "bare listener",
        "during",
        "ratio",
        "highest",
        "MiB before",
        "more",
        "CPU before",
        "during",
        "attempts",
        "refused",
        "lost",
        "cut off",
    ];
    let mut table = Table::new(&note, &columns);
    for Group { server, attack, samples } in groups {
        let median = medians(samples.iter());
        let highest = samples.iter().map(Sample::ratio).fold(f64::NAN, f64::max);
        table.row(vec![
            server.to_string(),
            attack.to_string(),
            median(|run| run.before_p99_ms),
            median(|run| run.bare_listener_p99_ms),
            median(|run| run.during_p99_ms),
            median(Sample::ratio),
            show(highest),
            median(|run| mib(run.before_rss)),
            median(|run| mib(run.during_rss) - mib(run.before_rss)),
            median(|run| run.before_cpu),
            median(|run| run.during_cpu),
            median(|run| float(run.attempts)),
            median(|run| float(run.refused)),
            median(|run| float(run.lost)),
            median(|run| float(run.cut_off)),
        ]);
    }
    table
}

impl Sample {
    fn ratio(&self) -> f64 {
        self.during_p99_ms / self.before_p99_ms
    }
}

async fn measure_once(
    options: &Options,
    rig: &Rig,
    run: u32,
    kind: ServerKind,
    attack: Attack,
) -> anyhow::Result<Sample> {
    use std::sync::atomic::Ordering::Relaxed;

    const WARM_UP: Duration = Duration::from_secs(3);
    const COOL_DOWN: Duration = Duration::from_secs(2);

    // Few clients per address, so that the limits per address do not affect them.
    let clients = Clients {
        per_address: 40,
        limits: Limits::Default,
        ..Clients::each_alone(options.connections)
    };
    let trial = Trial::open(rig, kind, Mode::Forward, clients).await?;
    let time = WARM_UP + options.duration * 3 + COOL_DOWN;
    let total = crate::figures::whole(options.rate * (time.as_secs_f64() + 5.0));
    let round = Round::new(0, 0, total, 1);
    trial.fleet.begin(&round);
    let schedule = Schedule {
        begin: clock::now(),
        rate: options.rate,
        first: 0,
        total,
        timing: EventTiming::TICKS,
    };
    let events = Events::for_users(Form::Forward, options.connections);
    let producer = Producer::start(trial.publisher(false).await?, events, schedule);
    sleep(WARM_UP).await;
    trial.fleet.take_latency();

    let process = trial.server.process();
    let before_cpu = cores_used(process, options.duration).await;
    let (before, before_rss) = (trial.fleet.take_latency(), process.rss());
    let token = rig.key.token("attacker").sign();
    let target = |server| Target { server, token: token.clone(), inbox: Inbox::default() };
    let mut bare_listener_p99_ms = f64::NAN;
    if attack.needs_no_answer() {
        let listener = BareListener::start().await?;
        let attackers = attacks::start(attack, target(listener.address))?;
        sleep(options.duration).await;
        bare_listener_p99_ms = ms_at(&trial.fleet.take_latency(), 99.0);
        drop((attackers, listener));
        sleep(COOL_DOWN).await;
        trial.fleet.take_latency();
    }
    let attackers = attacks::start(attack, target(trial.server.address))?;
    let during_cpu = cores_used(process, options.duration).await;
    let (during, during_rss) = (trial.fleet.take_latency(), process.rss());
    let (attempts, refused) = attackers.stop();

    let sent = producer.finish(Duration::ZERO).await?.events;
    trial.wait_for_events(&round, sent).await;
    let cut_off = trial.fleet.counters.cut_off.load(Relaxed);
    trial.close().await;
    Ok(Sample {
        run,
        server: kind.to_string(),
        attack: attack.to_string(),
        before_p99_ms: ms_at(&before, 99.0),
        bare_listener_p99_ms,
        during_p99_ms: ms_at(&during, 99.0),
        before_cpu,
        during_cpu,
        before_rss,
        during_rss,
        attempts,
        refused,
        lost: round.delivery_counts(sent).lost,
        cut_off,
    })
}

/// The number of cores that a process keeps busy, averaged over `time`.
async fn cores_used(process: Process, time: Duration) -> f64 {
    let before = process.cpu();
    sleep(time).await;
    float(process.cpu().since(before)) / 1e9 / time.as_secs_f64()
}
