use std::sync::Arc;

use belfry_domain::{InboxState, NotificationId, UserId};

use crate::ports::{Clock, InboxRepository, PortError};

/// A user no longer wants to see a notification.
#[derive(Clone)]
pub struct DeleteNotification {
    inboxes: Arc<dyn InboxRepository>,
    clock: Arc<dyn Clock>,
}

impl DeleteNotification {
    /// Deletes from that store, by that clock.
    pub fn new(inboxes: Arc<dyn InboxRepository>, clock: Arc<dyn Clock>) -> Self {
        Self { inboxes, clock }
    }

    /// Deletes it and says where the inbox stands then; `None` if the user has no such notification.
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
