use std::sync::Arc;

use belfry_domain::{Epoch, InboxState, Notification, Revision, UserId};

use crate::ports::{InboxRepository, ListFilter, Page, PageLimit, PortError};

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

    /// The most bytes of text on one page, if it has more than one notification. A hundred of the largest
    /// would be some 4 MB, which anybody may ask for and nobody has to read; this is as much as a
    /// device's send queue takes along with everything else, and no notification of usual size meets it.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// Reads from that store.
    pub fn new(inboxes: Arc<dyn InboxRepository>) -> Self {
        Self { inboxes }
    }

    /// One page of at most `limit` notifications (never more than [`ListInbox::MAX_LIMIT`]) and
    /// [`ListInbox::MAX_BYTES`]; at least one, if there is any. A page that is shorter than `limit` is
    /// therefore not always the last one: `next` tells.
    pub async fn run(
        &self,
        user: &UserId,
        filter: &ListFilter,
        limit: usize,
    ) -> Result<InboxPage, PortError> {
        let limit = PageLimit { rows: limit.clamp(1, Self::MAX_LIMIT), bytes: Self::MAX_BYTES };
        let epoch = self.inboxes.epoch().await?;
        let state = self.inboxes.state(user).await?;
        let Page { items, more } = self.inboxes.list(user, filter, limit).await?;
        let next = items.last().filter(|_| more).map(|last| last.created_revision);
        Ok(InboxPage { items, next, state, epoch })
    }
}

#[cfg(test)]
mod tests {
    use belfry_domain::{Data, Draft};

    use super::*;
    use crate::testing::{InMemoryStore, a_draft, epoch, user};

    /// All pages of at most `limit`, as the lengths of each.
    async fn lengths(data_bytes: usize, count: usize, limit: usize) -> Vec<usize> {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let data = Data::of_checked_syntax("x".repeat(data_bytes)).unwrap();
        let drafts = (0..count)
            .map(|n| Draft { data: Some(data.clone()), ..a_draft("ada", &format!("n{n}")) });
        store.create(drafts.collect()).await.unwrap();
        let list = ListInbox::new(store);
        let (mut filter, mut lengths) = (ListFilter::default(), Vec::new());
        loop {
            let page = list.run(&user("ada"), &filter, limit).await.unwrap();
            lengths.push(page.items.len());
            filter.before = page.next;
            if page.next.is_none() {
                return lengths;
            }
        }
    }

    #[tokio::test]
    async fn a_page_ends_at_its_limit_of_rows_or_of_bytes() {
        assert_eq!(lengths(10, 5, 2).await, [2, 2, 1]);
        assert_eq!(lengths(10, 4, 2).await, [2, 2]);
        assert_eq!(lengths(10, 101, 1_000).await, [100, 1]);
        // 16 of them would be 256 KiB without their other texts.
        assert_eq!(lengths(16 * 1024, 40, 100).await, [15, 15, 10]);
        assert_eq!(lengths(10, 0, 2).await, [0]);
    }
}
