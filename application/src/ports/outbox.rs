use std::time::Duration;

use async_trait::async_trait;
use belfry_domain::{DomainEvent, Timestamp};

use super::PortError;
use crate::trace::TraceParent;

/// The events that are stored and not yet told. They got here in the same transaction as the change
/// they tell of, so there is none without the other.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Takes the lead over the outbox, if nobody has it. At most one lead exists at a time across
    /// all nodes that share a store; it ends when it is dropped, or when its holder dies.
    async fn acquire_lease(&self) -> Result<Option<Box<dyn OutboxLease>>, PortError>;

    /// How many entries wait.
    async fn backlog(&self) -> Result<u64, PortError>;
}

/// The right to empty the outbox. After any failure the lead may be lost: drop it and ask anew.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait OutboxLease: Send {
    /// The oldest entries, at most `limit`; fewer only if there are no others. Two entries of one inbox
    /// stand in the order of their revisions, and no entry can appear later that belongs before one
    /// shown here.
    async fn pending(&mut self, limit: usize) -> Result<Vec<OutboxEntry>, PortError>;

    /// Forgets entries that have been told.
    async fn remove(&mut self, entries: &[OutboxId]) -> Result<(), PortError>;

    /// Waits until there may be entries that the last look did not show, at most for `patience`. A
    /// commit on any node wakes it without delay in the common case, also one between that look and
    /// this call; where that call was lost, patience ends the wait.
    async fn wait_for_entries(&mut self, patience: Duration) -> Result<(), PortError>;
}

/// An event that waits to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxEntry {
    /// Names it in its outbox.
    pub id: OutboxId,
    /// What to tell.
    pub event: DomainEvent,
    /// When it was put here.
    pub written_at: Timestamp,
    /// The trace that the change was a part of.
    pub trace: Option<TraceParent>,
}

/// Names an entry of an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxId(pub i64);
