use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// 1 while the task named by `role` is connected and working.
pub(crate) const UP: &str = "belfry_amqp_up";
/// How often the task named by `role` lost its connection or its queue, or could not connect at the start.
pub(crate) const OUTAGES: &str = "belfry_amqp_outages_total";
/// Events of the outbox that the broker has confirmed. Stays 0 in forward mode.
pub(crate) const EVENTS_PUBLISHED: &str = "belfry_events_published_total";
/// Messages from other services, by `outcome`. A message counts as `retry` each time it goes to a retry queue, and
/// once more with its final outcome.
pub(crate) const INGEST_MESSAGES: &str = "belfry_ingest_messages_total";
/// The age of messages from other services when a node receives them.
pub(crate) const INGEST_LAG: &str = "belfry_ingest_lag_seconds";
/// Events from this node's queue, by `outcome`.
pub(crate) const NODE_EVENTS: &str = "belfry_node_events_total";
/// Requests of devices to the service that keeps the inboxes, by `outcome`.
pub(crate) const DEVICE_REQUESTS: &str = "belfry_device_requests_total";

/// Registers the descriptions of these metrics; see [`crate::telemetry::describe_metrics`].
pub(crate) fn describe_metrics() {
    describe_gauge!(UP, "1 while this task is connected to RabbitMQ and working.");
    describe_counter!(
        OUTAGES,
        "How often this task lost its connection to RabbitMQ or the queue that it consumes."
    );
    describe_counter!(EVENTS_PUBLISHED, "Events of the outbox that RabbitMQ has confirmed.");
    describe_counter!(
        INGEST_MESSAGES,
        "Messages from other services, by outcome: done, expired, retry, dead, rejected."
    );
    describe_histogram!(
        INGEST_LAG,
        Unit::Seconds,
        "Age of a message from another service when a node received it, by its header timestamp_in_ms or its \
         property timestamp (whole seconds). Messages without either are not counted. A negative age, because \
         of clock skew, counts as 0."
    );
    describe_counter!(
        NODE_EVENTS,
        "Events from this node's queue, by outcome: delivered, unreadable, foreign."
    );
    describe_counter!(
        DEVICE_REQUESTS,
        "Requests of devices to the service that keeps the inboxes, by outcome: confirmed, failed."
    );
}
