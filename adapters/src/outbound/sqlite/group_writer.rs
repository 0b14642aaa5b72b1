use belfry_application::ports::PortError;
use sqlx::SqliteConnection;

use super::create::{create, create_once};
use super::edit::edit;
use super::failure::SqliteFailure;
use super::inbox_write::{InboxWrite, WriteOutcome};
use super::store::SqliteStore;
use super::write::Work;
use crate::outbound::relational::{CreateWrite, GroupError, GroupWriter, only_outcome};

impl GroupWriter<InboxWrite> for SqliteStore {
    async fn write_group(&self, writes: &[InboxWrite]) -> Result<Vec<WriteOutcome>, GroupError> {
        let outcomes = self
            .write(async |connection| {
                let mut outcomes = Vec::with_capacity(writes.len());
                let mut is_written = false;
                // Creates without keys share their statements.
                for run in
                    writes.chunk_by(|one, next| one.is_plain_create() && next.is_plain_create())
                {
                    let work = write_run(connection, run).await?;
                    is_written |= matches!(work, Work::Written(_));
                    outcomes.extend(work.outcome());
                }
                Ok(if is_written { Work::Written(outcomes) } else { Work::Unchanged(outcomes) })
            })
            .await?;
        Ok(outcomes)
    }

    /// SQLite locks no single inbox.
    async fn write_alone(&self, write: &InboxWrite) -> Result<WriteOutcome, PortError> {
        match self.write_group(std::slice::from_ref(write)).await {
            Ok(outcomes) => only_outcome(outcomes),
            Err(GroupError::Port(error)) => Err(error),
            Err(GroupError::Contended) => Err(PortError::failed("the write is contended")),
        }
    }
}

/// Executes one write, or several creates without keys.
async fn write_run(
    connection: &mut SqliteConnection,
    run: &[InboxWrite],
) -> Result<Work<Vec<WriteOutcome>>, SqliteFailure> {
    match run {
        [InboxWrite::Edit(write)] => {
            Ok(edit(connection, write).await?.map(|marked| vec![WriteOutcome::Edit(marked)]))
        }
        [InboxWrite::Create(write @ CreateWrite { key: Some(key), .. })] => {
            let work = create_once(connection, key, write).await?;
            Ok(work.map(|outcome| vec![WriteOutcome::Create(outcome)]))
        }
        creates => {
            let creates: Vec<_> = creates
                .iter()
                .filter_map(|write| match write {
                    InboxWrite::Create(create) => Some(create),
                    InboxWrite::Edit(_) => None,
                })
                .collect();
            let work = create(connection, &creates).await?;
            Ok(work.map(|plan| {
                let outcomes = plan.outcomes(creates.iter().map(|create| create.drafts.len()));
                outcomes.map(WriteOutcome::Create).collect()
            }))
        }
    }
}
