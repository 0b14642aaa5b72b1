use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;

use super::{InMemoryStore, Shared};
use crate::ports::{
    Outbox, OutboxBacklog, OutboxEntry, OutboxId, OutboxLease, Page, PageLimit, PortError,
};

#[async_trait]
impl Outbox for InMemoryStore {
    async fn acquire_lease(&self) -> Result<Option<Box<dyn OutboxLease>>, PortError> {
        if self.shared.leased.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        Ok(Some(Box::new(InMemoryLease(self.shared.clone()))))
    }

    /// The store has no clock: the age is the time between the oldest and the latest entry.
    async fn backlog(&self) -> Result<OutboxBacklog, PortError> {
        let content = self.shared.content.lock();
        let written_at = |entry: (&i64, &OutboxEntry)| entry.1.written_at;
        let oldest = content.outbox.first_key_value().map(written_at);
        let latest = content.outbox.last_key_value().map(written_at);
        let age = latest.zip(oldest).map(|(latest, oldest)| latest.since(oldest));
        let entries = content.outbox.len() as u64;
        Ok(OutboxBacklog { entries, age: age.unwrap_or_default() })
    }
}

struct InMemoryLease(Arc<Shared>);

#[async_trait]
impl OutboxLease for InMemoryLease {
    async fn pending(&mut self, limit: PageLimit) -> Result<Page<OutboxEntry>, PortError> {
        Ok(limit.page_of(self.0.content.lock().outbox.values(), OutboxEntry::body_bytes))
    }

    async fn remove(&mut self, entries: &[OutboxId]) -> Result<(), PortError> {
        let mut content = self.0.content.lock();
        for OutboxId(id) in entries {
            content.outbox.remove(id);
        }
        Ok(())
    }

    async fn wait_for_entries(&mut self, patience: Duration) -> Result<(), PortError> {
        // A timeout is not an error: the wait ends either way.
        let _ = tokio::time::timeout(patience, self.0.written.notified()).await;
        Ok(())
    }
}

impl Drop for InMemoryLease {
    fn drop(&mut self) {
        self.0.leased.store(false, Ordering::SeqCst);
    }
}
