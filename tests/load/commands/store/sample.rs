//! A measurement of store mode, and its table.

use serde::Serialize;

use super::Options;
use crate::figures::{float, median, medians, show};
use crate::outcome::{Cost, Flood, Outcome};
use crate::report::Table;

#[derive(Debug, Serialize)]
pub(super) struct Sample {
    pub(super) run: u32,
    pub(super) server: String,
    /// The kind of measurement: `amqp` at a fixed rate, `amqp flood`, `rest` or `reads`.
    pub(super) what: &'static str,
    /// Requests answered or notifications stored per second; NaN at a fixed rate.
    pub(super) per_second: f64,
    /// `per_second` divided by the inserts per second of pgbench.
    pub(super) of_pgbench: f64,
    /// Deliveries per second, from the start to the last delivery.
    pub(super) delivered_per_second: f64,
    pub(super) response_p50_ms: f64,
    pub(super) response_p99_ms: f64,
    /// Latency from publishing, or from the request, to the socket.
    pub(super) socket_p50_ms: f64,
    pub(super) socket_p99_ms: f64,
    /// At a fixed rate, the events published per second.
    pub(super) published_per_second: f64,
    /// At a fixed rate, the time from when an event was due until the publisher wrote it, in microseconds.
    pub(super) publisher_p99_late_us: f64,
    #[serde(flatten)]
    pub(super) cost: Cost,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    /// Requests that were answered with another status than that of success.
    pub(super) refused: u64,
}

impl Sample {
    /// A sample with this cost and without other figures.
    pub(super) fn of(run: u32, server: &str, what: &'static str, cost: Cost) -> Self {
        Self {
            run,
            server: server.to_owned(),
            what,
            per_second: f64::NAN,
            of_pgbench: f64::NAN,
            delivered_per_second: f64::NAN,
            response_p50_ms: f64::NAN,
            response_p99_ms: f64::NAN,
            socket_p50_ms: f64::NAN,
            socket_p99_ms: f64::NAN,
            published_per_second: f64::NAN,
            publisher_p99_late_us: f64::NAN,
            cost,
            lost: 0,
            duplicated: 0,
            refused: 0,
        }
    }

    pub(super) fn steady(run: u32, server: &str, outcome: &Outcome) -> Self {
        Self {
            socket_p50_ms: outcome.p50_ms,
            socket_p99_ms: outcome.p99_ms,
            published_per_second: outcome.published_per_second,
            publisher_p99_late_us: outcome.publisher_p99_late_us,
            lost: outcome.lost,
            duplicated: outcome.duplicated,
            ..Self::of(run, server, "amqp", outcome.cost)
        }
    }

    /// `stored` is the number of notifications stored per second, `inserted` that of rows inserted by pgbench.
    pub(super) fn flood(
        run: u32,
        server: &str,
        flood: &Flood,
        stored: f64,
        inserted: Option<f64>,
    ) -> Self {
        Self {
            per_second: stored,
            of_pgbench: inserted.map_or(f64::NAN, |inserted| stored / inserted),
            delivered_per_second: float(flood.delivery.delivered) / flood.seconds,
            lost: flood.delivery.lost,
            duplicated: flood.delivery.duplicated,
            ..Self::of(run, server, "amqp flood", flood.cost)
        }
    }
}

pub(super) fn table(options: &Options, runs: &[Sample], inserts: &[f64]) -> Table {
    let mut note = format!(
        "{} users with a client each, medians of {} runs. At a rate, events are published {}.",
        options.connections,
        options.runs,
        options.timing.arrivals.describe()
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
            "÷ pgbench",
            "delivered/s",
            "response p50 ms",
            "response p99 ms",
            "socket p50 ms",
            "socket p99 ms",
            "published/s",
            "p99 µs late",
            "µs CPU each",
            "broker µs",
            "PostgreSQL µs",
            "lost",
            "duplicated",
            "refused",
        ],
    );
    for &kind in &options.servers {
        for what in ["amqp", "amqp flood", "rest", "reads"] {
            let kind = kind.to_string();
            let samples: Vec<&Sample> =
                runs.iter().filter(|run| run.server == kind && run.what == what).collect();
            if samples.is_empty() {
                continue;
            }
            let median_of = medians(samples.iter().copied());
            let sum = |figure: fn(&Sample) -> u64| {
                samples.iter().map(|run| figure(run)).sum::<u64>().to_string()
            };
            let label = match what {
                "amqp" => format!("AMQP, {}/s", options.rate.unwrap_or_default()),
                "amqp flood" => flood_label(options),
                "rest" => format!("REST, {} in flight", options.rest.unwrap_or_default()),
                _ => format!("reads, {} in flight", options.reads.unwrap_or_default()),
            };
            table.row([
                kind.clone(),
                label,
                median_of(|run| run.per_second),
                median_of(|run| run.of_pgbench),
                median_of(|run| run.delivered_per_second),
                median_of(|run| run.response_p50_ms),
                median_of(|run| run.response_p99_ms),
                median_of(|run| run.socket_p50_ms),
                median_of(|run| run.socket_p99_ms),
                median_of(|run| run.published_per_second),
                median_of(|run| run.publisher_p99_late_us),
                median_of(|run| run.cost.server),
                median_of(|run| run.cost.broker),
                median_of(|run| run.cost.postgres),
                sum(|run| run.lost),
                sum(|run| run.duplicated),
                sum(|run| run.refused),
            ]);
        }
    }
    table
}

fn flood_label(options: &Options) -> String {
    let messages = options.flood.unwrap_or_default();
    match options.ahead {
        Some(ahead) => format!("AMQP, {messages}, {ahead} ahead"),
        None => format!("AMQP, {messages} at once"),
    }
}
