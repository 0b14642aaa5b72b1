use std::sync::Arc;

use belfry_domain::{Epoch, InboxState, Notification, Revision, UserId};

use crate::ports::{InboxRepository, ListFilter, Page, PageLimit, PortError};

/// Lists the notifications of a user, page by page.
#[derive(Clone)]
pub struct ListInbox {
    inboxes: Arc<dyn InboxRepository>,
}

/// One page of an inbox, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct InboxPage {
    /// The notifications.
    pub items: Vec<Notification>,
    /// The [`ListFilter::before`] of the next page; `None` on the last page.
    pub next: Option<Revision>,
    /// The state of the inbox just before the page was read. A device that continues from this revision
    /// may receive a change that the page already shows, but misses none.
    pub state: InboxState,
    /// The store that the revisions belong to.
    pub epoch: Epoch,
}

impl ListInbox {
    /// The maximum number of notifications on a page.
    pub const MAX_LIMIT: usize = 100;

    /// The maximum size of the texts on a page with more than one notification, in bytes. Without it, a client
    /// could request a hundred of the largest notifications, about 4 MB, and not read the response. A page of
    /// this size fits into a device's send queue besides other pushes. Notifications of usual size do not
    /// reach the limit.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// Reads from `inboxes`.
    pub fn new(inboxes: Arc<dyn InboxRepository>) -> Self {
        Self { inboxes }
    }

    /// One page of at most `limit` notifications (1 to [`ListInbox::MAX_LIMIT`]) and at most
    /// [`ListInbox::MAX_BYTES`], but with at least one notification if there is any. A page with fewer than
    /// `limit` notifications is not necessarily the last one; see [`InboxPage::next`].
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

    /// The lengths of all pages of an inbox with `count` notifications, each with `data_bytes` of data.
    async fn lengths(data_bytes: usize, count: usize, limit: usize) -> Vec<usize> {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let data = Data::from_valid_json("x".repeat(data_bytes)).unwrap();
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
    async fn page_ends_at_the_row_limit_or_the_byte_limit() {
        assert_eq!(lengths(10, 5, 2).await, [2, 2, 1]);
        assert_eq!(lengths(10, 4, 2).await, [2, 2]);
        assert_eq!(lengths(10, 101, 1_000).await, [100, 1]);
        // 16 notifications would be 256 KiB without their other texts.
        assert_eq!(lengths(16 * 1024, 40, 100).await, [15, 15, 10]);
        assert_eq!(lengths(10, 0, 2).await, [0]);
    }
}
