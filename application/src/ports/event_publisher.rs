use async_trait::async_trait;

use super::{OutboxEntry, PortError};

/// Tells the world, nodes of this service included, what happened.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait EventPublisher: Send + Sync {
    /// Publishes the entries in the order given and waits until each was taken over for good.
    ///
    /// An entry counts as published only if whoever took it over promised to keep it. Entries
    /// behind the first that failed may or may not have been taken: they will be published again,
    /// so whoever listens can meet an event twice and knows it by its user and revision.
    async fn publish(&self, entries: &[OutboxEntry]) -> Published;
}

/// How far publishing came.
#[derive(Debug)]
pub struct Published {
    /// So many, from the front, are taken over.
    pub confirmed: usize,
    /// What stopped it there; `None` if all are.
    pub stopped_by: Option<PortError>,
}

impl Published {
    /// All of them were taken over.
    pub const fn all(entries: &[OutboxEntry]) -> Self {
        Self { confirmed: entries.len(), stopped_by: None }
    }

    /// So many were, then this happened.
    pub const fn stopped(confirmed: usize, by: PortError) -> Self {
        Self { confirmed, stopped_by: Some(by) }
    }
}
