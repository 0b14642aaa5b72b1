use std::sync::Arc;

use belfry_domain::{Epoch, InboxState, Notification, Revision, UserId};

use crate::ports::{InboxRepository, ListFilter, PortError};

/// A user looks through their inbox.
#[derive(Clone)]
pub struct ListInbox {
    inboxes: Arc<dyn InboxRepository>,
}

/// A part of an inbox, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct InboxPage {
    /// The notifications.
    pub items: Vec<Notification>,
    /// Where the next page begins ([`ListFilter::before`]); `None` after the last one.
    pub next: Option<Revision>,
    /// Where the inbox stood just before the page was read: a device that goes on from this
    /// revision may be told something that it sees here, and misses nothing.
    pub state: InboxState,
    /// Which store the revisions belong to.
    pub epoch: Epoch,
}

impl ListInbox {
    /// The most notifications on one page.
    pub const MAX_LIMIT: usize = 100;

    /// Reads from that store.
    pub fn new(inboxes: Arc<dyn InboxRepository>) -> Self {
        Self { inboxes }
    }

    /// One page of at most `limit` (and never more than [`ListInbox::MAX_LIMIT`]).
    pub async fn run(
        &self,
        user: &UserId,
        filter: &ListFilter,
        limit: usize,
    ) -> Result<InboxPage, PortError> {
        let limit = limit.clamp(1, Self::MAX_LIMIT);
        let epoch = self.inboxes.epoch().await?;
        let state = self.inboxes.state(user).await?;
        // One more than asked for tells whether there is a next page.
        let mut items = self.inboxes.list(user, filter, limit + 1).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| last.created_revision);
        Ok(InboxPage { items, next, state, epoch })
    }
}
