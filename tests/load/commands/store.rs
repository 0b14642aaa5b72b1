//! `store`: notifications that are stored in PostgreSQL, told to the sockets, and read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::commands::pgbench;
use crate::events::{Events, Form};
use crate::figures::{float, median, medians, ms_at, show};
use crate::machine;
use crate::options::{Common, duration};
use crate::outcome::{Flood, Outcome};
use crate::report::{Report, Table};
use crate::rest::{Caller, Requests};
use crate::rig::Rig;
use crate::servers::{Kind, Mode};
use crate::trial::{Guests, Load, Trial};

/// Measures storing: Belfry with PostgreSQL (fsync on), a socket for each user.
///
/// Without --rate, --flood, --rest, --reads or --pgbench all of them are measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The servers to measure; of peers only nest stores, and only by REST.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "belfry")]
    servers: Vec<Kind>,
    /// Users, each with one signed-in client.
    #[arg(long, default_value_t = 1_000)]
    connections: u64,
    /// How often everything is measured. Medians are told.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Messages per second to store, by AMQP: how long each takes to its socket.
    #[arg(long)]
    rate: Option<f64>,
    /// How long --rate, --rest and --reads are measured.
    #[arg(long, default_value = "15s", value_parser = duration)]
    duration: Duration,
    /// Messages published as fast as the broker takes them: how many are stored and told per second.
    #[arg(long, value_name = "MESSAGES")]
    flood: Option<u64>,
    /// Requests that create notifications, so many in flight: how many are answered and told per second.
    #[arg(long, value_name = "IN FLIGHT")]
    rest: Option<u64>,
    /// Requests that read what was stored, so many in flight, each of a user of its own: pages of the inbox,
    /// of what is unread, and unread counts, in turn.
    #[arg(long, value_name = "IN FLIGHT")]
    reads: Option<u64>,
    /// Single-row inserts into a table like that of notifications by pgbench with 16 clients, to compare.
    #[arg(long)]
    pgbench: bool,
}

impl Options {
    fn or_all(mut self) -> Self {
        let some = [self.flood, self.rest, self.reads].iter().any(Option::is_some);
        if !some && self.rate.is_none() && !self.pgbench {
            (self.rate, self.flood) = (Some(1_000.0), Some(100_000));
            (self.rest, self.reads) = (Some(32), Some(32));
            self.pgbench = true;
        }
        self
    }
}

#[derive(Debug, Serialize)]
struct Sample {
    run: u32,
    server: String,
    what: &'static str,
    /// Notifications answered or stored per second, where as many as possible are.
    per_second: f64,
    /// Until the last client heard of its last one.
    told_per_second: f64,
    answer_p50_ms: f64,
    answer_p99_ms: f64,
    /// From publishing, or from the request, to the socket.
    socket_p50_ms: f64,
    socket_p99_ms: f64,
    cpu_us: f64,
    lost: u64,
    doubled: u64,
    refused: u64,
}

pub(crate) async fn run(options: &Options, common: &Common) -> anyhow::Result<()> {
    let options = &options.clone().or_all();
    let rig = super::rig(common, &options.servers, true).await?;
    let facts = machine::facts(&rig, &options.servers).await;
    let mut report = Report::new("Stored notifications", facts);
    let mut runs = Vec::new();
    for number in 1..=options.runs {
        for &kind in &options.servers {
            let before = runs.len();
            once(options, &rig, kind, number, &mut runs).await?;
            for run in &runs[before..] {
                eprintln!("{}", serde_json::to_string(run)?);
                report.raw(run);
            }
        }
    }
    let mut inserts = Vec::new();
    if options.pgbench {
        for _ in 0..options.runs {
            inserts.push(pgbench::inserts_per_second(&rig).await?);
        }
    }
    report.raw(&serde_json::json!({ "pgbench": inserts }));
    report.table(table(options, &runs, &inserts));
    report.publish(common)
}

async fn once(
    options: &Options,
    rig: &Rig,
    kind: Kind,
    run: u32,
    runs: &mut Vec<Sample>,
) -> anyhow::Result<()> {
    let database = rig.fresh_database().await;
    let guests = Guests::each_alone(options.connections);
    let mut trial = Trial::open(rig, kind, Mode::Store(database.url()), guests).await?;
    let belfry = matches!(kind, Kind::Belfry | Kind::BelfryNodes);
    let server = kind.to_string();
    if let (Some(rate), true) = (options.rate, belfry) {
        let warm_up = Duration::from_secs(3);
        let load = Load { form: Form::Store, rate, warm_up, time: options.duration };
        runs.push(Sample::steady(run, &server, &trial.send(load).await?));
    }
    if let (Some(messages), true) = (options.flood, belfry) {
        let stored = Stored::watch(database.url(), messages).await?;
        let flood = trial.flood(Form::Store, messages).await?;
        runs.push(Sample::flood(run, &server, &flood, stored.per_second().await?));
    }
    if let Some(in_flight) = options.rest {
        runs.push(rest(options, rig, &mut trial, in_flight, run).await?);
    }
    if let (Some(in_flight), true) = (options.reads, belfry) {
        runs.push(reads(options, rig, &trial, in_flight, run).await?);
    }
    trial.close().await;
    Ok(())
}

impl Sample {
    fn of(run: u32, server: &str, what: &'static str) -> Self {
        Self {
            run,
            server: server.to_owned(),
            what,
            per_second: f64::NAN,
            told_per_second: f64::NAN,
            answer_p50_ms: f64::NAN,
            answer_p99_ms: f64::NAN,
            socket_p50_ms: f64::NAN,
            socket_p99_ms: f64::NAN,
            cpu_us: f64::NAN,
            lost: 0,
            doubled: 0,
            refused: 0,
        }
    }

    fn steady(run: u32, server: &str, outcome: &Outcome) -> Self {
        Self {
            socket_p50_ms: outcome.p50_ms,
            socket_p99_ms: outcome.p99_ms,
            cpu_us: outcome.cpu_us,
            lost: outcome.lost,
            doubled: outcome.doubled,
            ..Self::of(run, server, "amqp")
        }
    }

    fn flood(run: u32, server: &str, flood: &Flood, stored_per_second: f64) -> Self {
        Self {
            per_second: stored_per_second,
            told_per_second: float(flood.fate.delivered) / flood.seconds,
            cpu_us: flood.cpu_us,
            lost: flood.fate.lost,
            doubled: flood.fate.doubled,
            ..Self::of(run, server, "amqp flood")
        }
    }
}

/// Looks how many notifications a database holds, until there are so many more.
struct Stored {
    watching: JoinHandle<anyhow::Result<f64>>,
}

impl Stored {
    async fn watch(database: &str, messages: u64) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(database).await?;
        let before = sum(&mut connection).await?;
        let begin = Instant::now();
        let watching = tokio::spawn(async move {
            let goal = before + i64::try_from(messages)?;
            while sum(&mut connection).await? < goal {
                sleep(Duration::from_millis(100)).await;
            }
            Ok(float(messages) / begin.elapsed().as_secs_f64())
        });
        Ok(Self { watching })
    }

    /// Not a number if some are not stored even now.
    async fn per_second(self) -> anyhow::Result<f64> {
        if !self.watching.is_finished() {
            self.watching.abort();
            return Ok(f64::NAN);
        }
        self.watching.await?
    }
}

/// Every notification takes a revision of its inbox, and here nothing else does.
async fn sum(connection: &mut PgConnection) -> sqlx::Result<i64> {
    let sum = "select coalesce(sum(revision), 0)::bigint from inboxes";
    sqlx::query_scalar(sum).fetch_one(connection).await
}

async fn rest(
    options: &Options,
    rig: &Rig,
    trial: &mut Trial<'_>,
    in_flight: u64,
    run: u32,
) -> anyhow::Result<Sample> {
    // More than anybody creates in that time; what is not sent is not counted.
    let most = crate::figures::whole(options.duration.as_secs_f64() * 50_000.0);
    let (round, first) = trial.begin(most);
    let what = match trial.server.kind {
        Kind::Nest => "POST /notifications",
        _ => "POST /v1/notifications",
    };
    let requests =
        Requests { server: trial.server.address, good: 201, in_flight, time: options.duration };
    let (next, events) =
        (Arc::new(AtomicU64::new(first)), Events::for_users(Form::Store, options.connections));
    let token = rig.key.token("shop").scope("notifications:write").sign();
    let (process, begin) = (trial.server.process(), Instant::now());
    let before = process.cpu();
    let creates = move |number| {
        let (next, mut events) = (Arc::clone(&next), events.clone());
        events.vary(number);
        let next = move |at| (what, events.request(next.fetch_add(1, Relaxed), at).to_string());
        Caller { token: token.clone(), next }
    };
    let answers = requests.run(creates).await?;
    let told = (trial.settle(&round, answers.good).await - begin).as_secs_f64();
    let cpu = process.cpu().since(before);
    let fate = round.fate(answers.good + answers.refused);
    let latency = trial.fleet.take_latency();
    Ok(Sample {
        run,
        server: trial.server.kind.to_string(),
        what: "rest",
        per_second: float(answers.good) / answers.seconds,
        told_per_second: float(fate.delivered) / told,
        answer_p50_ms: ms_at(&answers.latency, 50.0),
        answer_p99_ms: ms_at(&answers.latency, 99.0),
        socket_p50_ms: ms_at(&latency, 50.0),
        socket_p99_ms: ms_at(&latency, 99.0),
        cpu_us: float(cpu) / 1_000.0 / float(answers.good.max(1)),
        lost: fate.lost.saturating_sub(answers.refused),
        doubled: fate.doubled,
        refused: answers.refused,
    })
}

async fn reads(
    options: &Options,
    rig: &Rig,
    trial: &Trial<'_>,
    in_flight: u64,
    run: u32,
) -> anyhow::Result<Sample> {
    const WHAT: [&str; 4] = [
        "GET /v1/notifications?limit=20",
        "GET /v1/notifications/unread-count",
        "GET /v1/notifications?limit=20&unread=true",
        "GET /v1/notifications/unread-count",
    ];

    let requests =
        Requests { server: trial.server.address, good: 200, in_flight, time: options.duration };
    let (key, users) = (rig.key.clone(), options.connections);
    let process = trial.server.process();
    let before = process.cpu();
    let reads = move |number: u64| {
        let mut what = WHAT.iter().cycle();
        let next = move |_| (*what.next().expect("it has no end"), String::new());
        Caller { token: key.token(&format!("u{}", number % users)).sign(), next }
    };
    let answers = requests.run(reads).await?;
    Ok(Sample {
        per_second: float(answers.good) / answers.seconds,
        answer_p50_ms: ms_at(&answers.latency, 50.0),
        answer_p99_ms: ms_at(&answers.latency, 99.0),
        cpu_us: float(process.cpu().since(before)) / 1_000.0 / float(answers.good.max(1)),
        refused: answers.refused,
        ..Sample::of(run, &trial.server.kind.to_string(), "reads")
    })
}

fn table(options: &Options, runs: &[Sample], inserts: &[f64]) -> Table {
    let mut note = format!(
        "{} users with a client each, medians of {} runs.",
        options.connections, options.runs
    );
    if !inserts.is_empty() {
        let inserts = show(median(inserts.iter().copied()));
        note = format!(
            "{note} pgbench, one row in each transaction, 16 clients: {inserts} inserts/s."
        );
    }
    let mut table = Table::new(
        &note,
        &[
            "server",
            "what",
            "answered or stored/s",
            "told/s",
            "answer p50 ms",
            "answer p99 ms",
            "socket p50 ms",
            "socket p99 ms",
            "µs CPU each",
            "lost",
            "doubled",
            "refused",
        ],
    );
    for &kind in &options.servers {
        for what in ["amqp", "amqp flood", "rest", "reads"] {
            let kind = kind.to_string();
            let of: Vec<&Sample> =
                runs.iter().filter(|run| run.server == kind && run.what == what).collect();
            if of.is_empty() {
                continue;
            }
            let middle = medians(of.iter().copied());
            let sum = |figure: fn(&Sample) -> u64| {
                of.iter().map(|run| figure(run)).sum::<u64>().to_string()
            };
            let label = match what {
                "amqp" => format!("AMQP, {}/s", options.rate.unwrap_or_default()),
                "amqp flood" => format!("AMQP, {} at once", options.flood.unwrap_or_default()),
                "rest" => format!("REST, {} in flight", options.rest.unwrap_or_default()),
                _ => format!("reads, {} in flight", options.reads.unwrap_or_default()),
            };
            table.row([
                kind.clone(),
                label,
                middle(|run| run.per_second),
                middle(|run| run.told_per_second),
                middle(|run| run.answer_p50_ms),
                middle(|run| run.answer_p99_ms),
                middle(|run| run.socket_p50_ms),
                middle(|run| run.socket_p99_ms),
                middle(|run| run.cpu_us),
                sum(|run| run.lost),
                sum(|run| run.doubled),
                sum(|run| run.refused),
            ]);
        }
    }
    table
}
