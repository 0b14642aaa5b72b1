use std::sync::Arc;

use belfry_domain::{InboxState, UserId};

use crate::ports::{InboxRepository, PortError};

/// A bell asks for its badge.
#[derive(Clone)]
pub struct CountUnread {
    inboxes: Arc<dyn InboxRepository>,
}

impl CountUnread {
    /// Reads from that store.
    pub fn new(inboxes: Arc<dyn InboxRepository>) -> Self {
        Self { inboxes }
    }

    /// How many are unread, and as of which revision.
    pub async fn run(&self, user: &UserId) -> Result<InboxState, PortError> {
        self.inboxes.state(user).await
    }
}
