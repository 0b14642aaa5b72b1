use async_trait::async_trait;
use belfry_application::ports::{
    History, IdempotencyKey, IdempotentOutcome, InboxRepository, ListFilter, Page, PageLimit,
    PortError,
};
use belfry_domain::{
    DomainEvent, Draft, Epoch, InboxState, Marked, MissedChange, Notification, NotificationId,
    NotificationKind, Receipt, ReplayRange, Revision, Timestamp, UserId,
};

use super::SqliteStore;
use super::create;
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
         n.priority, n.kind, n.title, n.message, n.link, n.data"
    };
}
pub(super) use columns;

type StoredRow = NotificationRow<i64>;

pub(super) const GET: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM notifications n WHERE n.user_id = ?1 AND n.id = ?2 AND n.deleted_at IS NULL"
);

/// Cuts `$rows` (called `n`, ordered by `$order`, at most `?4`) to a page of `?5` bytes. The running sum is
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
                        + coalesce(octet_length(n.data), 0) AS bytes
                    FROM notifications n ",
            $rows,
            "
                    ORDER BY ",
            $order,
            " LIMIT ?4
                ) n
            ) n WHERE n.running_bytes <= ?5 OR n.running_bytes = n.bytes
            ORDER BY ",
            $order
        )
    };
}

/// A page of a list. The filter by read state is a part of the text, as each has its own index.
macro_rules! list_page {
    ($filter:literal) => {
        sized_page!(
            "n.created_revision DESC",
            concat!(
                "WHERE n.user_id = ?1 AND n.created_revision < ?2 AND n.deleted_at IS NULL
                    AND (?3 IS NULL OR n.kind = ?3) ",
                $filter
            )
        )
    };
}

pub(super) const PAGE: &str = list_page!("");
pub(super) const PAGE_OF_UNREAD: &str = list_page!("AND n.read_at IS NULL");
pub(super) const PAGE_OF_READ: &str = list_page!("AND n.read_at IS NOT NULL");

pub(super) const CREATED_IN: &str = sized_page!(
    "n.created_revision",
    "WHERE n.user_id = ?1 AND n.created_revision > ?2 AND n.created_revision <= ?3
        AND n.deleted_at IS NULL"
);

pub(super) const STATE: &str = "SELECT revision, unread FROM inboxes WHERE user_id = ?1";

/// One statement, so that the state and the counts are of one moment.
pub(super) const HISTORY: &str = "
    SELECT inbox.revision, inbox.unread, inbox.history_floor,
        count(missed.revision) AS changed,
        count(*) FILTER (WHERE missed.created_revision > ?2 AND missed.deleted_at IS NULL) AS created
    FROM inboxes inbox LEFT JOIN (
        SELECT revision, created_revision, deleted_at FROM notifications changed
        WHERE changed.user_id = ?1 AND changed.revision > ?2
        ORDER BY changed.revision LIMIT ?3
    ) missed ON ?2 >= inbox.history_floor
    WHERE inbox.user_id = ?1
    GROUP BY inbox.user_id";

/// What is replayed besides new notifications.
macro_rules! changed_in {
    () => {
        "notifications changed
        WHERE changed.user_id = ?1 AND changed.revision > ?2 AND changed.revision <= ?3
            AND CASE WHEN changed.deleted_at IS NULL THEN changed.read_at IS NOT NULL
                ELSE changed.created_revision <= ?4 END"
    };
}

/// One statement, so that nothing is forgotten between the changes and the floor. A row of nulls stands
/// for an inbox without such changes. The last row within the limit says by its revision where to end.
pub(super) const CHANGED_IN: &str = concat!(
    "SELECT inbox.history_floor, n.id, n.revision, n.read_at, n.deleted_at IS NOT NULL AS deleted
    FROM inboxes inbox LEFT JOIN (
        SELECT id, revision, read_at, deleted_at FROM ",
    changed_in!(),
    " AND changed.revision <= coalesce(
            (SELECT changed.revision FROM ",
    changed_in!(),
    " ORDER BY changed.revision LIMIT 1 OFFSET ?5 - 1), ?3)
    ) n
    WHERE inbox.user_id = ?1
    ORDER BY n.revision"
);

impl SqliteStore {
    async fn read_epoch(&self) -> Result<Epoch, Failure> {
        let epoch: String =
            sqlx::query_scalar("SELECT epoch FROM store").fetch_one(&self.readers).await?;
        Ok(Epoch::parse(&epoch).map_err(|why| Unreadable::new("an epoch", &why))?)
    }

    async fn edit(
        &self,
        user: &UserId,
        edit: Edit<'_>,
        at: Timestamp,
    ) -> Result<Marked, PortError> {
        self.write(async |connection| edit.run(connection, user, at).await).await
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
        let taken =
            self.write(async |connection| create::create(connection, &drafts).await).await?;
        Ok(taken.receipts)
    }

    async fn create_once(
        &self,
        key: &IdempotencyKey,
        drafts: Vec<Draft>,
    ) -> Result<IdempotentOutcome, PortError> {
        self.write(async |connection| create::create_once(connection, key, &drafts).await).await
    }

    async fn mark_read(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        read_at: Timestamp,
    ) -> Result<Marked, PortError> {
        self.edit(user, Edit::Read(ids), read_at).await
    }

    async fn mark_all_read(
        &self,
        user: &UserId,
        read_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        Ok(self.edit(user, Edit::ReadAll, read_at).await?.event)
    }

    async fn delete(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        deleted_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        Ok(self.edit(user, Edit::Delete(ids), deleted_at).await?.event)
    }

    async fn get(
        &self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<Notification>, PortError> {
        let row: Option<StoredRow> = sqlx::query_as(GET)
            .bind(user.as_str())
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(Failure::from)?;
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
        let rows: Vec<SizedRow<i64>> = sqlx::query_as(statement)
            .bind(user.as_str())
            .bind(clamped(before))
            .bind(filter.kind.as_ref().map(NotificationKind::as_str))
            // One more than is wanted shows that there are more.
            .bind(clamped(limit.rows).saturating_add(1))
            .bind(clamped(limit.bytes))
            .fetch_all(&self.readers)
            .await
            .map_err(Failure::from)?;
        Ok(page(rows, limit).map_err(Failure::from)?)
    }

    async fn state(&self, user: &UserId) -> Result<InboxState, PortError> {
        let row: Option<(i64, i64)> = sqlx::query_as(STATE)
            .bind(user.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(Failure::from)?;
        let state = row.map(|(revision, unread)| inbox_state(revision, unread));
        Ok(state.transpose().map_err(Failure::from)?.unwrap_or_default())
    }

    async fn history(
        &self,
        user: &UserId,
        since: Revision,
        limit: usize,
    ) -> Result<History, PortError> {
        // One more than is wanted shows that there are more.
        let row: Option<HistoryRow> = sqlx::query_as(HISTORY)
            .bind(user.as_str())
            .bind(clamped(since.get()))
            .bind(clamped(limit).saturating_add(1))
            .fetch_optional(&self.readers)
            .await
            .map_err(Failure::from)?;
        Ok(history(row, since, limit).map_err(Failure::from)?)
    }

    async fn created_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: PageLimit,
    ) -> Result<Page, PortError> {
        let rows: Vec<SizedRow<i64>> = sqlx::query_as(CREATED_IN)
            .bind(user.as_str())
            .bind(clamped(range.after.get()))
            .bind(clamped(range.up_to.get()))
            .bind(clamped(limit.rows).saturating_add(1))
            .bind(clamped(limit.bytes))
            .fetch_all(&self.readers)
            .await
            .map_err(Failure::from)?;
        Ok(page(rows, limit).map_err(Failure::from)?)
    }

    async fn changed_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: usize,
    ) -> Result<Option<Vec<MissedChange>>, PortError> {
        let rows: Vec<ChangedRow<i64>> = sqlx::query_as(CHANGED_IN)
            .bind(user.as_str())
            .bind(clamped(range.after.get()))
            .bind(clamped(range.up_to.get()))
            .bind(clamped(range.since.get()))
            .bind(clamped(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(Failure::from)?;
        Ok(changes(rows, range).map_err(Failure::from)?)
    }
}

fn read(row: StoredRow) -> Result<Notification, Failure> {
    Ok(row.read()?)
}

/// An instant as the database keeps it.
pub(super) fn millis(at: Timestamp) -> Result<i64, InstantOutOfRange> {
    Ok(storable(at)?.unix_millis())
}
