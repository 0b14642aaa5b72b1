use std::slice;

use belfry_application::ports::{IdempotentOutcome, PortError};
use belfry_domain::Marked;

use super::create::Create;
use super::edit::EditGroup;
use super::store::PostgresStore;
use crate::outbound::relational::{CreateWrite, EditWrite, GroupError, GroupWriter, only_outcome};

impl GroupWriter<CreateWrite> for PostgresStore {
    async fn write_group(
        &self,
        writes: &[CreateWrite],
    ) -> Result<Vec<IdempotentOutcome>, GroupError> {
        self.write_without_waiting(&Create { writes }).await
    }

    async fn write_alone(&self, write: &CreateWrite) -> Result<IdempotentOutcome, PortError> {
        only_outcome(self.write(&Create { writes: slice::from_ref(write) }).await?)
    }
}

impl GroupWriter<EditWrite> for PostgresStore {
    async fn write_group(&self, writes: &[EditWrite]) -> Result<Vec<Marked>, GroupError> {
        self.write_without_waiting(&EditGroup(writes)).await
    }

    async fn write_alone(&self, write: &EditWrite) -> Result<Marked, PortError> {
        only_outcome(self.write(&EditGroup(slice::from_ref(write))).await?)
    }
}
