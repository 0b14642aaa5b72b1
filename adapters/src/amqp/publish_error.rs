use std::time::Duration;

/// Why a message counts as not confirmed. The broker may have it nevertheless, for example after a
/// [`Timeout`](Self::Timeout), so a retry can publish it twice.
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
