use std::time::Duration;

use belfry_application::ports::PortError;

use super::missing_right::MissingRight;

/// Why a connection to the broker, or a consumer on it, failed or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Amqp(#[from] lapin::Error),
    #[error(transparent)]
    MissingRight(#[from] Box<MissingRight>),
    #[error("the broker did not reply within {0:?}")]
    Timeout(Duration),
    #[error("the queue {0} was deleted, or moved to another node of the broker")]
    ConsumerCancelled(String),
    /// Belfry waits until another service declares the queue.
    #[error("the queue {0} does not exist yet")]
    QueueMissing(String),
    #[error("the queue {0} has another consumer; does another process use this node name?")]
    QueueInUse(String),
    #[error("cannot read the epoch of the store: {0}")]
    NoEpoch(#[source] PortError),
    #[error("the connection was closed")]
    Closed,
}

impl ConnectionError {
    /// Whether Belfry lacks a right that only an operator can grant.
    pub(crate) fn is_missing_right(&self) -> bool {
        matches!(self, Self::MissingRight(_))
    }
}
