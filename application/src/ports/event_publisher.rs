use async_trait::async_trait;

use super::outbox::OutboxEntry;
use crate::port_error::PortError;

/// Publishes stored events to the nodes of this service and to other services.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait EventPublisher: Send + Sync {
    /// Publishes the entries in the given order and waits for their confirms.
    ///
    /// An entry counts as published only after its confirm, the receiver's promise to keep it. Entries
    /// after the first failure may or may not have arrived and will be published again. Consumers
    /// can therefore receive an event twice; they recognise a duplicate by its user and revision.
    async fn publish(&self, entries: &[OutboxEntry]) -> PublishOutcome;
}

/// The result of publishing a batch.
#[derive(Debug)]
pub struct PublishOutcome {
    /// The number of confirmed entries, counted from the front.
    pub confirmed: usize,
    /// The error of the first entry that is not confirmed; `None` if all are.
    pub error: Option<PortError>,
}

impl PublishOutcome {
    /// All entries are confirmed.
    pub const fn all_confirmed(entries: &[OutboxEntry]) -> Self {
        Self { confirmed: entries.len(), error: None }
    }

    /// `confirmed` entries are confirmed, then `error` occurred.
    pub const fn failed_after(confirmed: usize, error: PortError) -> Self {
        Self { confirmed, error: Some(error) }
    }
}
