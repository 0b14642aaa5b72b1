use std::io;

use belfry_application::ports::PortError;
use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;

use crate::outbound::relational::{InstantOutOfRange, Unreadable, concerns_the_values};

/// Why SQLite did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
    #[error(transparent)]
    Migration(#[from] MigrateError),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Instant(#[from] InstantOutOfRange),
    #[error("the database file cannot be made: {0}")]
    File(#[from] io::Error),
    #[error("{0} is in use by another process; is belfry running already?")]
    InUse(String),
}

impl Failure {
    fn database(&self) -> Option<&dyn DatabaseError> {
        match self {
            Self::Sqlx(error) | Self::Migration(MigrateError::Execute(error)) => {
                error.as_database_error()
            }
            Self::Migration(MigrateError::ExecuteMigration(error, _)) => error.as_database_error(),
            _ => None,
        }
    }

    /// Whether it is this very request that SQLite, or the store itself, refuses.
    fn is_about_the_request(&self) -> bool {
        if let Some(error) = self.database() {
            let code = error.code().and_then(|code| code.parse().ok());
            return code.is_some_and(concerns_the_data);
        }
        match self {
            Self::Sqlx(error) => concerns_the_values(error),
            Self::Migration(MigrateError::Execute(_) | MigrateError::ExecuteMigration(..)) => false,
            Self::Migration(_)
            | Self::Unreadable(_)
            | Self::Instant(_)
            | Self::File(_)
            | Self::InUse(_) => true,
        }
    }
}

/// Whether a result code (<https://sqlite.org/rescode.html>) is about the values it was given:
/// `TOOBIG` 18, `CONSTRAINT` 19, `MISMATCH` 20, `RANGE` 25. All others (`BUSY` 5, `LOCKED` 6,
/// `READONLY` 8, `IOERR` 10, `FULL` 13, …) are about the file, and another request that writes would
/// meet them too until somebody has helped it.
fn concerns_the_data(code: i32) -> bool {
    // The low byte is the primary code, what is above it says more about it.
    matches!(code & 0xff, 18 | 19 | 20 | 25)
}

impl From<Failure> for PortError {
    fn from(failure: Failure) -> Self {
        let cause = match &failure {
            Failure::Sqlx(sqlx::Error::PoolTimedOut) => {
                "SQLite had no time for it: others were first".to_owned()
            }
            other => other.to_string(),
        };
        if failure.is_about_the_request() {
            Self::rejected(cause)
        } else {
            Self::unavailable(cause)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_about_the_data_is_a_refusal() {
        // SQLITE_CONSTRAINT_CHECK, SQLITE_CONSTRAINT_UNIQUE, SQLITE_TOOBIG, SQLITE_MISMATCH
        for refusal in [275, 2067, 18, 20] {
            assert!(concerns_the_data(refusal), "{refusal}");
        }
        // SQLITE_ERROR (no such table), BUSY, BUSY_SNAPSHOT, LOCKED, IOERR_FSYNC, FULL, READONLY
        for passing in [1, 5, 517, 6, 1034, 13, 8] {
            assert!(!concerns_the_data(passing), "{passing}");
        }
    }
}
