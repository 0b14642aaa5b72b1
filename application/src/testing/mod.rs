//! Mocks, fakes and contract suites of the ports.
//!
//! - A **mock** (`Mock…`, by mockall) scripts an outage or forbids a call.
//! - A **fake** works like an adapter, but in memory: [`InMemoryStore`], [`ManualClock`], [`FakeDevice`], …
//!   The contract suites check fakes and real adapters alike.
//! - A **contract suite** ([`contracts`]) contains the promises of a port, as tests for any adapter.

pub mod contracts;
mod fakes;
pub(crate) mod in_memory_store;
mod samples;

pub use crate::ports::clock::MockClock;
pub use crate::ports::erasure::MockErasure;
pub use crate::ports::event_publisher::MockEventPublisher;
pub use crate::ports::id_generator::MockIdGenerator;
pub use crate::ports::inbox_owner::MockInboxOwner;
pub use crate::ports::inbox_repository::MockInboxRepository;
pub use crate::ports::outbox::{MockOutbox, MockOutboxLease};
pub use crate::ports::realtime_delivery::MockRealtimeDelivery;
pub use crate::ports::retention::MockRetention;
pub use crate::ports::revocations::MockRevocations;
pub use crate::ports::token_verifier::MockTokenVerifier;
pub use fakes::{
    FakeDevice, FakeTokenVerifier, ManualClock, RecordingDelivery, RecordingInboxOwner,
    RecordingPublisher, SequentialIds, UnlimitedWork,
};
pub use in_memory_store::InMemoryStore;
pub use samples::{a_draft, at, claims, epoch, id, user};
