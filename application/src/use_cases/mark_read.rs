use std::sync::Arc;

use belfry_domain::{InboxState, NotificationId, UserId};

use crate::ports::{Clock, InboxRepository, PortError};

/// Marks notifications of a user as read.
#[derive(Clone)]
pub struct MarkRead {
    inboxes: Arc<dyn InboxRepository>,
    clock: Arc<dyn Clock>,
}

impl MarkRead {
    /// Marks in `inboxes`, at the time of `clock`.
    pub fn new(inboxes: Arc<dyn InboxRepository>, clock: Arc<dyn Clock>) -> Self {
        Self { inboxes, clock }
    }

    /// Marks the notifications that are in the user's inbox and returns the new state. Ids that are
    /// unknown or already read change nothing.
    pub async fn run(
        &self,
        user: &UserId,
        ids: &[NotificationId],
    ) -> Result<InboxState, PortError> {
        match self.inboxes.mark_read(user, ids, self.clock.now()).await?.event {
            Some(event) => Ok(event.state()),
            None => self.inboxes.state(user).await,
        }
    }
}
