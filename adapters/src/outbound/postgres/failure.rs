use std::time::Duration;

use belfry_application::ports::PortError;
use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;

use crate::outbound::relational::{InstantOutOfRange, Unreadable, concerns_the_values};

/// Why PostgreSQL did not do it.
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
    #[error("PostgreSQL has not answered within {0:?}")]
    NoAnswer(Duration),
    #[error("others changed the same inboxes again and again")]
    Overtaken,
    #[error("the lead of the outbox was lost")]
    LeadLost,
}

impl Failure {
    /// Whether the very same may work if it is done again at once: the server has undone it because
    /// of others (SQLSTATE `40001` serialization failure, `40P01` deadlock), or somebody else has
    /// used the same idempotency key in the same moment.
    pub(super) fn is_transient(&self) -> bool {
        let Some(error) = self.database() else {
            return false;
        };
        let clash = error.constraint() == Some("idempotency_keys_pkey");
        clash || matches!(error.code().as_deref(), Some("40001" | "40P01"))
    }

    fn database(&self) -> Option<&dyn DatabaseError> {
        match self {
            Self::Sqlx(error) | Self::Migration(MigrateError::Execute(error)) => {
                error.as_database_error()
            }
            Self::Migration(MigrateError::ExecuteMigration(error, _)) => error.as_database_error(),
            _ => None,
        }
    }

    /// Whether another request would meet it as well.
    fn is_an_outage(&self) -> bool {
        match self.database() {
            Some(error) => is_an_outage(&error.code().unwrap_or_default()),
            None => true,
        }
    }

    /// Whether it is this very request that PostgreSQL, or the store itself, refuses.
    fn is_about_the_request(&self) -> bool {
        if let Some(error) = self.database() {
            return concerns_the_data(&error.code().unwrap_or_default());
        }
        match self {
            Self::Sqlx(error) => concerns_the_values(error),
            Self::Migration(MigrateError::Execute(_) | MigrateError::ExecuteMigration(..))
            | Self::NoAnswer(_)
            | Self::Overtaken
            | Self::LeadLost => false,
            Self::Migration(_) | Self::Unreadable(_) | Self::Instant(_) => true,
        }
    }
}

/// Whether an SQLSTATE says that the server can do nothing for anybody now: class 08 connection
/// exception, 28 and 3D no access, 53 insufficient resources (a full disk among them), 57P operator
/// intervention (shutdown, crash), 58 system error; 25006 read-only transaction (after a failover),
/// 42P01 undefined table (not migrated yet); 40 transaction rollback, which is for others' sake. The
/// rest (57014, a statement that took too long; XX000, an internal error; …) may be because of the
/// values.
fn is_an_outage(sqlstate: &str) -> bool {
    ["08", "25006", "28", "3D", "40", "42P01", "53", "57P", "58"]
        .iter()
        .any(|class| sqlstate.starts_with(class))
}

/// Whether an SQLSTATE (PostgreSQL manual, appendix A) is about the values it was given: class 22
/// data exception, 23 integrity constraint violation, 54 program limit exceeded.
///
/// All others are about the server, its tables or our rights, or leave it open. They are worth waiting
/// for: taken for a refusal, they would send good messages to the dead letters.
fn concerns_the_data(sqlstate: &str) -> bool {
    ["22", "23", "54"].iter().any(|class| sqlstate.starts_with(class))
}

impl From<Failure> for PortError {
    fn from(failure: Failure) -> Self {
        // As text: the error's own `Debug` holds the row that a constraint refused, and a log is no
        // place for what users are told.
        let cause = match &failure {
            Failure::Sqlx(sqlx::Error::PoolTimedOut) => {
                "no connection to PostgreSQL could be had in time".to_owned()
            }
            other => match other.database().and_then(DatabaseError::code) {
                Some(code) => format!("{other} (SQLSTATE {code})"),
                None => other.to_string(),
            },
        };
        if failure.is_about_the_request() {
            Self::rejected(cause)
        } else if failure.is_an_outage() {
            Self::unavailable(cause)
        } else {
            Self::failed(cause)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_what_is_about_the_data_is_a_refusal() {
        for refusal in ["22001", "22P02", "22P05", "23505", "23514", "54000"] {
            assert!(concerns_the_data(refusal), "{refusal}");
        }
        for passing in [
            "08006", "25006", "28P01", "3D000", "40001", "40P01", "42P01", "53100", "53300",
            "57014", "57P01", "57P03", "58030", "XX000", "",
        ] {
            assert!(!concerns_the_data(passing), "{passing}");
        }
    }

    #[test]
    fn an_outage_is_told_from_what_may_be_because_of_the_data() {
        for outage in
            ["08006", "25006", "28P01", "3D000", "40001", "42P01", "53100", "57P01", "58030"]
        {
            assert!(is_an_outage(outage), "{outage}");
        }
        for either in ["57014", "XX000", "42703", ""] {
            assert!(!is_an_outage(either), "{either}");
        }
    }

    #[test]
    fn what_never_reached_the_server_is_sorted_too() {
        let lost = sqlx::Error::Io(io::ErrorKind::ConnectionReset.into());
        for failure in [
            Failure::from(lost),
            sqlx::Error::PoolTimedOut.into(),
            sqlx::Error::PoolClosed.into(),
            sqlx::Error::Protocol("?".to_owned()).into(),
            Failure::Overtaken,
            Failure::NoAnswer(Duration::from_secs(1)),
        ] {
            let said = format!("{failure}");
            assert!(matches!(PortError::from(failure), PortError::Unavailable(_)), "{said}");
        }
        for failure in [
            Failure::from(sqlx::Error::ColumnNotFound("x".to_owned())),
            sqlx::Error::Decode("x".into()).into(),
            Unreadable::new("a title", &"it is blank").into(),
            MigrateError::VersionMismatch(1).into(),
        ] {
            let said = format!("{failure}");
            assert!(matches!(PortError::from(failure), PortError::Rejected(_)), "{said}");
        }
    }
}
