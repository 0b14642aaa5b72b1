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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{InMemoryStore, ManualClock, a_draft, at, epoch, id, user};

    #[tokio::test]
    async fn state_after_the_call_is_returned_whether_or_not_anything_changed() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let drafts = ["n1", "n2"].map(|name| a_draft("ada", name));
        store.create(drafts.into()).await.unwrap();
        let mark = MarkAllRead::new(store.clone(), Arc::new(ManualClock::at(5)));
        for _ in 0..2 {
            let state = mark.run(&user("ada")).await.unwrap();
            assert_eq!((state.revision.get(), state.unread.get()), (3, 0));
        }
        let read = store.get(&user("ada"), &id("n1")).await.unwrap().unwrap();
        assert_eq!(read.read_at, Some(at(5)));
    }
}
