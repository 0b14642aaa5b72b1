use async_trait::async_trait;
use belfry_application::ports::{
    History, IdempotencyKey, IdempotentOutcome, InboxRepository, ListFilter, Page, PageLimit,
    PortError,
};
use belfry_domain::{
    DomainEvent, Draft, Epoch, InboxState, Marked, MissedChange, Notification, NotificationId,
    NotificationKind, Receipt, ReplayRange, Revision, Timestamp, UserId,
};

use super::failure::SqliteFailure;
use super::inbox_write::{InboxWrite, WriteOutcome};
use super::queries::{CHANGED_IN, CREATED_IN, GET, HISTORY, LIST_ALL, LIST_READ, LIST_UNREAD};
use super::store::SqliteStore;
use crate::outbound::relational::statements::{EPOCH, STATE};
use crate::outbound::relational::{
    ChangedRow, CreateWrite, Edit, EditWrite, HistoryRow, NotificationRow, SizedRow, changes,
    clamped, epoch, history, inbox_state, notification_page, one_more, receipts,
};

type StoredRow = NotificationRow<i64>;
type StoredPage = Vec<SizedRow<StoredRow>>;

impl SqliteStore {
    async fn read_epoch(&self) -> Result<Epoch, SqliteFailure> {
        let raw: String = self.fetch_scalar(sqlx::query_scalar(EPOCH)).await?;
        Ok(epoch(&raw)?)
    }

    async fn create_in_group(&self, create: CreateWrite) -> Result<IdempotentOutcome, PortError> {
        match self.writes.submit(InboxWrite::Create(create), || self.clone()).await? {
            WriteOutcome::Create(outcome) => Ok(outcome),
            WriteOutcome::Edit(_) => unreachable!("the outcome is that of the write"),
        }
    }

    async fn edit(&self, user: &UserId, edit: Edit, at: Timestamp) -> Result<Marked, PortError> {
        let edit = InboxWrite::Edit(EditWrite::new(user, edit, at));
        match self.writes.submit(edit, || self.clone()).await? {
            WriteOutcome::Edit(marked) => Ok(marked),
            WriteOutcome::Create(_) => unreachable!("the outcome is that of the write"),
        }
    }
}

#[async_trait]
impl InboxRepository for SqliteStore {
    async fn epoch(&self) -> Result<Epoch, PortError> {
        let epoch = self.epoch.get_or_try_init(|| self.read_epoch()).await?;
        Ok(epoch.clone())
    }

    async fn create(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, PortError> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        Ok(receipts(self.create_in_group(CreateWrite::new(drafts, None)).await?))
    }

    async fn create_once(
        &self,
        key: &IdempotencyKey,
        drafts: Vec<Draft>,
    ) -> Result<IdempotentOutcome, PortError> {
        self.create_in_group(CreateWrite::new(drafts, Some(key.clone()))).await
    }

    async fn mark_read(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        read_at: Timestamp,
    ) -> Result<Marked, PortError> {
        self.edit(user, Edit::MarkRead(ids.to_vec()), read_at).await
    }

    async fn mark_all_read(
        &self,
        user: &UserId,
        read_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        Ok(self.edit(user, Edit::MarkAllRead, read_at).await?.event)
    }

    async fn delete(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        deleted_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        Ok(self.edit(user, Edit::Delete(ids.to_vec()), deleted_at).await?.event)
    }

    async fn get(
        &self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<Notification>, PortError> {
        let query = sqlx::query_as(GET).bind(user.as_str()).bind(id.as_str());
        let row: Option<StoredRow> = self.fetch_optional(query).await?;
        Ok(row.map(NotificationRow::parse).transpose()?)
    }

    async fn list(
        &self,
        user: &UserId,
        filter: &ListFilter,
        limit: PageLimit,
    ) -> Result<Page<Notification>, PortError> {
        let statement = match filter.unread {
            None => LIST_ALL,
            Some(true) => LIST_UNREAD,
            Some(false) => LIST_READ,
        };
        let query = sqlx::query_as(statement)
            .bind(user.as_str())
            .bind(clamped(filter.before.map_or(u64::MAX, Revision::get)))
            .bind(filter.kind.as_ref().map(NotificationKind::as_str))
            .bind(one_more(limit.rows))
            .bind(clamped(limit.bytes));
        let rows: StoredPage = self.fetch_all(query).await?;
        Ok(notification_page(rows, limit)?)
    }

    async fn state(&self, user: &UserId) -> Result<InboxState, PortError> {
        let query = sqlx::query_as(STATE).bind(user.as_str());
        let row: Option<(i64, i64)> = self.fetch_optional(query).await?;
        let state = row.map(|(revision, unread)| inbox_state(revision, unread));
        Ok(state.transpose()?.unwrap_or_default())
    }

    async fn history(
        &self,
        user: &UserId,
        since: Revision,
        limit: usize,
    ) -> Result<History, PortError> {
        let query = sqlx::query_as(HISTORY)
            .bind(user.as_str())
            .bind(clamped(since.get()))
            .bind(one_more(limit));
        let row: Option<HistoryRow> = self.fetch_optional(query).await?;
        Ok(history(row, since, limit)?)
    }

    async fn created_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: PageLimit,
    ) -> Result<Page<Notification>, PortError> {
        let query = sqlx::query_as(CREATED_IN)
            .bind(user.as_str())
            .bind(clamped(range.after.get()))
            .bind(clamped(range.up_to.get()))
            .bind(one_more(limit.rows))
            .bind(clamped(limit.bytes));
        let rows: StoredPage = self.fetch_all(query).await?;
        Ok(notification_page(rows, limit)?)
    }

    async fn changed_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: usize,
    ) -> Result<Option<Vec<MissedChange>>, PortError> {
        let query = sqlx::query_as(CHANGED_IN)
            .bind(user.as_str())
            .bind(clamped(range.after.get()))
            .bind(clamped(range.up_to.get()))
            .bind(clamped(range.since.get()))
            .bind(clamped(limit));
        let rows: Vec<ChangedRow<i64>> = self.fetch_all(query).await?;
        Ok(changes(rows, range)?)
    }
}
