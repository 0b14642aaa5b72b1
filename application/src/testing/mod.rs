//! For those who test with Belfry's ports: mocks, fakes and contract suites.
//!
//! - A **mock** (`ports::*::Mock…`, by mockall) scripts an outage or forbids a call.
//! - A **fake** remembers: [`InMemoryStore`], [`ManualClock`], [`FakeDevice`], … Fakes keep the same
//!   promises as the real adapters, and the same suites check it.
//! - A **contract suite** ([`contracts`]) states each promise of a port once, for every adapter.

pub mod contracts;
mod fakes;
mod samples;
mod store;

pub use crate::ports::clock::MockClock;
pub use crate::ports::event_publisher::MockEventPublisher;
pub use crate::ports::id_generator::MockIdGenerator;
pub use crate::ports::inbox_repository::MockInboxRepository;
pub use crate::ports::outbox::{MockOutbox, MockOutboxLease};
pub use crate::ports::realtime_delivery::MockRealtimeDelivery;
pub use crate::ports::retention::MockRetention;
pub use crate::ports::revocations::MockRevocations;
pub use crate::ports::token_verifier::MockTokenVerifier;
pub use fakes::{
    FakeDevice, FakeTokens, ManualClock, RecordingDelivery, RecordingPublisher, SequentialIds,
};
pub use samples::{a_draft, at, claims, epoch, id, user};
pub use store::InMemoryStore;
