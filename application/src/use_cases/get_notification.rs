use std::sync::Arc;

use belfry_domain::{Notification, NotificationId, UserId};

use crate::ports::{InboxRepository, PortError};

/// A user looks at one notification.
#[derive(Clone)]
pub struct GetNotification {
    inboxes: Arc<dyn InboxRepository>,
}

impl GetNotification {
    /// Reads from that store.
    pub fn new(inboxes: Arc<dyn InboxRepository>) -> Self {
        Self { inboxes }
    }

    /// The notification; `None` if this user has no such, whoever else may.
    pub async fn run(
        &self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<Notification>, PortError> {
        self.inboxes.get(user, id).await
    }
}
