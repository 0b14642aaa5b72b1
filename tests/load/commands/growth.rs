//! `growth`: what becomes dearer with more connections, more devices of a user, more nodes, and fuller
//! inboxes.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::chart::{Chart, Scale};
use crate::commands::inboxes;
use crate::events::Form;
use crate::figures::{float, median, show};
use crate::machine;
use crate::options::{Common, duration};
use crate::outcome::{Entry, Outcome};
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::servers::{Kind, Mode};
use crate::trial::{Clients, Load, Trial};

/// Measures how cost grows: with connections, with devices per user, with nodes, with what an inbox holds.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// What grows.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "connections,devices,nodes,inbox"
    )]
    series: Vec<Series>,
    /// The servers to measure; nodes and inboxes are measured for Belfry alone.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "belfry")]
    servers: Vec<Kind>,
    /// Numbers of connections, each of a user of its own.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,10000,18000")]
    connections: Vec<u64>,
    /// Numbers of devices of each user, at --of connections.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    devices: Vec<u64>,
    /// Numbers of nodes, with --of connections at the first.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8")]
    nodes: Vec<u64>,
    /// Connections in the series of devices and of nodes.
    #[arg(long, default_value_t = 5_000)]
    of: u64,
    /// Notifications in one inbox.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000,100000,1000000")]
    inbox: Vec<u64>,
    /// Events per second, each counted once for every device that hears it.
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
    /// How long one point is measured.
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How often each point is measured. Medians are told.
    #[arg(long, default_value_t = 3)]
    runs: u32,
}

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    /// Signed-in clients
    Connections,
    /// Devices of each user
    Devices,
    /// Nodes, each with a queue for itself
    Nodes,
    /// Notifications in an inbox
    Inbox,
}

/// How many there are at a point of a series.
struct Scene {
    nodes: u64,
    clients: Clients,
}

impl Scene {
    fn of(clients: Clients) -> Self {
        Self { nodes: 1, clients }
    }
}

/// A point of a series: how many, and what was measured in each run.
type Point = (u64, Vec<(Entry, Outcome)>);

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let inbox = options.series.contains(&Series::Inbox);
    let rig = super::rig(common, &options.servers, inbox).await?;
    let mut report = Report::new("Growth", machine::facts(&rig, &options.servers).await);
    for series in &options.series {
        let each_alone = Clients::each_alone(options.of);
        match series {
            Series::Connections => {
                let scene = |connections| Scene::of(Clients::each_alone(connections));
                let sizes = ("connections", options.connections.as_slice());
                sockets(options, &rig, &options.servers, sizes, scene, &mut report).await?;
            }
            Series::Devices => {
                let scene = |devices| Scene::of(Clients { devices, ..each_alone });
                let sizes = ("devices", options.devices.as_slice());
                sockets(options, &rig, &options.servers, sizes, scene, &mut report).await?;
            }
            Series::Nodes => {
                let scene = |nodes| Scene { nodes, clients: each_alone };
                let sizes = ("nodes", options.nodes.as_slice());
                sockets(options, &rig, &[Kind::BelfryNodes], sizes, scene, &mut report).await?;
            }
            Series::Inbox => {
                inboxes::measure(&rig, &options.inbox, options.runs, &mut report).await?;
            }
        }
    }
    report.publish(common)
}

async fn sockets(
    options: &Options,
    rig: &Rig,
    servers: &[Kind],
    (name, sizes): (&str, &[u64]),
    scene: impl Fn(u64) -> Scene,
    report: &mut Report,
) -> anyhow::Result<()> {
    let note = format!(
        "Forwarded events over the number of {name}; {} events reach a device per second, medians of {} runs. \
         CPU is told for each event that reaches a device; of several nodes, that of the one with the devices.",
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
                let found = point(options, rig, kind, scene(size)).await?;
                eprintln!(
                    "{kind}, {name} {size}: {} µs, p99 {} ms",
                    show(found.1.cost.server),
                    show(found.1.p99_ms)
                );
                report.raw(&serde_json::json!({
                    "server": kind.to_string(), name: size, "entry": found.0, "outcome": found.1,
                }));
                runs.push(found);
            }
            points.push((size, runs));
        }
        let middle = |point: &Point, figure: fn(&(Entry, Outcome)) -> f64| {
            median(point.1.iter().map(figure))
        };
        for point in &points {
            table.row([
                kind.to_string(),
                point.0.to_string(),
                show(middle(point, |(_, outcome)| outcome.cost.server)),
                show(middle(point, |(_, outcome)| outcome.cost.broker)),
                show(middle(point, |(_, outcome)| outcome.p50_ms)),
                show(middle(point, |(_, outcome)| outcome.p99_ms)),
                show(middle(point, |(entry, _)| entry.kib_per_connection)),
                show(middle(point, |(entry, _)| entry.cpu_ms_per_connect)),
                show(middle(point, |(_, outcome)| float(outcome.lost))),
            ]);
        }
        let line = |figure: fn(&(Entry, Outcome)) -> f64| {
            points
                .iter()
                .map(move |point| (float(point.0), middle(point, figure)))
                .collect::<Vec<_>>()
        };
        cpu.line(&kind.to_string(), line(|(_, outcome)| outcome.cost.server));
        broker.line(&kind.to_string(), line(|(_, outcome)| outcome.cost.broker));
        p99.line(&kind.to_string(), line(|(_, outcome)| outcome.p99_ms));
        memory.line(&kind.to_string(), line(|(entry, _)| entry.kib_per_connection));
    }
    report.table(table);
    report.chart(&format!("{name}-cpu"), cpu);
    report.chart(&format!("{name}-broker"), broker);
    report.chart(&format!("{name}-p99"), p99);
    report.chart(&format!("{name}-memory"), memory);
    Ok(())
}

async fn point(
    options: &Options,
    rig: &Rig,
    kind: Kind,
    Scene { nodes, clients }: Scene,
) -> anyhow::Result<(Entry, Outcome)> {
    let mut trial = Trial::open(rig, kind, Mode::Forward, clients).await?;
    let mut others = Vec::new();
    for _ in 1..nodes {
        others.push(Trial::beside(&trial, Mode::Forward, Clients::each_alone(0)).await?);
    }
    let devices = float(clients.devices.max(1));
    let load = Load {
        form: Form::Forward,
        rate: options.rate / devices,
        warm_up: Duration::from_secs(2),
        time: options.duration,
    };
    let mut outcome = trial.send(load).await?;
    outcome.cost.server /= devices;
    let entry = trial.entry;
    for other in others {
        other.close().await;
    }
    trial.close().await;
    Ok((entry, outcome))
}
