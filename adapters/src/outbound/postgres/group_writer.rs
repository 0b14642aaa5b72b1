use belfry_application::ports::IdempotentOutcome;
use belfry_domain::Marked;

use super::create::Create;
use super::edit::EditGroup;
use super::store::PostgresStore;
use crate::outbound::relational::{CreateWrite, EditWrite, GroupError, GroupWriter};

impl GroupWriter<CreateWrite> for PostgresStore {
    async fn write_group(
        &self,
        writes: &[CreateWrite],
    ) -> Result<Vec<IdempotentOutcome>, GroupError> {
        let create = Create { writes };
        if writes.len() == 1 {
            return Ok(self.write(&create).await?);
        }
        self.write_unless_contended(&create).await
    }
}

impl GroupWriter<EditWrite> for PostgresStore {
    async fn write_group(&self, writes: &[EditWrite]) -> Result<Vec<Marked>, GroupError> {
        let edits = EditGroup(writes);
        if writes.len() == 1 {
            return Ok(self.write(&edits).await?);
        }
        self.write_unless_contended(&edits).await
    }
}
