use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use belfry_domain::{DomainEvent, EventName, Revision, Timestamp, UserId};

use super::page::{Page, PageLimit};
use crate::port_error::PortError;
use crate::trace::TraceParent;

/// The transactional outbox: stored events that are not published yet. An entry is written in the
/// transaction of its change, so neither exists without the other.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Acquires the lease on the outbox; `None` while another holder has it. At most one lease exists
    /// across all nodes that share a store. It ends when it is dropped or its holder dies.
    async fn acquire_lease(&self) -> Result<Option<Box<dyn OutboxLease>>, PortError>;

    /// The entries that are not published yet.
    async fn backlog(&self) -> Result<OutboxBacklog, PortError>;
}

/// The entries of an outbox that are not published yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxBacklog {
    /// Their number.
    pub entries: u64,
    /// How long ago the oldest of them was written, by the store's clock; zero without entries.
    pub age: Duration,
}

/// The exclusive right to read and remove outbox entries. Any failure may mean that the lease is lost:
/// drop it and acquire a new one.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait OutboxLease: Send {
    /// The oldest entries. For the limit in bytes, the size of an entry is [`OutboxEntry::body_bytes`]. Entries
    /// of one inbox are ordered by revision. No entry that is added later belongs before a returned one.
    async fn pending(&mut self, limit: PageLimit) -> Result<Page<OutboxEntry>, PortError>;

    /// Removes published entries.
    async fn remove(&mut self, entries: &[OutboxId]) -> Result<(), PortError>;

    /// Waits, for at most `patience`, for entries that were added after the last [`pending`](Self::pending).
    /// A commit on any node normally ends the wait at once, even if the commit came before this call. If the
    /// notification of the commit is lost, `patience` ends the wait.
    async fn wait_for_entries(&mut self, patience: Duration) -> Result<(), PortError>;
}

/// An event to publish: the encoded event, and a header so that a publisher does not have to decode it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Unique within the outbox.
    pub id: OutboxId,
    /// For routing and deduplication.
    pub header: EventHeader,
    /// The event in its wire form. The store encodes it once, in the transaction of the change, and
    /// every publisher sends it unchanged. The application does not know the format.
    ///
    /// Shared, because a publisher may pass it to another task while the relay keeps the entry until
    /// it is removed.
    pub body: Arc<str>,
    /// When the entry was written.
    pub written_at: Timestamp,
    /// The trace of the request that caused the change.
    pub trace: Option<TraceParent>,
}

impl OutboxEntry {
    /// The size of the body in bytes.
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }
}

/// The fields of an event that a publisher uses for routing and identification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventHeader {
    /// The event's name. It may be one that this version does not know: see [`EventName`].
    pub name: EventName,
    /// The owner of the inbox.
    pub user: UserId,
    /// The number of the change within the inbox.
    pub revision: Revision,
}

impl EventHeader {
    /// The header of an event.
    pub fn of(event: &DomainEvent) -> Self {
        let DomainEvent { user, revision, .. } = event;
        Self { name: EventName::of(event), user: user.clone(), revision: *revision }
    }
}

/// Identifies an entry of an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxId(pub i64);
