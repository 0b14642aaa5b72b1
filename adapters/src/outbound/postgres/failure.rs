use std::borrow::Cow;
use std::time::Duration;

use belfry_application::ports::PortError;
use sqlx::error::DatabaseError;

use crate::outbound::relational::{Fault, NotReady, SqlFailure, reason};

/// Why a call to PostgreSQL failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PgFailure {
    #[error(transparent)]
    Sql(SqlFailure),
    #[error("PostgreSQL did not answer within {0:?}")]
    Timeout(Duration),
    #[error("too many write conflicts: other writers kept changing the same inboxes")]
    Conflict,
    #[error("the outbox lease is lost")]
    LeaseLost,
    #[error("{text}; run `belfry migrate`", text = reason::NOT_MIGRATED)]
    NotMigrated,
    #[error("an earlier call failed recently: {text}", text = .0.reason())]
    Recent(Fault),
    #[error(transparent)]
    Unsupported(#[from] UnsupportedServer),
}

impl<E> From<E> for PgFailure
where
    SqlFailure: From<E>,
{
    fn from(error: E) -> Self {
        Self::Sql(error.into())
    }
}

/// Why Belfry cannot use a server or a database. Waiting does not help.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnsupportedServer {
    #[error(
        "the database has the encoding {0}, which cannot store every text; Belfry needs a database that was \
         created with ENCODING 'UTF8'"
    )]
    Encoding(String),
    #[error("the server is PostgreSQL {0}; Belfry needs version {min} or newer", min = MIN_VERSION)]
    Version(i32),
}

/// The oldest supported major version of PostgreSQL.
pub(super) const MIN_VERSION: i32 = 14;

impl PgFailure {
    /// Whether an immediate retry of the same write may succeed: the server rolled it back because
    /// of a concurrent transaction (SQLSTATE `40001` serialization failure, `40P01` deadlock), or a
    /// concurrent request used the same idempotency key.
    pub(super) fn is_write_conflict(&self) -> bool {
        let Some(error) = self.database_error() else {
            return false;
        };
        let key_used_twice = error.constraint() == Some("idempotency_keys_pkey");
        key_used_twice || matches!(error.code().as_deref(), Some("40001" | "40P01"))
    }

    /// Whether the connection itself may be the reason, so that the same statement may succeed on a
    /// new one:
    ///
    /// - `0A000` "cached plan must not change result type" and `XX000` internal error: a table was
    ///   changed or replaced after the connection had planned the statement;
    /// - `26000` the server has no such prepared statement;
    /// - `25006` read-only transaction: after a failover the connection leads to the old primary, or
    ///   `default_transaction_read_only` of the role or database was changed, which takes effect only in new
    ///   sessions;
    /// - `42501` insufficient privilege and `42P01` undefined table: the role was created again, or
    ///   its search path was changed.
    ///
    /// The server has rolled the statement back.
    pub(super) fn may_be_stale_connection(&self) -> bool {
        matches!(
            self.sqlstate().as_deref(),
            Some("0A000" | "25006" | "26000" | "42501" | "42P01" | "XX000")
        )
    }

    /// The fault of the database, if one made the call fail.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.sqlstate().as_deref().and_then(fault_of_code)
    }

    fn sqlstate(&self) -> Option<Cow<'_, str>> {
        self.database_error()?.code()
    }

    /// The reason for [`NotReady`]. Correct only for the statements of a readiness check.
    fn reason(&self) -> &'static str {
        match (self, self.sqlstate().as_deref()) {
            (Self::NotMigrated, _) | (_, Some("42P01" | "42703")) => reason::NOT_MIGRATED,
            (Self::Unsupported(_), _) => reason::UNSUPPORTED,
            (Self::Recent(fault), _) => fault.reason(),
            (_, code) => code.and_then(fault_of_code).map_or(reason::NO_ANSWER, Fault::reason),
        }
    }

    fn database_error(&self) -> Option<&dyn DatabaseError> {
        match self {
            Self::Sql(error) => error.database_error(),
            _ => None,
        }
    }

    /// Whether the content of the request is certainly not the reason.
    fn is_outage(&self) -> bool {
        match self.database_error() {
            Some(error) => is_outage_code(&error.code().unwrap_or_default()),
            None => true,
        }
    }

    /// Whether the same request would fail again, because of its values or because the server is unsupported.
    fn is_rejection(&self) -> bool {
        match self {
            Self::Sql(error) => error.is_rejection(is_about_data),
            Self::Unsupported(_) => true,
            _ => false,
        }
    }
}

/// The fault that an SQLSTATE indicates: `25006` read-only transaction, `42501` insufficient privilege,
/// `53100` disk full, class `58` system error, `XX001` and `XX002` damaged data or index.
fn fault_of_code(sqlstate: &str) -> Option<Fault> {
    Some(match sqlstate {
        "25006" => Fault::ReadOnly,
        "42501" => Fault::Privilege,
        "53100" => Fault::Full,
        "XX001" | "XX002" => Fault::Corrupt,
        code if code.starts_with("58") => Fault::Storage,
        _ => return None,
    })
}

impl From<PgFailure> for NotReady {
    fn from(failure: PgFailure) -> Self {
        Self { reason: failure.reason(), error: failure.into() }
    }
}

/// Whether an SQLSTATE is certainly not due to the values of a request, so that other requests may fail too:
/// class 08 connection exception, 28 and 3D no access, 53 insufficient resources (such as a full disk), 57P
/// operator intervention (shutdown, crash), 58 system error; 25006 read-only transaction (after a failover),
/// 42501 insufficient privilege, 42P01 undefined table and 42703 undefined column (not migrated yet);
/// 40 transaction rollback, which concurrent transactions cause. Any other code may be due to the values,
/// such as 57014 statement timeout and XX000 internal error.
fn is_outage_code(sqlstate: &str) -> bool {
    ["08", "25006", "28", "3D", "40", "42501", "42P01", "42703", "53", "57P", "58"]
        .iter()
        .any(|class| sqlstate.starts_with(class))
}

/// Whether an SQLSTATE (PostgreSQL manual, appendix A) is about the given values: class 22 data
/// exception, 23 integrity constraint violation, 54 program limit exceeded.
///
/// All others are about the server, its tables or privileges, or are ambiguous. They are worth
/// a retry: classified as a rejection, they would send valid messages to the dead-letter queue.
fn is_about_data(sqlstate: &str) -> bool {
    ["22", "23", "54"].iter().any(|class| sqlstate.starts_with(class))
}

impl From<PgFailure> for PortError {
    fn from(failure: PgFailure) -> Self {
        // The cause becomes a text because the error's `Debug` contains the row that violates a
        // constraint, and the texts of notifications must not be logged.
        let cause = match failure.database_error().and_then(DatabaseError::code) {
            Some(code) => format!("{failure} (SQLSTATE {code})"),
            None => failure.to_string(),
        };
        if failure.is_rejection() {
            Self::rejected(cause)
        } else if failure.is_outage() {
            Self::unavailable(cause)
        } else {
            Self::failed(cause)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use sqlx::migrate::MigrateError;

    use super::*;
    use crate::outbound::relational::inbox_state;

    #[test]
    fn only_errors_about_the_data_are_rejections() {
        for rejection in ["22001", "22P02", "22P05", "23505", "23514", "54000"] {
            assert!(is_about_data(rejection), "{rejection}");
        }
        for not_about_data in [
            "08006", "25006", "28P01", "3D000", "40001", "40P01", "42P01", "53100", "53300",
            "57014", "57P01", "57P03", "58030", "XX000", "",
        ] {
            assert!(!is_about_data(not_about_data), "{not_about_data}");
        }
    }

    #[test]
    fn outage_is_distinguished_from_errors_that_the_data_may_cause() {
        for outage in [
            "08006", "25006", "28P01", "3D000", "40001", "42501", "42P01", "42703", "53100",
            "57P01", "58030",
        ] {
            assert!(is_outage_code(outage), "{outage}");
        }
        for ambiguous in ["57014", "XX000", ""] {
            assert!(!is_outage_code(ambiguous), "{ambiguous}");
        }
    }

    #[test]
    fn errors_without_an_sqlstate_are_classified() {
        let lost = sqlx::Error::Io(io::ErrorKind::ConnectionReset.into());
        for failure in [
            PgFailure::from(lost),
            sqlx::Error::PoolTimedOut.into(),
            sqlx::Error::PoolClosed.into(),
            sqlx::Error::Protocol("?".to_owned()).into(),
            PgFailure::Conflict,
            PgFailure::NotMigrated,
            PgFailure::Recent(Fault::Full),
            PgFailure::Timeout(Duration::from_secs(1)),
        ] {
            let text = failure.to_string();
            assert!(matches!(PortError::from(failure), PortError::Unavailable(_)), "{text}");
        }
        for failure in [
            PgFailure::from(sqlx::Error::ColumnNotFound("x".to_owned())),
            sqlx::Error::Decode("x".into()).into(),
            inbox_state(-1, 0).unwrap_err().into(),
            UnsupportedServer::Version(13).into(),
            MigrateError::VersionMismatch(1).into(),
        ] {
            let text = failure.to_string();
            assert!(matches!(PortError::from(failure), PortError::Rejected(_)), "{text}");
        }
    }
}
