use std::sync::Arc;

use belfry_domain::{Draft, Notification, Receipt};

use crate::ports::{IdempotencyKey, InboxRepository, Once, PortError};

/// Puts notifications into their recipients' inboxes. Once it answers, they are stored and will be
/// told.
#[derive(Clone)]
pub struct CreateNotification {
    inboxes: Arc<dyn InboxRepository>,
}

/// What became of a request to create notifications.
#[derive(Debug, Clone, PartialEq)]
pub enum Created {
    /// One receipt for each draft, in order.
    Now(Vec<Receipt>),
    /// The same request led to these before; nothing was done now.
    Before(Vec<Notification>),
    /// Its idempotency key was used for another request; nothing was done.
    KeyReused,
}

impl CreateNotification {
    /// Creates in that store.
    pub fn new(inboxes: Arc<dyn InboxRepository>) -> Self {
        Self { inboxes }
    }

    /// Takes drafts for one user or for many, all or none of them.
    pub async fn run(
        &self,
        drafts: Vec<Draft>,
        once: Option<IdempotencyKey>,
    ) -> Result<Created, PortError> {
        let Some(key) = once else {
            return Ok(Created::Now(self.inboxes.create(drafts).await?));
        };
        Ok(match self.inboxes.create_once(&key, drafts).await? {
            Once::Done(receipts) => Created::Now(receipts),
            Once::Before(notifications) => Created::Before(notifications),
            Once::KeyReused => Created::KeyReused,
        })
    }
}
