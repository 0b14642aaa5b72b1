use async_trait::async_trait;
use belfry_domain::{
    DomainEvent, Draft, Epoch, Inbox, InboxState, Marked, MissedChange, Notification,
    NotificationId, Receipt, ReplayRange, Revision, Timestamp, UserId,
};

use super::{InMemoryStore, Request};
use crate::ports::{
    History, IdempotencyKey, IdempotentOutcome, InboxRepository, ListFilter, Page, PageLimit,
    PortError,
};

#[async_trait]
impl InboxRepository for InMemoryStore {
    async fn epoch(&self) -> Result<Epoch, PortError> {
        // Before and after the read, as in `read`.
        self.yield_if_needed().await;
        self.yield_if_needed().await;
        Ok(self.epoch.clone())
    }

    async fn create(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, PortError> {
        Ok(self.change(|content| content.create(drafts)))
    }

    async fn create_once(
        &self,
        key: &IdempotencyKey,
        drafts: Vec<Draft>,
    ) -> Result<IdempotentOutcome, PortError> {
        Ok(self.change(|content| {
            let request_key = (key.caller().clone(), key.key().to_owned());
            if let Some(request) = content.requests.get(&request_key) {
                if request.fingerprint != key.fingerprint() {
                    return IdempotentOutcome::KeyReused;
                }
                let created = request.notifications.iter();
                let current = created.filter_map(|(user, id)| content.get(user, id)).collect();
                return IdempotentOutcome::Repeated(current);
            }
            // The store has no clock: the first draft determines the age of the request.
            let made_at =
                drafts.first().map_or(Timestamp::from_unix_millis(0), |draft| draft.created_at);
            let receipts = content.create(drafts);
            let notifications = receipts
                .iter()
                .filter_map(Receipt::notification)
                .map(|notification| (notification.user.clone(), notification.id.clone()))
                .collect();
            let fingerprint = key.fingerprint().to_owned();
            let request = Request { fingerprint, made_at, notifications };
            content.requests.insert(request_key, request);
            IdempotentOutcome::Executed(receipts)
        }))
    }

    async fn mark_read(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        read_at: Timestamp,
    ) -> Result<Marked, PortError> {
        Ok(self.change(|content| {
            let Marked { event, unknown } =
                content.with_inbox(user, |inbox| inbox.mark_read(ids, read_at));
            Marked { event: content.enqueue_if_any(event, read_at), unknown }
        }))
    }

    async fn mark_all_read(
        &self,
        user: &UserId,
        read_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        Ok(self.change(|content| {
            let event = content.with_inbox(user, |inbox| inbox.mark_all_read(read_at));
            content.enqueue_if_any(event, read_at)
        }))
    }

    async fn delete(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        deleted_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        Ok(self.change(|content| {
            let event = content.with_inbox(user, |inbox| inbox.delete(ids, deleted_at));
            content.enqueue_if_any(event, deleted_at)
        }))
    }

    async fn get(
        &self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<Notification>, PortError> {
        Ok(self.shared.content.lock().get(user, id))
    }

    async fn list(
        &self,
        user: &UserId,
        filter: &ListFilter,
        limit: PageLimit,
    ) -> Result<Page<Notification>, PortError> {
        let content = self.shared.content.lock();
        let Some(inbox) = content.inboxes.get(user) else {
            return Ok(Page::default());
        };
        let matches = |notification: &Notification| {
            let ListFilter { before, unread, kind } = filter;
            before.is_none_or(|before| notification.created_revision < before)
                && unread.is_none_or(|unread| notification.is_read() != unread)
                && kind.as_ref().is_none_or(|kind| notification.kind == *kind)
        };
        let matching = inbox.notifications().filter(|notification| matches(notification));
        Ok(limit.page_of(matching, Notification::text_bytes))
    }

    async fn state(&self, user: &UserId) -> Result<InboxState, PortError> {
        Ok(self.read(user, Inbox::state).await)
    }

    async fn history(
        &self,
        user: &UserId,
        since: Revision,
        limit: usize,
    ) -> Result<History, PortError> {
        Ok(self
            .read(user, |inbox| {
                let state = inbox.state();
                match inbox.count_since(since).filter(|count| count.changed <= limit) {
                    Some(count) => History::Complete { state, created: count.created },
                    None => History::OutOfReach { state },
                }
            })
            .await)
    }

    async fn created_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: PageLimit,
    ) -> Result<Page<Notification>, PortError> {
        Ok(self
            .read(user, |inbox| limit.page_of(inbox.created_in(range), Notification::text_bytes))
            .await)
    }

    async fn changed_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: usize,
    ) -> Result<Option<Vec<MissedChange>>, PortError> {
        Ok(self
            .read(user, |inbox| {
                let mut changes = inbox.changed_in(range)?;
                if let Some(last) = changes.get(limit - 1) {
                    let end = last.revision;
                    changes.retain(|change| change.revision <= end);
                }
                Some(changes)
            })
            .await)
    }
}
