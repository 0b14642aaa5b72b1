//! The metrics of all adapters. Each adapter describes its metrics where it records them.

use crate::inbound::rest::REQUEST_DURATION;
use crate::inbound::socket_latency::{self, COMMIT_TO_SOCKET, PUBLISH_TO_SOCKET};
use crate::inbound::{rest, socketio};
use crate::outbound::metrics::{CATCH_UP, STORE_OPERATION};
use crate::{amqp, limits, outbound, transport};

/// Upper bounds in seconds, for durations that are milliseconds in normal operation.
const LATENCY_BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// Upper bounds in seconds, for ages that grow to hours during an outage.
const AGE_BUCKETS: [f64; 14] =
    [0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];

/// The names of all histograms and the upper bounds of their buckets, for the recorder. The bounds are the same on
/// all nodes, so that their buckets can be added.
pub fn histograms() -> [(&'static str, &'static [f64]); 6] {
    [
        (COMMIT_TO_SOCKET, &LATENCY_BUCKETS),
        (PUBLISH_TO_SOCKET, &LATENCY_BUCKETS),
        (REQUEST_DURATION, &LATENCY_BUCKETS),
        (CATCH_UP, &LATENCY_BUCKETS),
        (STORE_OPERATION, &LATENCY_BUCKETS),
        (amqp::metrics::INGEST_LAG, &AGE_BUCKETS),
    ]
}

/// Describes the metrics to the recorder. Call it after the recorder is installed: earlier descriptions are lost.
pub fn describe_metrics() {
    amqp::metrics::describe_metrics();
    limits::describe_metrics();
    outbound::metrics::describe_metrics();
    outbound::socketio::describe_delivery_metrics();
    outbound::socketio::describe_device_metrics();
    rest::describe_metrics();
    socket_latency::describe_metrics();
    socketio::describe_metrics();
    transport::describe_metrics();
}
