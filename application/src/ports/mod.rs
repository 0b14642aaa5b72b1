//! The interfaces that adapters implement, one file each. The documentation of a port is its
//! contract. The suites in `testing::contracts` check the promises that can be checked.

pub(crate) mod catch_up_monitor;
pub(crate) mod clock;
pub(crate) mod device;
pub(crate) mod erasure;
pub(crate) mod event_publisher;
pub(crate) mod id_generator;
pub(crate) mod inbox_owner;
pub(crate) mod inbox_repository;
pub(crate) mod outbox;
pub(crate) mod page;
pub(crate) mod realtime_delivery;
pub(crate) mod retention;
pub(crate) mod revocations;
pub(crate) mod token_verifier;
pub(crate) mod work_budget;

pub use catch_up_monitor::{CatchUpCause, CatchUpMonitor};
pub use clock::Clock;
pub use device::{CloseReason, Device, SendError};
pub use erasure::{Erased, Erasure};
pub use event_publisher::{EventPublisher, PublishOutcome};
pub use id_generator::IdGenerator;
pub use inbox_owner::{InboxOwner, RequestedChange};
pub use inbox_repository::{
    History, IdempotencyKey, IdempotentOutcome, InboxRepository, InvalidIdempotencyKey, ListFilter,
};
pub use outbox::{EventHeader, Outbox, OutboxBacklog, OutboxEntry, OutboxId, OutboxLease};
pub use page::{Page, PageLimit};
pub use realtime_delivery::RealtimeDelivery;
pub use retention::Retention;
pub use revocations::{Revocation, RevocationCursor, Revocations, TokenOwner};
pub use token_verifier::{
    BearerToken, Claims, KeyFingerprint, Scopes, TokenError, TokenTooLong, TokenVerifier,
};
pub use work_budget::WorkBudget;

pub use crate::port_error::{Cause, PortError};
