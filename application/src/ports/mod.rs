//! The roles that Belfry needs filled. A port's documentation is its promise; each promise that can
//! be checked is checked by the contract suites in [`crate::testing::contracts`].

pub(crate) mod clock;
pub(crate) mod device;
pub(crate) mod event_publisher;
pub(crate) mod id_generator;
pub(crate) mod inbox_repository;
pub(crate) mod outbox;
pub(crate) mod realtime_delivery;
pub(crate) mod retention;
pub(crate) mod revocations;
pub(crate) mod token_verifier;

pub use clock::Clock;
pub use device::{CloseReason, Device, SendError};
pub use event_publisher::{EventPublisher, Published};
pub use id_generator::IdGenerator;
pub use inbox_repository::{
    History, IdempotencyKey, InboxRepository, InvalidIdempotencyKey, ListFilter, Once, Page,
    PageLimit,
};
pub use outbox::{Outbox, OutboxEntry, OutboxId, OutboxLease};
pub use realtime_delivery::RealtimeDelivery;
pub use retention::Retention;
pub use revocations::{Mark, Revocation, Revocations};
pub use token_verifier::{BearerToken, Claims, Scopes, TokenError, TokenTooLong, TokenVerifier};

use std::error::Error;

/// Why a port could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// What stands behind the port cannot be reached or is not able to answer now, whoever asks. Worth
    /// trying again later; whether the work was done is unknown.
    #[error("unavailable: {0}")]
    Unavailable(#[source] Cause),
    /// It did not work this time, and the reason may lie in this very request or not. Worth trying
    /// again later; whether the work was done is unknown.
    #[error("failed: {0}")]
    Failed(#[source] Cause),
    /// What stands behind the port refuses this very request and would refuse it again.
    #[error("rejected: {0}")]
    Rejected(#[source] Cause),
}

/// What stood behind a failure, for logs.
pub type Cause = Box<dyn Error + Send + Sync>;

impl PortError {
    /// A failure worth a retry.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(cause.into())
    }

    /// A failure whose reason may lie in the request.
    pub fn failed(cause: impl Into<Cause>) -> Self {
        Self::Failed(cause.into())
    }

    /// The same failure for another who met it: as text, since a cause cannot be shared.
    #[must_use]
    pub fn again(&self) -> Self {
        match self {
            Self::Unavailable(cause) => Self::unavailable(cause.to_string()),
            Self::Failed(cause) => Self::failed(cause.to_string()),
            Self::Rejected(cause) => Self::rejected(cause.to_string()),
        }
    }

    /// Whether the same may work later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Failed(_))
    }

    /// A failure that a retry would meet again.
    pub fn rejected(cause: impl Into<Cause>) -> Self {
        Self::Rejected(cause.into())
    }
}
