use std::sync::Arc;

use belfry_domain::{InboxState, NotificationId, UserId};

use crate::ports::{Clock, InboxRepository, PortError};

/// Deletes a notification from its user's inbox.
#[derive(Clone)]
pub struct DeleteNotification {
    inboxes: Arc<dyn InboxRepository>,
    clock: Arc<dyn Clock>,
}

impl DeleteNotification {
    /// Deletes from `inboxes`, at the time of `clock`.
    pub fn new(inboxes: Arc<dyn InboxRepository>, clock: Arc<dyn Clock>) -> Self {
        Self { inboxes, clock }
    }

    /// Deletes the notification and returns the new state; `None` if the user does not have it.
    pub async fn run(
        &self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<InboxState>, PortError> {
        let ids = std::slice::from_ref(id);
        let deleted = self.inboxes.delete(user, ids, self.clock.now()).await?;
        Ok(deleted.map(|event| event.state()))
    }
}
