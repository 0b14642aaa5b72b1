//! Memory over time while clients connect and leave.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{Options, default_mode};
use crate::chart::{Chart, Scale};
use crate::client::ClientBehaviour;
use crate::events::{Events, Form};
use crate::figures::{mib, show};
use crate::producer::Producer;
use crate::report::{Report, Table};
use crate::rig::Rig;
use crate::schedule::{EventTiming, Schedule};
use crate::servers::ServerKind;
use crate::trial::{Clients, Trial};

/// Memory over time while clients connect and leave.
#[derive(Debug, Serialize)]
struct ChurnSample {
    server: String,
    connects: u64,
    failed: u64,
    /// The error of the last failed connect.
    last_error: String,
    /// Pairs of seconds since the start and bytes.
    rss: Vec<(f64, u64)>,
}

pub(super) async fn churn(
    options: &Options,
    rig: &Rig,
    time: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut chart = Chart::new(
        "Resident memory while clients connect and leave",
        ("minutes", Scale::Linear),
        ("MiB", Scale::Linear),
    );
    let note = format!(
        "{} clients that stay for {:?} on average and reconnect, {} events/s, for {time:?}.",
        options.plan.connections, options.stay, options.rate
    );
    let columns =
        ["server", "connects", "failed", "MiB empty", "after a tenth", "half", "at the end"];
    let mut table = Table::new(&note, &columns);
    for &kind in &options.plan.turns.servers {
        let sample = measure_churn(options, rig, kind, time).await?;
        if sample.failed > 0 {
            eprintln!(
                "{kind}: {} connects failed, last error: {}",
                sample.failed, sample.last_error
            );
        }
        chart.line(&kind.to_string(), sample.rss.iter().map(|(at, rss)| (at / 60.0, mib(*rss))));
        // The memory after some tenths of the time.
        let at = |tenths: usize| {
            let index = (sample.rss.len().saturating_sub(1)) * tenths / 10;
            sample.rss.get(index).map_or(f64::NAN, |(_, rss)| mib(*rss))
        };
        table.row([
            kind.to_string(),
            sample.connects.to_string(),
            sample.failed.to_string(),
            show(at(0)),
            show(at(1)),
            show(at(5)),
            show(at(10)),
        ]);
        report.raw(&sample);
    }
    report.table(table);
    report.chart("churn", chart);
    Ok(())
}

async fn measure_churn(
    options: &Options,
    rig: &Rig,
    kind: ServerKind,
    time: Duration,
) -> anyhow::Result<ChurnSample> {
    let database = rig.fresh_database().await;
    let connections = options.plan.connections;
    let clients = Clients {
        behaviour: ClientBehaviour::Churn(options.stay),
        ..Clients::each_alone(connections)
    };
    let (mode, form) = default_mode(kind, database.url());
    let mut trial = Trial::start_connecting(rig, kind, mode, clients).await?;
    let begin = Instant::now();
    let mut rss = vec![(0.0, trial.server.process().rss())];
    let schedule = Schedule {
        begin: crate::clock::now(),
        rate: options.rate,
        first: 0,
        total: crate::figures::whole(options.rate * time.as_secs_f64()),
        timing: EventTiming::TICKS,
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
    let (connects, failed) = (counters.attempts.load(Relaxed), counters.failed.load(Relaxed));
    let last_error = counters.last_error();
    trial.close().await;
    Ok(ChurnSample { server: kind.to_string(), connects, failed, last_error, rss })
}
