use std::sync::Arc;

use belfry_domain::{Notification, NotificationId, UserId};

use crate::ports::{InboxRepository, PortError};

/// Returns one notification of a user.
#[derive(Clone)]
pub struct GetNotification {
    inboxes: Arc<dyn InboxRepository>,
}

impl GetNotification {
    /// Reads from `inboxes`.
    pub fn new(inboxes: Arc<dyn InboxRepository>) -> Self {
        Self { inboxes }
    }

    /// The notification; `None` if this user does not have it, even if another user does.
    pub async fn run(
        &self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<Notification>, PortError> {
        self.inboxes.get(user, id).await
    }
}
