use belfry_application::ports::PortError;
use sqlx::{SqliteConnection, SqliteTransaction};

use super::SqliteStore;
use super::failure::Failure;

/// What came of a piece of work.
#[derive(Debug)]
pub(super) enum Work<T> {
    /// It wrote something.
    Written(T),
    /// There was nothing to write.
    Unwritten(T),
}

impl<T> Work<T> {
    pub(super) fn outcome(self) -> T {
        match self {
            Self::Written(outcome) | Self::Unwritten(outcome) => outcome,
        }
    }
}

impl SqliteStore {
    /// Does `work` in one transaction, alone, and calls the lead of the outbox once it is committed.
    pub(super) async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<Work<T>, Failure>,
    ) -> Result<T, PortError> {
        let call = self.shared.call_when_dropped();
        match self.in_transaction(work).await? {
            Work::Written(outcome) => Ok(outcome),
            Work::Unwritten(outcome) => {
                call.spare();
                Ok(outcome)
            }
        }
    }

    /// Does `work` in one transaction, alone.
    pub(super) async fn in_transaction<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<Work<T>, Failure>,
    ) -> Result<Work<T>, Failure> {
        // Immediate: one that reads first and then finds that it may not write could only fail.
        let mut transaction: SqliteTransaction<'_> =
            self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let done = work(&mut transaction).await?;
        match done {
            Work::Written(_) => transaction.commit().await?,
            Work::Unwritten(_) => transaction.rollback().await?,
        }
        Ok(done)
    }
}

/// A list as a statement's one parameter, to be opened by `json_each`: one statement then does for
/// the whole list.
pub(super) fn list<T: serde::Serialize>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().collect();
    serde_json::to_string(&items).expect("texts and numbers always serialize")
}
