//! A part of `growth`: the latency of lists and catch-ups with inboxes of different sizes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use crate::chart::{Chart, Scale};
use crate::clock;
use crate::figures::{float, median, ms_at, show};
use crate::fleet::PER_ADDRESS;
use crate::probe::Probe;
use crate::report::{Report, Table};
use crate::rest::Http;
use crate::rig::Rig;
use crate::servers::{Mode, ServerKind};
use crate::tally::{Latency, no_latency};
use crate::trial::{Clients, Trial};

/// Requests per measurement.
const REPETITIONS: u64 = 200;

/// Requests before the measurement: the first ones use new database connections with empty caches.
const WARM_UP: u64 = 20;

/// Notifications that a reconnecting device has missed.
const MISSED: u64 = 10;

/// The measurement of one kind of request, for an inbox of one size.
#[derive(Debug, Serialize)]
struct Sample {
    /// The number of notifications in the inbox.
    inbox: u64,
    /// The kind of request.
    what: &'static str,
    p50_ms: f64,
    p99_ms: f64,
    /// CPU time of Belfry per request.
    cpu_us: f64,
    /// CPU time of PostgreSQL per request.
    postgres_cpu_us: f64,
}

pub(super) async fn measure(
    rig: &Rig,
    sizes: &[u64],
    runs: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for &size in sizes {
        for _ in 0..runs {
            for sample in measure_once(rig, size).await? {
                report.record(&sample)?;
                all.push(sample);
            }
        }
    }
    let note = format!(
        "Sequential requests, {REPETITIONS} of each kind, with other inboxes of the same size; a catch-up is a device \
         that signs in and receives the {MISSED} notifications it has missed. Medians of {runs} runs."
    );
    let columns =
        ["what", "notifications", "p50 ms", "p99 ms", "µs CPU of belfry", "µs CPU of PostgreSQL"];
    let mut table = Table::new(&note, &columns);
    let axis = ("notifications in the inbox", Scale::Logarithmic);
    let mut chart = Chart::new("Latency p50", axis, ("ms", Scale::Linear));
    for what in ["list page", "unread count", "catch-up"] {
        let median_of = |size: u64, figure: fn(&Sample) -> f64| {
            let matches = move |sample: &&Sample| sample.what == what && sample.inbox == size;
            median(all.iter().filter(matches).map(figure))
        };
        for &size in sizes {
            table.row([
                what.to_owned(),
                size.to_string(),
                show(median_of(size, |sample| sample.p50_ms)),
                show(median_of(size, |sample| sample.p99_ms)),
                show(median_of(size, |sample| sample.cpu_us)),
                show(median_of(size, |sample| sample.postgres_cpu_us)),
            ]);
        }
        let p50 = |&size: &u64| (float(size), median_of(size, |sample| sample.p50_ms));
        chart.line(what, sizes.iter().map(p50));
    }
    report.table(table);
    report.chart("inbox", chart);
    Ok(())
}

async fn measure_once(rig: &Rig, size: u64) -> anyhow::Result<Vec<Sample>> {
    let database = rig.fresh_database().await;
    let clients = Clients::each_alone(0);
    let trial = Trial::open(rig, ServerKind::Belfry, Mode::Store(database.url()), clients).await?;
    fill(database.url(), size).await?;
    let token: Arc<str> = rig.key.token("u0").sign().into();
    let server = trial.server.address;
    let mut http = Http::connect(server, token.to_string()).await?;
    let mut all = Vec::new();
    for (what, path) in [
        ("list page", "/v1/notifications?limit=50"),
        ("unread count", "/v1/notifications/unread-count"),
    ] {
        let sample = measure_repeated(rig, &trial, (size, what), async || {
            let (status, body) = http.request(&format!("GET {path}"), "").await?;
            ensure!(status == 200, "{path}: {status}, {}", String::from_utf8_lossy(body));
            Ok(())
        });
        all.push(sample.await?);
    }
    let probe = Probe { server, token, from: crate::fleet::source(0, PER_ADDRESS) };
    let position = probe.sign_in(None).await.context("the first device")?;
    let seen = position.revision.saturating_sub(MISSED);
    let caught_up = measure_repeated(rig, &trial, (size, "catch-up"), async || {
        let caught_up = probe.sign_in(Some((seen, &position.epoch))).await.context("catch-up")?;
        ensure!(caught_up.missed == MISSED.min(size), "{} were missed", caught_up.missed);
        Ok(())
    });
    all.push(caught_up.await?);
    trial.close().await;
    Ok(all)
}

/// Sends requests sequentially and measures them.
async fn measure_repeated(
    rig: &Rig,
    trial: &Trial<'_>,
    (size, what): (u64, &'static str),
    mut request: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Sample> {
    for _ in 0..WARM_UP {
        request().await?;
    }
    let meter = Meter::start(rig, trial);
    let mut latency = no_latency();
    for _ in 0..REPETITIONS {
        let at = clock::now();
        request().await?;
        latency.saturating_record((clock::now() - at) / 1_000);
    }
    Ok(meter.stop(size, what, &latency))
}

/// Fills the inbox of `u0` and nine others, as if their notifications had been created one by one.
async fn fill(database: &str, size: u64) -> anyhow::Result<()> {
    const OTHERS: u64 = 9;
    /// The maximal size of the other inboxes, which are there because a real table has more than one inbox.
    const MAX_OTHER: u64 = 100_000;

    let mut connection = PgConnection::connect(database).await?;
    for user in 0..=OTHERS {
        let size = i64::try_from(if user == 0 { size } else { size.min(MAX_OTHER) })?;
        let user = format!("u{user}");
        sqlx::query("insert into inboxes (user_id, revision, unread) values ($1, $2, $2)")
            .bind(&user)
            .bind(size)
            .execute(&mut connection)
            .await?;
        sqlx::query(
            "insert into notifications (user_id, id, created_revision, revision, created_at, priority, \
             kind, title, message, data) \
             select $1, gen_random_uuid()::text, n, n, now() - ($2 - n) * interval '1 second', 'normal', \
             'order.shipped', 'Your order is on its way', \
             'It left our warehouse this morning and will be with you tomorrow.', '{\"orderId\":7}' \
             from generate_series(1, $2) n",
        )
        .bind(&user)
        .bind(size)
        .execute(&mut connection)
        .await?;
    }
    sqlx::raw_sql("vacuum analyze").execute(&mut connection).await?;
    sleep(Duration::from_millis(500)).await;
    Ok(())
}

/// Measures CPU time between start and stop.
struct Meter<'a> {
    rig: &'a Rig,
    process: crate::process::Process,
    cpu: crate::process::Cpu,
    postgres: u64,
}

impl<'a> Meter<'a> {
    fn start(rig: &'a Rig, trial: &Trial<'_>) -> Self {
        let process = trial.server.process();
        Self { rig, process, cpu: process.cpu(), postgres: postgres(rig) }
    }

    fn stop(self, inbox: u64, what: &'static str, latency: &Latency) -> Sample {
        let each = |nanos: u64| float(nanos) / 1_000.0 / float(REPETITIONS);
        Sample {
            inbox,
            what,
            p50_ms: ms_at(latency, 50.0),
            p99_ms: ms_at(latency, 99.0),
            cpu_us: each(self.process.cpu().since(self.cpu)),
            postgres_cpu_us: each(postgres(self.rig).saturating_sub(self.postgres)),
        }
    }
}

/// CPU time of PostgreSQL so far, in nanoseconds.
fn postgres(rig: &Rig) -> u64 {
    rig.postgres_process.map_or(0, crate::process::Process::family_cpu)
}
