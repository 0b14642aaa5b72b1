use std::time::Duration;

/// Why the broker did not confirm a message. The broker may have the message all the same.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("not connected to RabbitMQ")]
    NotConnected,
    #[error("RabbitMQ blocks publishers (memory or disk alarm)")]
    Blocked,
    #[error("a queue rejected the message (basic.nack)")]
    Nacked,
    #[error("the message was not routed to any queue")]
    Unroutable,
    #[error("RabbitMQ did not confirm within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Amqp(#[from] lapin::Error),
}
