//! `attack`: what those who behave notice of those who do not.

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
use crate::producer::{Producer, Schedule};
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::servers::{Bounds, Kind, Mode};
use crate::tally::Round;
use crate::trial::{Clients, Trial};

/// Measures signed-in clients that hear an event now and then, before and during attacks.
///
/// Belfry keeps its bounds, as they are by default. Attackers come from other addresses of this machine
/// than the clients do, and their thread gives way to all others. Each attack meets a server of its own. An
/// attack that needs no answers is aimed at a bare listener first, which only accepts: what the clients notice
/// of that is the machine's doing. This tool attacks only the servers that it has started itself.
///
/// Attacks on an inbox need Belfry with PostgreSQL. There a service that posts notifications takes the place of the
/// signed-in clients, and the report says whether its p99 stays below twice that of before, and the server's
/// memory below 128 MiB more than without clients.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The servers to attack.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "belfry")]
    servers: Vec<Kind>,
    /// Which attacks; all of them if none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    attacks: Vec<Attack>,
    /// Signed-in clients that behave.
    #[arg(long, default_value_t = 2_000)]
    connections: u64,
    /// Events per second for them, all together.
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
    /// How often everything is measured. Medians are told.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// How long is measured before, and during, each attack.
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    attack: String,
    calm_p99_ms: f64,
    /// While the attackers were at a bare listener.
    beside_p99_ms: f64,
    attacked_p99_ms: f64,
    calm_cpu: f64,
    attacked_cpu: f64,
    calm_rss: u64,
    attacked_rss: u64,
    /// What of the attack got through: connections opened, requests or messages sent.
    attempts: u64,
    refused: u64,
    lost: u64,
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
    let mut report = Report::new("Clients that behave, while others attack", facts);
    if !others.is_empty() {
        on_clients(options, &rig, &others, &mut report).await?;
    }
    if !on_inbox.is_empty() {
        inbox::measure(options, &rig, &on_inbox, &mut report).await?;
    }
    report.publish(common)
}

async fn on_clients(
    options: &Options,
    rig: &Rig,
    attacks: &[Attack],
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut samples = Vec::new();
    for run in 1..=options.runs {
        for &kind in &options.servers {
            for &attack in attacks {
                let sample = once(options, rig, run, kind, attack).await?;
                eprintln!("{}", serde_json::to_string(&sample)?);
                report.raw(&sample);
                samples.push(sample);
            }
        }
    }
    report.table(table(options, &samples));
    Ok(())
}

fn table(options: &Options, samples: &[Sample]) -> Table {
    let note = format!(
        "{} signed-in clients that hear {} events/s together, {:?} before and during each attack; medians of \
         {} runs, and the highest of the ratios. Beside: while the same attackers were at a listener that only \
         accepts. CPU is in cores.",
        options.connections, options.rate, options.duration, options.runs
    );
    let columns = [
        "server",
        "attack",
        "p99 ms before",
        "beside",
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
    for first in samples.iter().filter(|sample| sample.run == 1) {
        let of =
            samples.iter().filter(|one| one.server == first.server && one.attack == first.attack);
        let middle = medians(of.clone());
        let highest = of.map(Sample::ratio).fold(f64::NAN, f64::max);
        table.row(vec![
            first.server.clone(),
            first.attack.clone(),
            middle(|run| run.calm_p99_ms),
            middle(|run| run.beside_p99_ms),
            middle(|run| run.attacked_p99_ms),
            middle(Sample::ratio),
            show(highest),
            middle(|run| mib(run.calm_rss)),
            middle(|run| mib(run.attacked_rss) - mib(run.calm_rss)),
            middle(|run| run.calm_cpu),
            middle(|run| run.attacked_cpu),
            middle(|run| float(run.attempts)),
            middle(|run| float(run.refused)),
            middle(|run| float(run.lost)),
            middle(|run| float(run.cut_off)),
        ]);
    }
    table
}

impl Sample {
    fn ratio(&self) -> f64 {
        self.attacked_p99_ms / self.calm_p99_ms
    }
}

async fn once(
    options: &Options,
    rig: &Rig,
    run: u32,
    kind: Kind,
    attack: Attack,
) -> anyhow::Result<Sample> {
    use std::sync::atomic::Ordering::Relaxed;

    const WARM_UP: Duration = Duration::from_secs(3);
    const CALM_DOWN: Duration = Duration::from_secs(2);

    // So few of one address that their own bounds do not stop them.
    let clients = Clients {
        per_address: 40,
        bounds: Bounds::Default,
        ..Clients::each_alone(options.connections)
    };
    let trial = Trial::open(rig, kind, Mode::Forward, clients).await?;
    let time = WARM_UP + options.duration * 3 + CALM_DOWN;
    let total = crate::figures::whole(options.rate * (time.as_secs_f64() + 5.0));
    let round = Round::new(0, 0, total, 1);
    trial.fleet.begin(&round);
    let schedule = Schedule { begin: clock::now(), rate: options.rate, first: 0, total };
    let events = Events::for_users(Form::Forward, options.connections);
    let producer = Producer::start(trial.publisher(false).await?, events, schedule);
    sleep(WARM_UP).await;
    trial.fleet.take_latency();

    let process = trial.server.process();
    let calm_cpu = over(process, options.duration).await;
    let (calm, calm_rss) = (trial.fleet.take_latency(), process.rss());
    let token = rig.key.token("attacker").sign();
    let target = |server| Target { server, token: token.clone(), inbox: Inbox::default() };
    let mut beside = f64::NAN;
    if attack.needs_no_answer() {
        let listener = BareListener::start().await?;
        let attackers = attacks::begin(attack, target(listener.address))?;
        sleep(options.duration).await;
        beside = ms_at(&trial.fleet.take_latency(), 99.0);
        drop((attackers, listener));
        sleep(CALM_DOWN).await;
        trial.fleet.take_latency();
    }
    let attackers = attacks::begin(attack, target(trial.server.address))?;
    let attacked_cpu = over(process, options.duration).await;
    let (attacked, attacked_rss) = (trial.fleet.take_latency(), process.rss());
    let (attempts, refused) = attackers.end();

    let sent = producer.finish(Duration::ZERO).await?;
    trial.settle(&round, sent).await;
    let cut_off = trial.fleet.counters.cut.load(Relaxed);
    trial.close().await;
    Ok(Sample {
        run,
        server: kind.to_string(),
        attack: attack.to_string(),
        calm_p99_ms: ms_at(&calm, 99.0),
        beside_p99_ms: beside,
        attacked_p99_ms: ms_at(&attacked, 99.0),
        calm_cpu,
        attacked_cpu,
        calm_rss,
        attacked_rss,
        attempts,
        refused,
        lost: round.fate(sent).lost,
        cut_off,
    })
}

/// How many cores a process keeps busy over that time.
async fn over(process: Process, time: Duration) -> f64 {
    let before = process.cpu();
    sleep(time).await;
    float(process.cpu().since(before)) / 1e9 / time.as_secs_f64()
}
