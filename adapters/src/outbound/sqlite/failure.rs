use std::io;

use belfry_application::ports::PortError;

use crate::outbound::relational::{Fault, NotReady, SqlFailure, reason};

/// Why a call to SQLite failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqliteFailure {
    #[error(transparent)]
    Sql(SqlFailure),
    #[error("cannot create the database file: {0}")]
    File(#[from] io::Error),
    #[error("{0} is in use by another process; is belfry running already?")]
    InUse(String),
    #[error(
        "{0} has a second name (a hard link), and SQLite would keep one log for each name: remove the other name"
    )]
    HardLinks(String),
    #[error("{text}; run `belfry migrate`", text = reason::NOT_MIGRATED)]
    NotMigrated,
    #[error("an earlier call failed recently: {text}", text = .0.reason())]
    Recent(Fault),
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
            Self::File(_) | Self::InUse(_) | Self::HardLinks(_) => true,
            Self::NotMigrated | Self::Recent(_) => false,
        }
    }

    /// The fault of the file, if one made the call fail.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.primary_code().and_then(fault)
    }

    /// The primary result code; an error has an extended one, of which this is the low byte.
    fn primary_code(&self) -> Option<i32> {
        let Self::Sql(error) = self else { return None };
        let code = error.database_error()?.code()?;
        code.parse::<i32>().ok().map(|code| code & 0xff)
    }

    fn reason(&self) -> &'static str {
        match (self, self.primary_code()) {
            (Self::NotMigrated, _) | (_, Some(SQLITE_ERROR)) => reason::NOT_MIGRATED,
            (Self::Recent(fault), _) => fault.reason(),
            (_, Some(SQLITE_BUSY | SQLITE_LOCKED)) => reason::LOCKED,
            (_, code) => code.and_then(fault).map_or(reason::NO_ANSWER, Fault::reason),
        }
    }
}

/// For the statements of a readiness check: a table or a column is missing.
const SQLITE_ERROR: i32 = 1;
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;

/// The fault that a primary result code means: `READONLY` 8, `IOERR` 10, `CORRUPT` 11, `FULL` 13,
/// `CANTOPEN` 14, `NOTADB` 26.
fn fault(code: i32) -> Option<Fault> {
    Some(match code {
        8 => Fault::ReadOnly,
        10 | 14 => Fault::Storage,
        11 | 26 => Fault::Corrupt,
        13 => Fault::Full,
        _ => return None,
    })
}

impl From<SqliteFailure> for NotReady {
    fn from(failure: SqliteFailure) -> Self {
        Self { reason: failure.reason(), error: failure.into() }
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

    #[test]
    fn fault_is_found_by_the_primary_code() {
        assert_eq!(fault(13), Some(Fault::Full));
        assert_eq!(fault(8), Some(Fault::ReadOnly));
        assert_eq!(fault(10), Some(Fault::Storage));
        assert_eq!(fault(11), Some(Fault::Corrupt));
        // ERROR, BUSY, LOCKED, CONSTRAINT
        for code in [1, 5, 6, 19] {
            assert_eq!(fault(code), None, "{code}");
        }
    }
}
