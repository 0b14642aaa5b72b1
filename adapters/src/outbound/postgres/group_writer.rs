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
        self.write_of_group(writes.len(), &Create { writes }).await
    }
}

impl GroupWriter<EditWrite> for PostgresStore {
    async fn write_group(&self, writes: &[EditWrite]) -> Result<Vec<Marked>, GroupError> {
        self.write_of_group(writes.len(), &EditGroup(writes)).await
    }
}
