use std::sync::Arc;

use async_trait::async_trait;
use belfry_application::ports::{
    History, IdempotencyKey, IdempotentOutcome, InboxRepository, ListFilter, Page, PageLimit,
    PortError,
};
use belfry_domain::{
    DomainEvent, Draft, Epoch, InboxState, Marked, MissedChange, Notification, NotificationId,
    Receipt, ReplayRange, Revision, Timestamp, UserId,
};

use super::Operation;

/// Measures the operations of an [`InboxRepository`].
pub struct MeteredInboxes {
    inner: Arc<dyn InboxRepository>,
    epoch: Operation,
    create: Operation,
    create_once: Operation,
    mark_read: Operation,
    mark_all_read: Operation,
    delete: Operation,
    get: Operation,
    list: Operation,
    state: Operation,
    history: Operation,
    created_in: Operation,
    changed_in: Operation,
}

impl MeteredInboxes {
    /// Measures the operations of `inner`. Call it after the recorder is installed.
    pub fn new(inner: Arc<dyn InboxRepository>) -> Self {
        Self {
            inner,
            epoch: Operation::new("epoch"),
            create: Operation::new("create"),
            create_once: Operation::new("create_once"),
            mark_read: Operation::new("mark_read"),
            mark_all_read: Operation::new("mark_all_read"),
            delete: Operation::new("delete"),
            get: Operation::new("get"),
            list: Operation::new("list"),
            state: Operation::new("state"),
            history: Operation::new("history"),
            created_in: Operation::new("created_in"),
            changed_in: Operation::new("changed_in"),
        }
    }
}

#[async_trait]
impl InboxRepository for MeteredInboxes {
    async fn epoch(&self) -> Result<Epoch, PortError> {
        self.epoch.measure(self.inner.epoch()).await
    }

    async fn create(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, PortError> {
        self.create.measure(self.inner.create(drafts)).await
    }

    async fn create_once(
        &self,
        key: &IdempotencyKey,
        drafts: Vec<Draft>,
    ) -> Result<IdempotentOutcome, PortError> {
        self.create_once.measure(self.inner.create_once(key, drafts)).await
    }

    async fn mark_read(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        read_at: Timestamp,
    ) -> Result<Marked, PortError> {
        self.mark_read.measure(self.inner.mark_read(user, ids, read_at)).await
    }

    async fn mark_all_read(
        &self,
        user: &UserId,
        read_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        self.mark_all_read.measure(self.inner.mark_all_read(user, read_at)).await
    }

    async fn delete(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        deleted_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        self.delete.measure(self.inner.delete(user, ids, deleted_at)).await
    }

    async fn get(
        &self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<Notification>, PortError> {
        self.get.measure(self.inner.get(user, id)).await
    }

    async fn list(
        &self,
        user: &UserId,
        filter: &ListFilter,
        limit: PageLimit,
    ) -> Result<Page<Notification>, PortError> {
        self.list.measure(self.inner.list(user, filter, limit)).await
    }

    async fn state(&self, user: &UserId) -> Result<InboxState, PortError> {
        self.state.measure(self.inner.state(user)).await
    }

    async fn history(
        &self,
        user: &UserId,
        since: Revision,
        limit: usize,
    ) -> Result<History, PortError> {
        self.history.measure(self.inner.history(user, since, limit)).await
    }

    async fn created_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: PageLimit,
    ) -> Result<Page<Notification>, PortError> {
        self.created_in.measure(self.inner.created_in(user, range, limit)).await
    }

    async fn changed_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: usize,
    ) -> Result<Option<Vec<MissedChange>>, PortError> {
        self.changed_in.measure(self.inner.changed_in(user, range, limit)).await
    }
}
