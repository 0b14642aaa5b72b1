use async_trait::async_trait;
use belfry_domain::{EventName, Timestamp, UserId};

use super::InMemoryStore;
use crate::ports::{Erased, Erasure, OutboxEntry, PortError};

#[async_trait]
impl Erasure for InMemoryStore {
    async fn erase(&self, user: &UserId) -> Result<Erased, PortError> {
        Ok(self.change(|content| {
            let inbox = content.inboxes.remove(user);
            let is_kept = |entry: &OutboxEntry| {
                // Without an inbox, no new event replaces the event of an earlier erasure.
                entry.header.user != *user
                    || (inbox.is_none() && entry.header.name.as_str() == EventName::ALL_ERASED)
            };
            let entries_before = content.outbox.len();
            content.outbox.retain(|_, entry| is_kept(entry));
            let events = entries_before - content.outbox.len();
            let mut idempotency_keys = 0;
            content.requests.retain(|(caller, _), request| {
                let count_before = request.notifications.len();
                request.notifications.retain(|(owner, _)| owner != user);
                let removed = count_before - request.notifications.len();
                idempotency_keys += u64::from(caller == user || removed > 0);
                // A key is also removed if all of its notifications were those of this user.
                caller != user && (removed == 0 || removed < count_before)
            });
            let mut erased =
                Erased { events: events as u64, idempotency_keys, ..Erased::default() };
            if let Some(inbox) = inbox {
                erased.inbox = true;
                erased.notifications = inbox.entry_count() as u64;
                let event = inbox.erase(self.epoch.clone(), content.erased_revision);
                content.erased_revision = event.revision;
                // The store has no clock.
                content.enqueue(&event, Timestamp::from_unix_millis(0));
            }
            erased
        }))
    }
}
