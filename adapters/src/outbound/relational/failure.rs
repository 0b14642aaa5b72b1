use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;

use super::stored_value::InvalidStoredValue;
use super::timestamp::TimestampOutOfRange;

/// A failure that can happen in every SQL store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SqlFailure {
    #[error("timed out waiting for a database connection from the pool")]
    PoolTimedOut,
    #[error(transparent)]
    Sqlx(sqlx::Error),
    #[error(transparent)]
    Migration(#[from] MigrateError),
    #[error(transparent)]
    InvalidValue(#[from] InvalidStoredValue),
    #[error(transparent)]
    Timestamp(#[from] TimestampOutOfRange),
}

impl From<sqlx::Error> for SqlFailure {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => Self::PoolTimedOut,
            other => Self::Sqlx(other),
        }
    }
}

impl SqlFailure {
    pub(crate) fn database_error(&self) -> Option<&dyn DatabaseError> {
        match self {
            Self::Sqlx(error)
            | Self::Migration(
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _),
            ) => error.as_database_error(),
            _ => None,
        }
    }

    /// Whether the database or the store rejects this request in particular. `is_about_data` judges
    /// the database's error code.
    pub(crate) fn is_rejection(&self, is_about_data: impl FnOnce(&str) -> bool) -> bool {
        if let Some(error) = self.database_error() {
            return is_about_data(&error.code().unwrap_or_default());
        }
        match self {
            Self::Sqlx(error) => is_about_values(error),
            Self::PoolTimedOut
            | Self::Migration(MigrateError::Execute(_) | MigrateError::ExecuteMigration(..)) => {
                false
            }
            Self::Migration(_) | Self::InvalidValue(_) | Self::Timestamp(_) => true,
        }
    }
}

/// Whether an error without a database error code is caused by this request's values: they cannot
/// be encoded as parameters, or the stored values cannot be decoded. Any other error (network, pool
/// exhausted or closed, …) would affect other requests too.
fn is_about_values(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Configuration(_)
            | sqlx::Error::InvalidArgument(_)
            | sqlx::Error::Encode(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::TypeNotFound { .. }
    )
}
