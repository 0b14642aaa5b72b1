//! The requirements on the server and on the schema.

use sqlx::PgConnection;
use sqlx::migrate::Migrator;

use super::failure::{MIN_VERSION, PgFailure, UnsupportedServer};
use crate::outbound::relational::is_migrated;
use crate::outbound::relational::statements::APPLIED_MIGRATIONS;

const SERVER: &str = "
    SELECT current_setting('server_encoding'), current_setting('server_version_num')::int";

/// `Unsupported` if the server is too old, or the database has an encoding without every character.
pub(super) async fn check_server(connection: &mut PgConnection) -> Result<(), PgFailure> {
    let (encoding, version): (String, i32) = sqlx::query_as(SERVER).fetch_one(connection).await?;
    Ok(is_supported(&encoding, version)?)
}

fn is_supported(encoding: &str, version: i32) -> Result<(), UnsupportedServer> {
    // 150004 is version 15.4.
    let major = version / 10_000;
    if major < MIN_VERSION {
        return Err(UnsupportedServer::Version(major));
    }
    if encoding != "UTF8" {
        return Err(UnsupportedServer::Encoding(encoding.to_owned()));
    }
    Ok(())
}

/// `NotMigrated` if a migration of this version has not been applied.
pub(super) async fn check_schema(connection: &mut PgConnection) -> Result<(), PgFailure> {
    let applied: Vec<i64> = sqlx::query_scalar(APPLIED_MIGRATIONS).fetch_all(connection).await?;
    if is_migrated(&migrations(), &applied) { Ok(()) } else { Err(PgFailure::NotMigrated) }
}

pub(super) fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!("../migrations/postgres");
    migrations.set_ignore_missing(true);
    migrations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_and_other_encodings_are_unsupported() {
        assert!(is_supported("UTF8", 140_000).is_ok());
        assert!(is_supported("UTF8", 180_001).is_ok());
        let old = is_supported("UTF8", 130_022).unwrap_err().to_string();
        assert!(old.contains("PostgreSQL 13") && old.contains("14 or newer"), "{old}");
        for encoding in ["WIN1252", "SQL_ASCII", "LATIN1"] {
            let other = is_supported(encoding, 150_004).unwrap_err().to_string();
            assert!(other.contains(encoding) && other.contains("UTF8"), "{other}");
        }
    }
}
