use std::convert::Infallible;

use belfry_application::ports::{IdempotentOutcome, PortError};
use belfry_domain::Marked;
use sqlx::SqliteConnection;

use super::create::{create, create_once};
use super::edit::edit;
use super::failure::SqliteFailure;
use super::store::SqliteStore;
use super::write::Work;
use crate::outbound::relational::{CreateWrite, EditWrite, GroupWriter, GroupedWrite};

/// A change to inboxes, on behalf of one caller.
#[derive(Debug)]
pub(super) enum InboxWrite {
    Create(CreateWrite),
    Edit(EditWrite),
}

/// The outcome of an [`InboxWrite`] of the same name.
#[derive(Debug)]
pub(super) enum WriteOutcome {
    Create(IdempotentOutcome),
    Edit(Marked),
}

impl GroupedWrite for InboxWrite {
    type Outcome = WriteOutcome;
    /// Writes of a group run one after the other, so each finds the result of those before it.
    type Exclusive<'a> = Infallible;

    fn exclusive(&self) -> Option<Infallible> {
        None
    }

    fn rows(&self) -> usize {
        match self {
            Self::Create(create) => create.rows(),
            Self::Edit(edit) => edit.rows(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Create(create) => create.bytes(),
            Self::Edit(edit) => edit.bytes(),
        }
    }
}

impl GroupWriter<InboxWrite> for SqliteStore {
    async fn write_group(&self, writes: &[InboxWrite]) -> Result<Vec<WriteOutcome>, PortError> {
        self.write(async |connection| {
            let mut outcomes = Vec::with_capacity(writes.len());
            let mut is_written = false;
            // Creates without keys share their statements.
            for run in writes.chunk_by(|one, next| one.is_plain_create() && next.is_plain_create())
            {
                let work = write_run(connection, run).await?;
                is_written |= matches!(work, Work::Written(_));
                outcomes.extend(work.outcome());
            }
            Ok(if is_written { Work::Written(outcomes) } else { Work::Unchanged(outcomes) })
        })
        .await
    }
}

impl InboxWrite {
    const fn is_plain_create(&self) -> bool {
        matches!(self, Self::Create(CreateWrite { key: None, .. }))
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
