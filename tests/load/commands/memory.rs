//! `memory`: memory per connection when idle, after events, and while clients connect and leave for a long time.

mod churn;

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::sleep;

use crate::commands::Comparison;
use crate::events::Form;
use crate::figures::{float, mib, show};
use crate::fleet::{ConnectPace, PER_ADDRESS_RECONNECTING};
use crate::kernel::{KernelCost, KernelMemory};
use crate::machine;
use crate::options::{Common, RunPlan, duration};
use crate::outcome::ConnectCost;
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::servers::{Mode, ServerKind};
use crate::trial::{Clients, Trial};
use churn::churn;

/// The time from when all clients have connected until memory is measured again.
const SETTLED: Duration = Duration::from_secs(10);

/// How long a server may take to notice that its clients have left.
const LEFT: Duration = Duration::from_secs(10);

/// Measures resident memory per signed-in websocket.
///
/// Belfry runs in store mode, with PostgreSQL and an empty inbox for each user; peers store nothing.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    plan: RunPlan,
    /// Numbers of clients that connect at the same time; `64,512` measures with 64 and with 512. The next
    /// client connects when one of them has signed in. All clients then disconnect and connect again in the
    /// same way. Without this option they connect at --connect-rate, once.
    #[arg(long, value_delimiter = ',', value_name = "CLIENTS", conflicts_with = "churn")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    connecting: Vec<u64>,
    /// Events per client, on average, before memory is measured again.
    #[arg(long, default_value_t = 100)]
    events: u64,
    /// Instead of the other measurements, lets clients connect, receive and leave for this time.
    #[arg(long, value_parser = duration)]
    churn: Option<Duration>,
    /// With --churn: how long a client stays, on average.
    #[arg(long, default_value = "20s", value_parser = duration)]
    stay: Duration,
    /// With --churn: events per second.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
}

impl Options {
    /// The numbers of clients that connect at the same time. `None` means that clients connect at a constant rate.
    fn paces(&self) -> Vec<Option<u64>> {
        if self.connecting.is_empty() {
            return vec![None];
        }
        self.connecting.iter().map(|count| Some(*count)).collect()
    }
}

/// Resident memory above that of the empty server, in KiB per connection.
#[derive(Debug, Clone, Copy, Serialize)]
struct BurstMemory {
    /// When the last client has just signed in.
    at_once: f64,
    /// After [`SETTLED`].
    settled: f64,
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    #[serde(skip)]
    kind: ServerKind,
    /// Clients that connected at the same time; `None` if they connected at a constant rate.
    connecting: Option<u64>,
    connect_cost: ConnectCost,
    /// When all clients have connected for the first time.
    first: BurstMemory,
    /// While all clients are connected and idle.
    kernel: KernelCost,
    /// After all clients have disconnected; NaN if they connect only once.
    left_kib_per_connection: f64,
    /// When all clients have connected again.
    again: Option<BurstMemory>,
    /// After the events and a pause.
    used_kib_per_connection: f64,
    lost: u64,
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let plan = &options.plan;
    let rig = super::rig(common, &plan.turns.servers, true).await?;
    let facts = machine::facts(&rig, &plan.turns.servers).await;
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
    let mut groups: Vec<_> = options.paces().into_iter().map(|pace| (pace, Vec::new())).collect();
    for (run, kind) in options.plan.turns.iter() {
        for (pace, samples) in &mut groups {
            let found = measure_once(options, rig, (kind, *pace), run).await?;
            eprintln!(
                "run {run}, {kind}: {} KiB per idle connection, {} after events",
                show(found.connect_cost.kib_per_connection),
                show(found.used_kib_per_connection)
            );
            report.raw(&found);
            samples.push(found);
        }
    }
    report.table(table(options, &groups));
    Ok(())
}

async fn measure_once(
    options: &Options,
    rig: &Rig,
    (kind, connecting): (ServerKind, Option<u64>),
    run: u32,
) -> anyhow::Result<Sample> {
    let database = rig.fresh_database().await;
    let connections = options.plan.connections;
    let pace = connecting.map(ConnectPace::AtOnce);
    let per_address = PER_ADDRESS_RECONNECTING;
    let clients = Clients { per_address, pace, ..Clients::each_alone(connections) };
    let (mode, form) = default_mode(kind, database.url());
    let mut trial = Trial::start(rig, kind, mode, clients).await?;
    let server = trial.server.address;
    let before = KernelMemory::of(server);
    let first = burst(&mut trial).await?;
    let connect_cost = trial.connect_cost;
    let kernel = KernelMemory::of(server).cost_since(&before, connections);
    let (mut left_kib_per_connection, mut again) = (f64::NAN, None);
    if connecting.is_some() {
        trial.disconnect();
        sleep(LEFT).await;
        left_kib_per_connection = trial.kib_per_connection();
        again = Some(burst(&mut trial).await?);
    }
    let flood = trial.flood(form, connections * options.events, None).await?;
    sleep(Duration::from_secs(3)).await;
    let used_kib_per_connection = trial.kib_per_connection();
    trial.close().await;
    Ok(Sample {
        run,
        server: kind.to_string(),
        kind,
        connecting,
        connect_cost,
        first,
        kernel,
        left_kib_per_connection,
        again,
        used_kib_per_connection,
        lost: flood.delivery.lost,
    })
}

/// Connects all clients, and measures the memory then.
async fn burst(trial: &mut Trial<'_>) -> anyhow::Result<BurstMemory> {
    trial.connect().await?;
    let at_once = trial.connect_cost.at_once_kib_per_connection;
    sleep(SETTLED.saturating_sub(crate::trial::MEMORY_PAUSE)).await;
    Ok(BurstMemory { at_once, settled: trial.kib_per_connection() })
}

fn table(options: &Options, groups: &[(Option<u64>, Vec<Sample>)]) -> Table {
    let (connections, events) = (options.plan.connections, options.events);
    let note = format!(
        "{connections} signed-in clients; growth over the empty server in KiB per connection: 3 s after the last one \
         connected (idle), right after it, and 10 s after it; 10 s after all have disconnected, and the same two after \
         all have connected again (with --connecting); and after each has received {events} events on average; \
         medians of {} runs. The kernel's memory is that of the server's side, with idle connections: buffers of its \
         sockets, and half of the growth of the machine's structures. `belfry ÷` is the median of the ratios of \
         belfry to this server in the same run; below 1, belfry needs less.",
        options.plan.turns.runs
    );
    let columns = [
        "server",
        "connecting at the same time",
        "empty MiB",
        "KiB per idle connection",
        "belfry ÷",
        "right after",
        "10 s after",
        "belfry ÷",
        "disconnected",
        "right after again",
        "10 s after again",
        "belfry ÷",
        "after events",
        "kernel buffers",
        "kernel structures",
        "lost",
    ];
    let mut table = Table::new(&note, &columns);
    for (pace, samples) in groups {
        let samples = samples.as_slice();
        let all = Comparison { samples, turn: |sample| (sample.run, sample.kind) };
        for &kind in &options.plan.turns.servers {
            let median = |figure: fn(&Sample) -> f64| all.median(kind, figure);
            let with_ratio = |figure: fn(&Sample) -> f64| all.with_ratio(kind, figure);
            let pace = pace.map_or_else(|| "at a rate".to_owned(), |count| count.to_string());
            let mut row = vec![kind.to_string(), pace];
            row.push(median(|sample| mib(sample.connect_cost.empty_rss)));
            row.extend(with_ratio(|sample| sample.connect_cost.kib_per_connection));
            row.push(median(|sample| sample.first.at_once));
            row.extend(with_ratio(|sample| sample.first.settled));
            row.push(median(|sample| sample.left_kib_per_connection));
            row.push(median(|sample| sample.again.map_or(f64::NAN, |again| again.at_once)));
            row.extend(with_ratio(|sample| sample.again.map_or(f64::NAN, |again| again.settled)));
            row.push(median(|sample| sample.used_kib_per_connection));
            row.push(median(|sample| sample.kernel.buffers_kib));
            row.push(median(|sample| sample.kernel.structures_kib));
            row.push(median(|sample| float(sample.lost)));
            table.row(row);
        }
    }
    table
}
