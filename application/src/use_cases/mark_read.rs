use std::sync::Arc;

use belfry_domain::{InboxState, NotificationId, UserId};

use crate::ports::{Clock, InboxRepository, PortError};

/// A user has read some notifications.
#[derive(Clone)]
pub struct MarkRead {
    inboxes: Arc<dyn InboxRepository>,
    clock: Arc<dyn Clock>,
}

impl MarkRead {
    /// Marks in that store, by that clock.
    pub fn new(inboxes: Arc<dyn InboxRepository>, clock: Arc<dyn Clock>) -> Self {
        Self { inboxes, clock }
    }

    /// Marks those that are in the user's inbox, and says where it stands then. Marking twice, or
    /// what is not there, changes nothing.
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
