use async_trait::async_trait;
use belfry_application::ports::{
    History, IdempotencyKey, IdempotentOutcome, InboxRepository, ListFilter, Page, PageLimit,
    PortError,
};
use belfry_domain::{
    DomainEvent, Draft, Epoch, InboxState, Marked, MissedChange, Notification, NotificationId,
    NotificationKind, Receipt, ReplayRange, Revision, Timestamp, UserId,
};
use chrono::{DateTime, Utc};

use super::PostgresStore;
use super::create::Create;
use super::edit::Edit;
use super::failure::Failure;
use crate::outbound::relational::{
    ChangedRow, HistoryRow, InstantOutOfRange, NotificationRow, SizedRow, Unreadable, changes,
    clamped, history, inbox_state, page, storable,
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

/// Cuts `$rows` (called `n`, ordered by `$order`, at most `$4`) to a page of `$5` bytes. The running sum is
/// built over the few rows that the limit leaves, so a page costs what it reads. The first row is its
/// own sum: it is always on the page. What counts as a byte: `Notification::text_bytes`.
macro_rules! sized_page {
    ($order:literal, $rows:expr) => {
        concat!(
            "SELECT * FROM (
                SELECT n.*, count(*) OVER () AS found,
                    sum(n.bytes) OVER (ORDER BY ",
            $order,
            ") AS running_bytes
                FROM (
                    SELECT ",
            columns!(),
            ",
                        octet_length(n.id) + octet_length(n.kind) + octet_length(n.title)
                        + octet_length(n.message) + coalesce(octet_length(n.link), 0)
                        + coalesce(octet_length(n.data::text), 0) AS bytes
                    FROM notifications n ",
            $rows,
            "
                    ORDER BY ",
            $order,
            " LIMIT $4
                ) n
            ) n WHERE n.running_bytes <= $5 OR n.running_bytes = n.bytes
            ORDER BY ",
            $order
        )
    };
}

/// A page of a list. The filter by read state is a part of the text, as it decides on the index, and so
/// is that index's own condition, which holds for all rows (see the migration `0004`).
macro_rules! list_page {
    ($filter:literal) => {
        sized_page!(
            "n.created_revision DESC",
            concat!(
                "WHERE n.user_id = $1 AND n.created_revision < $2 AND n.deleted_at IS NULL
                    AND ($3::text IS NULL OR n.kind = $3) ",
                $filter
            )
        )
    };
}

const PAGE: &str = list_page!("AND n.created_revision > 0");
const PAGE_OF_UNREAD: &str = list_page!("AND n.read_at IS NULL");
const PAGE_OF_READ: &str = list_page!("AND n.created_revision > 0 AND n.read_at IS NOT NULL");

const CREATED_IN: &str = sized_page!(
    "n.created_revision",
    "WHERE n.user_id = $1 AND n.created_revision > $2 AND n.created_revision <= $3
        AND n.deleted_at IS NULL AND n.created_revision > 0"
);

const STATE: &str = "SELECT revision, unread FROM inboxes WHERE user_id = $1";

/// One statement, so that the state and the counts are of one moment. Every revision is above 0; that
/// says by which index.
const HISTORY: &str = "
    SELECT inbox.revision, inbox.unread, inbox.history_floor, missed.changed, missed.created
    FROM inboxes inbox CROSS JOIN LATERAL (
        SELECT count(*) AS changed,
            count(*) FILTER (WHERE created_revision > $2 AND deleted_at IS NULL) AS created
        FROM (
            SELECT created_revision, deleted_at FROM notifications
            WHERE user_id = inbox.user_id AND revision > $2 AND revision > 0
                AND $2 >= inbox.history_floor
            ORDER BY revision, created_revision LIMIT $3
        ) n
    ) missed
    WHERE inbox.user_id = $1";

/// One statement, so that nothing is forgotten between the changes and the floor. A row of nulls stands
/// for an inbox without such changes.
const CHANGED_IN: &str = "
    SELECT inbox.history_floor, n.id, n.revision, n.read_at, n.deleted_at IS NOT NULL AS deleted
    FROM inboxes inbox LEFT JOIN LATERAL (
        SELECT id, revision, read_at, deleted_at FROM notifications
        WHERE user_id = inbox.user_id AND revision > $2 AND revision <= $3 AND revision > 0
            AND CASE WHEN deleted_at IS NULL THEN read_at IS NOT NULL
                ELSE created_revision <= $4 END
        ORDER BY revision FETCH FIRST ($5) ROWS WITH TIES
    ) n ON true
    WHERE inbox.user_id = $1
    ORDER BY n.revision";

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
            IdempotentOutcome::Executed(receipts) => Ok(receipts),
            IdempotentOutcome::Repeated(_) | IdempotentOutcome::KeyReused => {
                unreachable!("there is no key")
            }
        }
    }

    async fn create_once(
        &self,
        key: &IdempotencyKey,
        drafts: Vec<Draft>,
    ) -> Result<IdempotentOutcome, PortError> {
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
        limit: PageLimit,
    ) -> Result<Page, PortError> {
        let statement = match filter.unread {
            None => PAGE,
            Some(true) => PAGE_OF_UNREAD,
            Some(false) => PAGE_OF_READ,
        };
        let before = filter.before.map_or(u64::MAX, Revision::get);
        let rows: Vec<SizedRow<_>> = self
            .with_connection(async |connection| {
                let query = sqlx::query_as(statement)
                    .bind(user.as_str())
                    .bind(clamped(before))
                    .bind(filter.kind.as_ref().map(NotificationKind::as_str))
                    // One more than is wanted shows that there are more.
                    .bind(clamped(limit.rows).saturating_add(1))
                    .bind(clamped(limit.bytes));
                Ok(query.fetch_all(connection).await?)
            })
            .await?;
        Ok(page::<DateTime<Utc>>(rows, limit).map_err(Failure::from)?)
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
        let row: Option<HistoryRow> = self
            .with_connection(async |connection| {
                // One more than is wanted shows that there are more.
                let query = sqlx::query_as(HISTORY)
                    .bind(user.as_str())
                    .bind(clamped(since.get()))
                    .bind(clamped(limit).saturating_add(1));
                Ok(query.fetch_optional(connection).await?)
            })
            .await?;
        Ok(history(row, since, limit).map_err(Failure::from)?)
    }

    async fn created_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: PageLimit,
    ) -> Result<Page, PortError> {
        let rows: Vec<SizedRow<_>> = self
            .with_connection(async |connection| {
                let query = sqlx::query_as(CREATED_IN)
                    .bind(user.as_str())
                    .bind(clamped(range.after.get()))
                    .bind(clamped(range.up_to.get()))
                    .bind(clamped(limit.rows).saturating_add(1))
                    .bind(clamped(limit.bytes));
                Ok(query.fetch_all(connection).await?)
            })
            .await?;
        Ok(page::<DateTime<Utc>>(rows, limit).map_err(Failure::from)?)
    }

    async fn changed_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: usize,
    ) -> Result<Option<Vec<MissedChange>>, PortError> {
        let rows: Vec<ChangedRow<DateTime<Utc>>> = self
            .with_connection(async |connection| {
                let query = sqlx::query_as(CHANGED_IN)
                    .bind(user.as_str())
                    .bind(clamped(range.after.get()))
                    .bind(clamped(range.up_to.get()))
                    .bind(clamped(range.since.get()))
                    .bind(clamped(limit));
                Ok(query.fetch_all(connection).await?)
            })
            .await?;
        Ok(changes(rows, range).map_err(Failure::from)?)
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
