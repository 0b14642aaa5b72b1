use belfry_application::ports::{Page, PageLimit};
use belfry_domain::Notification;
use sqlx::FromRow;

use super::notification_row::{NotificationRow, notifications};
use super::number::row_count;
use super::stored_value::{InvalidStoredValue, non_negative};
use super::timestamp::StoredTimestamp;

/// A row of a page that the database has cut to its size in bytes.
#[derive(Debug, FromRow)]
pub(crate) struct SizedRow<Item> {
    #[sqlx(flatten)]
    item: Item,
    /// The number of matching rows before the cut: at most one more than the page's row limit.
    found: i64,
}

/// Makes a page of these rows. There may be one more than the page's row limit.
pub(crate) fn page<Item>(
    mut rows: Vec<SizedRow<Item>>,
    limit: PageLimit,
) -> Result<Page<Item>, InvalidStoredValue> {
    let found = rows.first().map_or(Ok(0), |row| non_negative(row.found))?;
    rows.truncate(limit.rows);
    let more = row_count(found) > rows.len();
    Ok(Page { items: rows.into_iter().map(|row| row.item).collect(), more })
}

/// Makes a page of notifications, as [`page`].
pub(crate) fn notification_page<At: StoredTimestamp>(
    rows: Vec<SizedRow<NotificationRow<At>>>,
    limit: PageLimit,
) -> Result<Page<Notification>, InvalidStoredValue> {
    let Page { items, more } = page(rows, limit)?;
    Ok(Page { items: notifications(items)?, more })
}
