//! The figures of one server's trial.

use serde::Serialize;

use crate::tally::{Fate, Latency};

/// What it took to let the clients in.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Entry {
    /// Resident memory of the server without clients.
    pub(crate) empty_rss: u64,
    /// And with all of them idle.
    pub(crate) idle_rss: u64,
    pub(crate) kib_per_connection: f64,
    pub(crate) cpu_ms_per_connect: f64,
}

/// CPU time for each of so many events or requests, in microseconds.
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

/// What clients take while no events are sent.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Idle {
    pub(crate) cpu_us_per_second: f64,
    pub(crate) polls_per_second: f64,
}

/// What came of events at a steady rate.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    pub(crate) rate: f64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Frames with a count that never came, in forward mode.
    pub(crate) counts_missing: i64,
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
    /// Messages that waited in the queue when the last one was sent.
    pub(crate) queued: u64,
    pub(crate) rss: u64,
    #[serde(skip)]
    pub(crate) latency: Option<Latency>,
}

/// What came of events that were sent all at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flood {
    pub(crate) fate: Fate,
    /// Until the last one arrived.
    pub(crate) seconds: f64,
    pub(crate) cost: Cost,
}
