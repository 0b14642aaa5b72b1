use std::io;

use belfry_application::ports::PortError;

use crate::outbound::relational::SqlFailure;

/// Why a call to SQLite failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqliteFailure {
    #[error(transparent)]
    Sql(SqlFailure),
    #[error("cannot create the database file: {0}")]
    File(#[from] io::Error),
    #[error("{0} is in use by another process; is belfry running already?")]
    InUse(String),
}

impl<E> From<E> for SqliteFailure
where
    SqlFailure: From<E>,
{
    fn from(error: E) -> Self {
        Self::Sql(error.into())
    }
}

impl SqliteFailure {
    /// Whether SQLite or this store rejects this request in particular.
    fn is_rejection(&self) -> bool {
        match self {
            Self::Sql(error) => error.is_rejection(|code| code.parse().is_ok_and(is_about_data)),
            Self::File(_) | Self::InUse(_) => true,
        }
    }
}

/// Whether a result code (<https://sqlite.org/rescode.html>) is about the given values: `TOOBIG`
/// 18, `CONSTRAINT` 19, `MISMATCH` 20, `RANGE` 25. All others (`BUSY` 5, `LOCKED` 6, `READONLY` 8,
/// `IOERR` 10, `FULL` 13, …) are about the file; other writes fail too until an operator fixes it.
fn is_about_data(code: i32) -> bool {
    // The low byte is the primary code; the rest is the extended code.
    matches!(code & 0xff, 18 | 19 | 20 | 25)
}

impl From<SqliteFailure> for PortError {
    fn from(failure: SqliteFailure) -> Self {
        let cause = failure.to_string();
        if failure.is_rejection() { Self::rejected(cause) } else { Self::unavailable(cause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_about_the_data_are_rejections() {
        // SQLITE_CONSTRAINT_CHECK, SQLITE_CONSTRAINT_UNIQUE, SQLITE_TOOBIG, SQLITE_MISMATCH
        for rejection in [275, 2067, 18, 20] {
            assert!(is_about_data(rejection), "{rejection}");
        }
        // SQLITE_ERROR (no such table), BUSY, BUSY_SNAPSHOT, LOCKED, IOERR_FSYNC, FULL, READONLY
        for transient in [1, 5, 517, 6, 1034, 13, 8] {
            assert!(!is_about_data(transient), "{transient}");
        }
    }
}
