//! `store`: creating notifications in PostgreSQL, delivering them, and reading them.

mod requests;
mod sample;

use std::io;
use std::time::Duration;

use belfry_tests::postgres::Database;
use clap::Args;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::commands::pgbench;
use crate::events::Form;
use crate::figures::float;
use crate::machine;
use crate::options::{Common, duration};
use crate::report::Report;
use crate::rig::Rig;
use crate::schedule::EventTiming;
use crate::servers::{Mode, ServerKind};
use crate::trial::{Clients, Load, Trial};
use requests::{creates, reads};
use sample::{Sample, table};

/// Measures store mode: Belfry with PostgreSQL (fsync on) or SQLite, one socket per user.
///
/// If none of --rate, --flood, --rest, --reads and --pgbench is given, all of them are measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The servers to measure. The only peer that stores notifications is nest, by REST.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "belfry")]
    servers: Vec<ServerKind>,
    /// The number of users, each with one signed-in client.
    #[arg(long, default_value_t = 1_000)]
    connections: u64,
    /// Number of runs. The report contains the medians.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Messages per second by AMQP: measures the latency from publishing to the socket.
    #[arg(long)]
    rate: Option<f64>,
    #[command(flatten)]
    timing: EventTiming,
    /// How long --rate, --rest and --reads are measured.
    #[arg(long, default_value = "15s", value_parser = duration)]
    duration: Duration,
    /// Messages published as fast as the broker accepts them: measures how many are stored and delivered per
    /// second.
    #[arg(long, value_name = "MESSAGES")]
    flood: Option<u64>,
    /// How many of --flood's messages may be published and not yet delivered. Without this option, all are
    /// published at once.
    #[arg(long, value_name = "MESSAGES", requires = "flood")]
    ahead: Option<u64>,
    /// Concurrent requests that create notifications: measures how many are answered and delivered per second.
    #[arg(long, value_name = "IN FLIGHT")]
    rest: Option<u64>,
    /// Concurrent requests that read, each for another user: pages of the inbox, pages of unread notifications, and
    /// unread counts, in turn.
    #[arg(long, value_name = "IN FLIGHT")]
    reads: Option<u64>,
    /// Measures Belfry with its embedded SQLite database, in a temporary file.
    #[arg(long, conflicts_with = "flood")]
    sqlite: bool,
    /// For comparison: single-row inserts by pgbench, with 16 clients, into a table like that of notifications.
    #[arg(long)]
    pgbench: bool,
}

impl Options {
    fn with_defaults(mut self) -> Self {
        let any_count = [self.flood, self.rest, self.reads].iter().any(Option::is_some);
        if !any_count && self.rate.is_none() && !self.pgbench {
            self.rate = Some(1_000.0);
            self.flood = (!self.sqlite).then_some(100_000);
            (self.rest, self.reads) = (Some(32), Some(32));
            self.pgbench = true;
        }
        self
    }
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let options = &options.clone().with_defaults();
    let rig = super::rig(common, &options.servers, true).await?;
    let facts = machine::facts(&rig, &options.servers).await;
    let mut report = Report::new("Stored notifications", facts);
    let (mut runs, mut inserts) = (Vec::new(), Vec::new());
    for number in 1..=options.runs {
        // pgbench is measured in each run, because the speed of a machine varies over time.
        if options.pgbench {
            inserts.push(pgbench::inserts_per_second(&rig).await?);
        }
        for &kind in &options.servers {
            let before = runs.len();
            let inserted = inserts.last().copied();
            measure_once(options, &rig, kind, inserted, number, &mut runs).await?;
            for run in &runs[before..] {
                report.record(run)?;
            }
        }
    }
    report.raw(&serde_json::json!({ "pgbench": inserts }));
    report.table(table(options, &runs, &inserts));
    report.publish(common)
}

async fn measure_once(
    options: &Options,
    rig: &Rig,
    kind: ServerKind,
    inserted: Option<f64>,
    run: u32,
    runs: &mut Vec<Sample>,
) -> anyhow::Result<()> {
    let database = FreshDatabase::new(options.sqlite, rig).await?;
    let clients = Clients::each_alone(options.connections);
    let mut trial = Trial::open(rig, kind, Mode::Store(&database.url()), clients).await?;
    let belfry = kind.is_belfry();
    let server = kind.to_string();
    if let (Some(rate), true) = (options.rate, belfry) {
        let warm_up = Duration::from_secs(3);
        let (timing, time) = (options.timing.in_run(run), options.duration);
        let load = Load { form: Form::Store, rate, timing, warm_up, time };
        runs.push(Sample::steady(run, &server, &trial.send(load).await?));
    }
    if let (Some(messages), true) = (options.flood, belfry) {
        let stored = Stored::watch(&database.url(), messages).await?;
        let flood = trial.flood(Form::Store, messages, options.ahead).await?;
        let stored = stored.per_second().await?;
        runs.push(Sample::flood(run, &server, &flood, stored, inserted));
    }
    if let Some(in_flight) = options.rest {
        let sample = creates(options, rig, &mut trial, in_flight, run).await?;
        let of_pgbench = inserted.map_or(f64::NAN, |inserted| sample.per_second / inserted);
        runs.push(Sample { of_pgbench, ..sample });
    }
    if let (Some(in_flight), true) = (options.reads, belfry) {
        runs.push(reads(options, rig, &trial, in_flight, run).await?);
    }
    trial.close().await;
    Ok(())
}

/// An empty database. Dropping this deletes it.
enum FreshDatabase {
    Postgres(Database),
    Sqlite(TempDir),
}

impl FreshDatabase {
    async fn new(sqlite: bool, rig: &Rig) -> io::Result<Self> {
        if sqlite {
            return Ok(Self::Sqlite(TempDir::new()?));
        }
        Ok(Self::Postgres(rig.fresh_database().await))
    }

    fn url(&self) -> String {
        match self {
            Self::Postgres(database) => database.url().to_owned(),
            Self::Sqlite(folder) => format!("sqlite://{}/belfry.db", folder.path().display()),
        }
    }
}

/// Measures the rate at which notifications are stored.
struct Stored {
    watching: JoinHandle<anyhow::Result<f64>>,
}

impl Stored {
    /// Polls the number of notifications in the database until `messages` more are stored.
    async fn watch(database: &str, messages: u64) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(database).await?;
        let before = count(&mut connection).await?;
        let begin = Instant::now();
        let watching = tokio::spawn(async move {
            let goal = before + i64::try_from(messages)?;
            while count(&mut connection).await? < goal {
                sleep(Duration::from_millis(100)).await;
            }
            Ok(float(messages) / begin.elapsed().as_secs_f64())
        });
        Ok(Self { watching })
    }

    /// Notifications stored per second; NaN if some are not stored yet.
    async fn per_second(self) -> anyhow::Result<f64> {
        if !self.watching.is_finished() {
            self.watching.abort();
            return Ok(f64::NAN);
        }
        self.watching.await?
    }
}

/// The number of notifications. It equals the sum of the revisions, because here each change creates a
/// notification.
async fn count(connection: &mut PgConnection) -> sqlx::Result<i64> {
    let sum = "select coalesce(sum(revision), 0)::bigint from inboxes";
    sqlx::query_scalar(sum).fetch_one(connection).await
}
