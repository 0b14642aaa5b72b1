use std::sync::Arc;

use belfry_domain::{InboxState, UserId};

use crate::ports::{Clock, InboxRepository, PortError};

/// Marks all notifications of a user as read.
#[derive(Clone)]
pub struct MarkAllRead {
    inboxes: Arc<dyn InboxRepository>,
    clock: Arc<dyn Clock>,
}

impl MarkAllRead {
    /// Marks in `inboxes`, at the time of `clock`.
    pub fn new(inboxes: Arc<dyn InboxRepository>, clock: Arc<dyn Clock>) -> Self {
        Self { inboxes, clock }
    }

    /// Marks all unread notifications and returns the new state.
    pub async fn run(&self, user: &UserId) -> Result<InboxState, PortError> {
        match self.inboxes.mark_all_read(user, self.clock.now()).await? {
            Some(event) => Ok(event.state()),
            None => self.inboxes.state(user).await,
        }
    }
}
