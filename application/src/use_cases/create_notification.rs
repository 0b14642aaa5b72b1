use std::sync::Arc;

use belfry_domain::Draft;

use crate::ports::{IdempotencyKey, IdempotentOutcome, InboxRepository, PortError};

/// Creates notifications in their recipients' inboxes. After `Ok` they are stored and will be
/// delivered.
#[derive(Clone)]
pub struct CreateNotification {
    inboxes: Arc<dyn InboxRepository>,
}

impl CreateNotification {
    /// Stores notifications in `inboxes`.
    pub fn new(inboxes: Arc<dyn InboxRepository>) -> Self {
        Self { inboxes }
    }

    /// Creates all drafts or none, for one or several users. A call with a key is executed at most
    /// once; a call without a key is always executed.
    pub async fn run(
        &self,
        drafts: Vec<Draft>,
        key: Option<IdempotencyKey>,
    ) -> Result<IdempotentOutcome, PortError> {
        match key {
            Some(key) => self.inboxes.create_once(&key, drafts).await,
            None => Ok(IdempotentOutcome::Executed(self.inboxes.create(drafts).await?)),
        }
    }
}
