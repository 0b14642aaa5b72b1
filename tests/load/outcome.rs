//! The measurements of one server.

use serde::Serialize;

use crate::tally::{DeliveryCounts, Latency};

/// Memory and CPU time of connecting the clients.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct ConnectCost {
    /// Resident memory of the server without clients, in bytes.
    pub(crate) empty_rss: u64,
    /// Resident memory with all clients idle, in bytes.
    pub(crate) idle_rss: u64,
    /// Growth of resident memory per client, when the last one has just signed in.
    pub(crate) at_once_kib_per_connection: f64,
    /// Growth of resident memory per client, when all are idle.
    pub(crate) kib_per_connection: f64,
    pub(crate) cpu_ms_per_connect: f64,
    /// Seconds until the last client has signed in.
    pub(crate) connect_seconds: f64,
}

/// CPU time per event or request, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Cost {
    #[serde(rename = "cpu_us")]
    pub(crate) server: f64,
    #[serde(rename = "broker_cpu_us")]
    pub(crate) broker: f64,
    #[serde(rename = "postgres_cpu_us")]
    pub(crate) postgres: f64,
    #[serde(rename = "tool_cpu_us")]
    pub(crate) tool: f64,
}

/// The cost of clients while no events are sent.
#[derive(Debug, Clone, Copy, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit is part of the names in the raw figures")]
pub(crate) struct Idle {
    pub(crate) cpu_us_per_second: f64,
    pub(crate) polls_per_second: f64,
    /// Engine.IO pings.
    pub(crate) pings_per_second: f64,
}

/// The result of events at a steady rate.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    /// Events per second by the schedule.
    pub(crate) rate: f64,
    /// Events per second as they were published.
    pub(crate) published_per_second: f64,
    /// The time from when an event was due until it was written to the broker, in microseconds.
    pub(crate) publisher_p50_late_us: f64,
    pub(crate) publisher_p99_late_us: f64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    /// In forward mode, the number of `notification:new` less that of `notification:unread_count`.
    pub(crate) counts_missing: i64,
    /// Clients whose connection was not closed by themselves.
    pub(crate) cut_off: u64,
    /// Responses to polls, pings included; none with WebSockets.
    pub(crate) polls: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    #[serde(flatten)]
    pub(crate) cost: Cost,
    /// Messages in the queue at the end of the measurement.
    pub(crate) queued: u64,
    pub(crate) rss: u64,
    #[serde(skip)]
    pub(crate) latency: Option<Latency>,
}

/// The result of events that were published as fast as possible.
#[derive(Debug, Clone)]
pub(crate) struct Flood {
    pub(crate) delivery: DeliveryCounts,
    /// Seconds from the start until the last event arrived.
    pub(crate) seconds: f64,
    /// Seconds until the broker had all events.
    pub(crate) published_seconds: f64,
    /// The time from when an event was due until it arrived.
    pub(crate) latency: Latency,
    pub(crate) cost: Cost,
}
