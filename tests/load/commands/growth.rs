//! `growth`: how cost grows with connections, devices per user, nodes, and notifications per inbox.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::chart::{Chart, Scale};
use crate::commands::inboxes;
use crate::events::Form;
use crate::figures::{float, median, show};
use crate::machine;
use crate::options::{Common, duration};
use crate::outcome::{ConnectCost, Outcome};
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::schedule::EventTiming;
use crate::servers::{Mode, ServerKind};
use crate::trial::{Clients, Load, Trial};

/// Measures how cost grows with connections, devices per user, nodes, and notifications per inbox.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The series to measure.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "connections,devices,nodes,inbox"
    )]
    series: Vec<Series>,
    /// The servers to measure; nodes and inboxes are measured for Belfry only.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "belfry")]
    servers: Vec<ServerKind>,
    /// Numbers of connections, one per user.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,10000,18000")]
    connections: Vec<u64>,
    /// Numbers of devices per user, with --of connections.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    devices: Vec<u64>,
    /// Numbers of nodes, with --of connections to the first one.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8")]
    nodes: Vec<u64>,
    /// Connections in the devices and nodes series.
    #[arg(long, default_value_t = 5_000)]
    of: u64,
    /// Notifications in one inbox.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000,100000,1000000")]
    inbox: Vec<u64>,
    /// Deliveries per second: an event counts once for each device that receives it.
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
    /// How long each point is measured.
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Runs per point. The report contains the medians.
    #[arg(long, default_value_t = 3)]
    runs: u32,
}

/// The variable of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    /// Signed-in clients
    Connections,
    /// Devices of each user
    Devices,
    /// Nodes, each with its own queue
    Nodes,
    /// Notifications in an inbox
    Inbox,
}

/// The nodes and clients at a point of a series.
struct PointSetup {
    nodes: u64,
    clients: Clients,
}

impl PointSetup {
    fn of(clients: Clients) -> Self {
        Self { nodes: 1, clients }
    }
}

/// A point of a series: the value of the variable, and the measurements of each run.
type Point = (u64, Vec<(ConnectCost, Outcome)>);

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let inbox = options.series.contains(&Series::Inbox);
    let rig = super::rig(common, &options.servers, inbox).await?;
    let mut report = Report::new("Growth", machine::facts(&rig, &options.servers).await);
    for series in &options.series {
        let each_alone = Clients::each_alone(options.of);
        match series {
            Series::Connections => {
                let setup = |connections| PointSetup::of(Clients::each_alone(connections));
                let sizes = ("connections", options.connections.as_slice());
                measure_sockets(options, &rig, &options.servers, sizes, setup, &mut report).await?;
            }
            Series::Devices => {
                let setup = |devices| PointSetup::of(Clients { devices, ..each_alone });
                let sizes = ("devices", options.devices.as_slice());
                measure_sockets(options, &rig, &options.servers, sizes, setup, &mut report).await?;
            }
            Series::Nodes => {
                let setup = |nodes| PointSetup { nodes, clients: each_alone };
                let sizes = ("nodes", options.nodes.as_slice());
                measure_sockets(
                    options,
                    &rig,
                    &[ServerKind::BelfryNodes],
                    sizes,
                    setup,
                    &mut report,
                )
                .await?;
            }
            Series::Inbox => {
                inboxes::measure(&rig, &options.inbox, options.runs, &mut report).await?;
            }
        }
    }
    report.publish(common)
}

/// Measures a series of sizes, each with the nodes and clients that `setup` returns for it.
async fn measure_sockets(
    options: &Options,
    rig: &Rig,
    servers: &[ServerKind],
    (name, sizes): (&str, &[u64]),
    setup: impl Fn(u64) -> PointSetup,
    report: &mut Report,
) -> anyhow::Result<()> {
    let note = format!(
        "Forwarded events over the number of {name}; {} events reach a device per second, medians of {} runs. \
         CPU is per event that reaches a device; with several nodes, of the node with the devices.",
        options.rate, options.runs
    );
    let columns = [
        "server",
        name,
        "µs CPU",
        "broker µs",
        "p50 ms",
        "p99 ms",
        "KiB per connection",
        "ms CPU per connect",
        "lost",
    ];
    let mut table = Table::new(&note, &columns);
    let axis = (name, Scale::Logarithmic);
    let mut cpu = Chart::new("CPU per delivered event", axis, ("µs", Scale::Linear));
    let mut broker = Chart::new("CPU of the broker per event", axis, ("µs", Scale::Linear));
    let mut p99 = Chart::new("Latency p99", axis, ("ms", Scale::Linear));
    let mut memory = Chart::new("Memory per connection", axis, ("KiB", Scale::Linear));
    for &kind in servers {
        let mut points: Vec<Point> = Vec::new();
        for &size in sizes {
            let mut runs = Vec::new();
            for _ in 0..options.runs {
                let (connect_cost, outcome) = measure_once(options, rig, kind, setup(size)).await?;
                eprintln!(
                    "{kind}, {name} {size}: {} µs, p99 {} ms",
                    show(outcome.cost.server),
                    show(outcome.p99_ms)
                );
                report.raw(&serde_json::json!({
                    "server": kind.to_string(), name: size, "connect_cost": connect_cost, "outcome": outcome,
                }));
                runs.push((connect_cost, outcome));
            }
            points.push((size, runs));
        }
        let median_of = |point: &Point, figure: fn(&(ConnectCost, Outcome)) -> f64| {
            median(point.1.iter().map(figure))
        };
        for point in &points {
            table.row([
                kind.to_string(),
                point.0.to_string(),
                show(median_of(point, |(_, outcome)| outcome.cost.server)),
                show(median_of(point, |(_, outcome)| outcome.cost.broker)),
                show(median_of(point, |(_, outcome)| outcome.p50_ms)),
                show(median_of(point, |(_, outcome)| outcome.p99_ms)),
                show(median_of(point, |(connect_cost, _)| connect_cost.kib_per_connection)),
                show(median_of(point, |(connect_cost, _)| connect_cost.cpu_ms_per_connect)),
                show(median_of(point, |(_, outcome)| float(outcome.lost))),
            ]);
        }
        let line = |figure: fn(&(ConnectCost, Outcome)) -> f64| {
            points
                .iter()
                .map(move |point| (float(point.0), median_of(point, figure)))
                .collect::<Vec<_>>()
        };
        cpu.line(&kind.to_string(), line(|(_, outcome)| outcome.cost.server));
        broker.line(&kind.to_string(), line(|(_, outcome)| outcome.cost.broker));
        p99.line(&kind.to_string(), line(|(_, outcome)| outcome.p99_ms));
        memory.line(&kind.to_string(), line(|(connect_cost, _)| connect_cost.kib_per_connection));
    }
    report.table(table);
    report.chart(&format!("{name}-cpu"), cpu);
    report.chart(&format!("{name}-broker"), broker);
    report.chart(&format!("{name}-p99"), p99);
    report.chart(&format!("{name}-memory"), memory);
    Ok(())
}

async fn measure_once(
    options: &Options,
    rig: &Rig,
    kind: ServerKind,
    PointSetup { nodes, clients }: PointSetup,
) -> anyhow::Result<(ConnectCost, Outcome)> {
    let mut trial = Trial::open(rig, kind, Mode::Forward, clients).await?;
    let mut others = Vec::new();
    for _ in 1..nodes {
        others.push(Trial::open_another(&trial, Mode::Forward, Clients::each_alone(0)).await?);
    }
    let devices = float(clients.devices.max(1));
    let load = Load {
        form: Form::Forward,
        rate: options.rate / devices,
        timing: EventTiming::TICKS,
        warm_up: Duration::from_secs(2),
        time: options.duration,
    };
    let mut outcome = trial.send(load).await?;
    // The cost of a delivery, and not of an event.
    outcome.cost.server /= devices;
    let connect_cost = trial.connect_cost;
    for other in others {
        other.close().await;
    }
    trial.close().await;
    Ok((connect_cost, outcome))
}
