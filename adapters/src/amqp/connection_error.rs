use std::time::Duration;

/// Why a connection to the broker, or a consumer on it, failed or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Amqp(#[from] lapin::Error),
    #[error("the broker did not reply within {0:?}")]
    Timeout(Duration),
    #[error("the queue {0} was deleted, or moved to another node of the broker")]
    ConsumerCancelled(String),
    #[error("the queue {0} has another consumer; does another process use this node name?")]
    QueueInUse(String),
    #[error("the connection was closed")]
    Closed,
}
