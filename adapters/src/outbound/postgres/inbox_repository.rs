use async_trait::async_trait;
use belfry_application::ports::{
    History, IdempotencyKey, InboxRepository, ListFilter, Once, PortError,
};
use belfry_domain::{
    DomainEvent, Draft, Epoch, InboxState, Kind, Marked, Notification, NotificationId, Receipt,
    Revision, Timestamp, UserId,
};
use chrono::{DateTime, Utc};

use super::PostgresStore;
use super::create::Create;
use super::edit::Edit;
use super::failure::Failure;
use crate::outbound::relational::{
    HistoryRow, InstantOutOfRange, NotificationRow, Unreadable, clamped, history, inbox_state,
    storable,
};

/// What a [`NotificationRow`] is read from: the table `notifications`, called `n`.
macro_rules! columns {
    () => {
        "n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at, n.read_at, \
         n.priority, n.kind, n.title, n.message, n.link, n.data::text AS data"
    };
}
pub(super) use columns;

type StoredRow = NotificationRow<DateTime<Utc>>;

const EPOCH: &str = "SELECT epoch FROM store";

const GET: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM notifications n WHERE n.user_id = $1 AND n.id = $2 AND n.deleted_at IS NULL"
);

/// A page of a list. The filter by read state is a part of the text, as it decides on the index, and so
/// is that index's own condition, which holds for all rows (see the migration `0004`).
macro_rules! page {
    ($filter:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM notifications n
              WHERE n.user_id = $1 AND n.created_revision < $2 AND n.deleted_at IS NULL
                AND ($3::text IS NULL OR n.kind = $3) ",
            $filter,
            " ORDER BY n.created_revision DESC LIMIT $4"
        )
    };
}

const PAGE: &str = page!("AND n.created_revision > 0");
const PAGE_OF_UNREAD: &str = page!("AND n.read_at IS NULL");
const PAGE_OF_READ: &str = page!("AND n.created_revision > 0 AND n.read_at IS NOT NULL");

const STATE: &str = "SELECT revision, unread FROM inboxes WHERE user_id = $1";

/// One statement, so that the state and the changes are of one moment. A row of nulls stands for an
/// inbox without changes since then. Every revision is above 0; that says by which index.
const HISTORY: &str = concat!(
    "SELECT inbox.revision AS at_revision, inbox.unread, inbox.history_floor, ",
    columns!(),
    ", n.deleted_at IS NOT NULL AS deleted
    FROM inboxes inbox LEFT JOIN LATERAL (
        SELECT * FROM notifications changed
        WHERE changed.user_id = inbox.user_id AND changed.revision > $2
            AND changed.revision > 0
        ORDER BY changed.revision, changed.created_revision LIMIT $3
    ) n ON $2 >= inbox.history_floor
    WHERE inbox.user_id = $1
    ORDER BY n.revision, n.created_revision"
);

impl PostgresStore {
    async fn read_epoch(&self) -> Result<Epoch, Failure> {
        let epoch: String = self
            .with_connection(async |connection| {
                Ok(sqlx::query_scalar(EPOCH).fetch_one(connection).await?)
            })
            .await?;
        Ok(Epoch::parse(&epoch).map_err(|why| Unreadable::new("an epoch", &why))?)
    }
}

#[async_trait]
impl InboxRepository for PostgresStore {
    async fn epoch(&self) -> Result<Epoch, PortError> {
        let epoch = self.epoch.get_or_try_init(|| self.read_epoch()).await?;
        Ok(epoch.clone())
    }

    async fn create(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, PortError> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        match self.change(&Create::new(&drafts, None)).await? {
            Once::Done(receipts) => Ok(receipts),
            Once::Before(_) | Once::KeyReused => unreachable!("there is no key"),
        }
    }

    async fn create_once(
        &self,
        key: &IdempotencyKey,
        drafts: Vec<Draft>,
    ) -> Result<Once, PortError> {
        self.change(&Create::new(&drafts, Some(key))).await
    }

    async fn mark_read(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        read_at: Timestamp,
    ) -> Result<Marked, PortError> {
        self.change(&Edit::read(user, ids, read_at)?).await
    }

    async fn mark_all_read(
        &self,
        user: &UserId,
        read_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        Ok(self.change(&Edit::read_all(user, read_at)?).await?.event)
    }

    async fn delete(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        deleted_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        Ok(self.change(&Edit::delete(user, ids, deleted_at)?).await?.event)
    }

    async fn get(
        &self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<Notification>, PortError> {
        let row: Option<StoredRow> = self
            .with_connection(async |connection| {
                let query = sqlx::query_as(GET).bind(user.as_str()).bind(id.as_str());
                Ok(query.fetch_optional(connection).await?)
            })
            .await?;
        Ok(row.map(read).transpose()?)
    }

    async fn list(
        &self,
        user: &UserId,
        filter: &ListFilter,
        limit: usize,
    ) -> Result<Vec<Notification>, PortError> {
        let statement = match filter.unread {
            None => PAGE,
            Some(true) => PAGE_OF_UNREAD,
            Some(false) => PAGE_OF_READ,
        };
        let before = filter.before.map_or(u64::MAX, Revision::get);
        let rows: Vec<StoredRow> = self
            .with_connection(async |connection| {
                let query = sqlx::query_as(statement)
                    .bind(user.as_str())
                    .bind(clamped(before))
                    .bind(filter.kind.as_ref().map(Kind::as_str))
                    .bind(clamped(limit));
                Ok(query.fetch_all(connection).await?)
            })
            .await?;
        let read: Result<_, Failure> = rows.into_iter().map(read).collect();
        Ok(read?)
    }

    async fn state(&self, user: &UserId) -> Result<InboxState, PortError> {
        let row: Option<(i64, i64)> = self
            .with_connection(async |connection| {
                let query = sqlx::query_as(STATE).bind(user.as_str());
                Ok(query.fetch_optional(connection).await?)
            })
            .await?;
        let state = row.map(|(revision, unread)| inbox_state(revision, unread));
        Ok(state.transpose().map_err(Failure::from)?.unwrap_or_default())
    }

    async fn history(
        &self,
        user: &UserId,
        since: Revision,
        limit: usize,
    ) -> Result<History, PortError> {
        let rows: Vec<HistoryRow<DateTime<Utc>>> = self
            .with_connection(async |connection| {
                // One more than is wanted shows that there are more.
                let query = sqlx::query_as(HISTORY)
                    .bind(user.as_str())
                    .bind(clamped(since.get()))
                    .bind(clamped(limit).saturating_add(1));
                Ok(query.fetch_all(connection).await?)
            })
            .await?;
        Ok(history(rows, since, limit).map_err(Failure::from)?)
    }
}

fn read(row: StoredRow) -> Result<Notification, Failure> {
    Ok(row.read()?)
}

/// An instant as `timestamptz`.
pub(super) fn instant(at: Timestamp) -> Result<DateTime<Utc>, InstantOutOfRange> {
    let millis = storable(at)?.unix_millis();
    Ok(DateTime::from_timestamp_millis(millis).expect("four-digit years are on the calendar"))
}
