use belfry_application::ports::{Page, PageLimit};
use sqlx::FromRow;

use super::notification_row::NotificationRow;
use super::number::row_count;
use super::stored_value::{InvalidStoredValue, non_negative};
use super::timestamp::StoredTimestamp;

/// A row of a page that the database has cut to its size in bytes.
#[derive(Debug, FromRow)]
pub(crate) struct SizedRow<At> {
    #[sqlx(flatten)]
    notification: NotificationRow<At>,
    /// The number of matching rows before the cut: at most one more than the page's row limit.
    found: i64,
}

/// Makes a page of these rows. There may be one more than the page's row limit.
pub(crate) fn page<At: StoredTimestamp>(
    mut rows: Vec<SizedRow<At>>,
    limit: PageLimit,
) -> Result<Page, InvalidStoredValue> {
    let found = rows.first().map_or(Ok(0), |row| non_negative(row.found))?;
    rows.truncate(limit.rows);
    let more = row_count(found) > rows.len();
    let items: Result<_, _> = rows.into_iter().map(|row| row.notification.parse()).collect();
    Ok(Page { items: items?, more })
}
