use async_trait::async_trait;
use belfry_domain::{Change, ExpiryCutoff, Timestamp};

use super::InMemoryStore;
use crate::ports::{PortError, Retention};

#[async_trait]
impl Retention for InMemoryStore {
    async fn expire(&self, cutoff: &ExpiryCutoff, limit: usize) -> Result<usize, PortError> {
        Ok(self.change(|content| {
            let mut deleted = 0;
            let mut events = Vec::new();
            for inbox in content.inboxes.values_mut() {
                let Some(event) = inbox.expire(cutoff, limit - deleted) else { continue };
                if let Change::Deleted { ids } = &event.change {
                    deleted += ids.len();
                }
                events.push(event);
            }
            for event in events {
                content.enqueue(&event, cutoff.now);
            }
            deleted
        }))
    }

    async fn purge_deleted(
        &self,
        deleted_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        let mut content = self.shared.content.lock();
        let inboxes = content.inboxes.values_mut();
        let purged = inboxes
            .fold(0, |purged, inbox| purged + inbox.purge_deleted(deleted_before, limit - purged));
        Ok(purged)
    }

    async fn purge_idempotency_keys(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        let mut content = self.shared.content.lock();
        let mut remaining = limit;
        content.requests.retain(|_, request| {
            let purge = request.made_at < made_before && remaining > 0;
            remaining -= usize::from(purge);
            !purge
        });
        Ok(limit - remaining)
    }

    async fn purge_revocations(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        // The store has no clock: `issued_before` determines the age of a revocation.
        let mut remaining = limit;
        self.shared.content.lock().revocations.retain(|_, (_, issued_before)| {
            let purge = *issued_before < made_before && remaining > 0;
            remaining -= usize::from(purge);
            !purge
        });
        Ok(limit - remaining)
    }
}
