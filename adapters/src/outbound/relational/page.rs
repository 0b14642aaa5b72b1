use belfry_application::ports::{Page, PageLimit};
use sqlx::FromRow;

use super::{NotificationRow, StoredInstant, Unreadable, count, whole};

/// A row of a page that was cut to its size by the database.
#[derive(Debug, FromRow)]
pub(crate) struct SizedRow<At> {
    #[sqlx(flatten)]
    notification: NotificationRow<At>,
    /// How many rows matched before the page was cut, as far as they were looked at: at most one more
    /// than the page may have.
    found: i64,
}

/// The page that these rows are, of which there may be one too many.
pub(crate) fn page<At: StoredInstant>(
    mut rows: Vec<SizedRow<At>>,
    limit: PageLimit,
) -> Result<Page, Unreadable> {
    let found = rows.first().map_or(Ok(0), |row| whole(row.found))?;
    rows.truncate(limit.rows);
    let more = count(found) > rows.len();
    let items: Result<_, _> = rows.into_iter().map(|row| row.notification.read()).collect();
    Ok(Page { items: items?, more })
}
