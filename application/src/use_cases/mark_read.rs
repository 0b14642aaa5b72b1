use std::sync::Arc;

use belfry_domain::{InboxState, NotificationId, UserId};

use crate::ports::{Clock, InboxRepository, PortError};

/// Marks notifications of a user as read.
#[derive(Clone)]
pub struct MarkRead {
    inboxes: Arc<dyn InboxRepository>,
    clock: Arc<dyn Clock>,
}

impl MarkRead {
    /// Marks in `inboxes`, at the time of `clock`.
    pub fn new(inboxes: Arc<dyn InboxRepository>, clock: Arc<dyn Clock>) -> Self {
        Self { inboxes, clock }
    }

    /// Marks the notifications that are in the user's inbox and returns the new state. Ids of unknown
    /// notifications, and of notifications that were read before, change nothing.
    pub async fn run(
        &self,
        user: &UserId,
        ids: &[NotificationId],
    ) -> Result<InboxState, PortError> {
        match self.inboxes.mark_read(user, ids, self.clock.now()).await?.event {
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
        let mark = MarkRead::new(store.clone(), Arc::new(ManualClock::at(5)));
        for ids in [[id("n1"), id("unknown")], [id("n1"), id("n1")]] {
            let state = mark.run(&user("ada"), &ids).await.unwrap();
            assert_eq!((state.revision.get(), state.unread.get()), (3, 1));
        }
        let read = store.get(&user("ada"), &id("n1")).await.unwrap().unwrap();
        assert_eq!(read.read_at, Some(at(5)));
    }
}
