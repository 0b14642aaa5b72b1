use std::sync::Arc;

use belfry_domain::{InboxState, UserId};

use crate::ports::{InboxRepository, PortError};

/// Returns the unread count of an inbox.
#[derive(Clone)]
pub struct CountUnread {
    inboxes: Arc<dyn InboxRepository>,
}

impl CountUnread {
    /// Reads from `inboxes`.
    pub fn new(inboxes: Arc<dyn InboxRepository>) -> Self {
        Self { inboxes }
    }

    /// The unread count and the revision that it belongs to.
    pub async fn run(&self, user: &UserId) -> Result<InboxState, PortError> {
        self.inboxes.state(user).await
    }
}
