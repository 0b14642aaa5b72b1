use std::sync::Arc;

use belfry_domain::{InboxState, UserId};

use crate::ports::{Clock, InboxRepository, PortError};

/// A user has read all there is.
#[derive(Clone)]
pub struct MarkAllRead {
    inboxes: Arc<dyn InboxRepository>,
    clock: Arc<dyn Clock>,
}

impl MarkAllRead {
    /// Marks in that store, by that clock.
    pub fn new(inboxes: Arc<dyn InboxRepository>, clock: Arc<dyn Clock>) -> Self {
        Self { inboxes, clock }
    }

    /// Marks everything unread, and says where the inbox stands then.
    pub async fn run(&self, user: &UserId) -> Result<InboxState, PortError> {
        match self.inboxes.mark_all_read(user, self.clock.now()).await? {
            Some(event) => Ok(event.state()),
            None => self.inboxes.state(user).await,
        }
    }
}
