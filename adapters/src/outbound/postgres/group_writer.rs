use belfry_application::ports::{IdempotentOutcome, PortError};
use belfry_domain::Marked;

use super::create::Create;
use super::edit::EditGroup;
use super::store::PostgresStore;
use crate::outbound::relational::{CreateWrite, EditWrite, GroupWriter};

impl GroupWriter<CreateWrite> for PostgresStore {
    async fn write_group(
        &self,
        writes: &[CreateWrite],
    ) -> Result<Vec<IdempotentOutcome>, PortError> {
        self.write(&Create { writes }).await
    }
}

impl GroupWriter<EditWrite> for PostgresStore {
    async fn write_group(&self, writes: &[EditWrite]) -> Result<Vec<Marked>, PortError> {
        self.write(&EditGroup(writes)).await
    }
}
