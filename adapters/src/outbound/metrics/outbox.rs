use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use belfry_application::ports::{
    Outbox, OutboxBacklog, OutboxEntry, OutboxId, OutboxLease, Page, PageLimit, PortError,
};

use super::Operation;

/// Measures the reads and removals of an [`Outbox`].
pub struct MeteredOutbox {
    inner: Arc<dyn Outbox>,
    operations: Arc<Operations>,
}

/// Shared with the leases.
struct Operations {
    pending: Operation,
    remove: Operation,
}

impl MeteredOutbox {
    /// Measures the operations of `inner`. Call it after the recorder is installed.
    pub fn new(inner: Arc<dyn Outbox>) -> Self {
        let operations = Operations {
            pending: Operation::new("outbox_pending"),
            remove: Operation::new("outbox_remove"),
        };
        Self { inner, operations: Arc::new(operations) }
    }
}

#[async_trait]
impl Outbox for MeteredOutbox {
    async fn acquire_lease(&self) -> Result<Option<Box<dyn OutboxLease>>, PortError> {
        let lease = self.inner.acquire_lease().await?;
        Ok(lease.map(|inner| {
            let operations = self.operations.clone();
            Box::new(MeteredLease { inner, operations }) as Box<dyn OutboxLease>
        }))
    }

    async fn backlog(&self) -> Result<OutboxBacklog, PortError> {
        self.inner.backlog().await
    }
}

struct MeteredLease {
    inner: Box<dyn OutboxLease>,
    operations: Arc<Operations>,
}

#[async_trait]
impl OutboxLease for MeteredLease {
    async fn pending(&mut self, limit: PageLimit) -> Result<Page<OutboxEntry>, PortError> {
        self.operations.pending.measure(self.inner.pending(limit)).await
    }

    async fn remove(&mut self, entries: &[OutboxId]) -> Result<(), PortError> {
        self.operations.remove.measure(self.inner.remove(entries)).await
    }

    /// Not measured: it waits.
    async fn wait_for_entries(&mut self, patience: Duration) -> Result<(), PortError> {
        self.inner.wait_for_entries(patience).await
    }
}
