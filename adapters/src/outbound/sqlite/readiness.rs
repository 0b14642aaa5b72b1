use super::failure::SqliteFailure;
use super::store::{SqliteStore, migrations};
use super::write::Work;
use crate::outbound::relational::statements::APPLIED_MIGRATIONS;
use crate::outbound::relational::{NotReady, is_migrated};

/// Needs a place in the file's log, and changes nothing.
const TEST_WRITE: &str = "UPDATE store SET epoch = epoch";

impl SqliteStore {
    /// Checks that the store can do its work: the schema is that of this version, the file can be
    /// written, and no write has failed lately because of the file.
    pub async fn check(&self) -> Result<(), NotReady> {
        let recent = self.faults.recent();
        let checked = async {
            self.check_schema().await?;
            // A write that commits costs a sync of the disk, so it follows only a failure.
            let write = recent.is_some();
            self.in_transaction(async |connection| {
                if write {
                    sqlx::query(TEST_WRITE).execute(connection).await?;
                }
                Ok(if write { Work::Written(()) } else { Work::Unchanged(()) })
            })
            .await
        };
        match (checked.await, recent) {
            (Err(failure), _) => Err(failure.into()),
            (Ok(_), Some(fault)) => Err(SqliteFailure::Recent(fault).into()),
            (Ok(_), None) => Ok(()),
        }
    }

    async fn check_schema(&self) -> Result<(), SqliteFailure> {
        let applied = sqlx::query_scalar(APPLIED_MIGRATIONS);
        let applied: Vec<i64> =
            self.read(async |connection| Ok(applied.fetch_all(connection).await?)).await?;
        if is_migrated(&migrations(), &applied) { Ok(()) } else { Err(SqliteFailure::NotMigrated) }
    }
}
