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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{InMemoryStore, a_draft, epoch, user};

    #[tokio::test]
    async fn count_is_that_of_the_user() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let drafts = ["n1", "n2"].map(|name| a_draft("ada", name));
        store.create(drafts.into()).await.unwrap();
        let count = CountUnread::new(store);
        let state = count.run(&user("ada")).await.unwrap();
        assert_eq!((state.revision.get(), state.unread.get()), (2, 2));
        assert_eq!(count.run(&user("bob")).await.unwrap(), InboxState::default());
    }
}
