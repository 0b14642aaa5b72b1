use metrics::{describe_counter, describe_gauge};

/// 1 while the task named by `role` is connected and working.
pub(crate) const UP: &str = "belfry_amqp_up";
/// How often the task named by `role` lost its connection or its queue.
pub(crate) const OUTAGES: &str = "belfry_amqp_outages_total";
/// Events confirmed by the broker.
pub(crate) const EVENTS_PUBLISHED: &str = "belfry_events_published_total";
/// Messages from other services, by `outcome`.
pub(crate) const INGEST_MESSAGES: &str = "belfry_ingest_messages_total";
/// Events from this node's queue, by `outcome`.
pub(crate) const NODE_EVENTS: &str = "belfry_node_events_total";

/// Describes the AMQP metrics to the recorder. To be called after the recorder is installed.
pub fn describe_metrics() {
    describe_gauge!(UP, "1 while this part is connected to RabbitMQ and at work.");
    describe_counter!(
        OUTAGES,
        "Times this part lost its connection to RabbitMQ, or the queue it consumed."
    );
    describe_counter!(EVENTS_PUBLISHED, "Events that RabbitMQ has confirmed.");
    describe_counter!(
        INGEST_MESSAGES,
        "Messages from other services, by outcome: done, retry, dead."
    );
    describe_counter!(
        NODE_EVENTS,
        "Events from this node's queue, by outcome: delivered, unreadable."
    );
}
