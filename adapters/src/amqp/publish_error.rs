use std::time::Duration;

use super::connection_error::ConnectionError;
use super::missing_right::MissingRight;

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
    #[error(transparent)]
    MissingRight(#[from] Box<MissingRight>),
    /// The topology that publishing needs cannot be declared.
    #[error("{0}")]
    Topology(ConnectionError),
    #[error("{0}")]
    Amqp(#[from] lapin::Error),
}

impl From<ConnectionError> for PublishError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Amqp(error) => Self::Amqp(error),
            ConnectionError::MissingRight(missing) => Self::MissingRight(missing),
            ConnectionError::Timeout(limit) => Self::Timeout(limit),
            other => Self::Topology(other),
        }
    }
}
