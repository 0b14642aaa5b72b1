use std::sync::Arc;

use belfry_domain::{InboxState, NotificationId, UserId};

use crate::ports::{Clock, InboxRepository, PortError};

/// Deletes a notification from its user's inbox.
#[derive(Clone)]
pub struct DeleteNotification {
    inboxes: Arc<dyn InboxRepository>,
    clock: Arc<dyn Clock>,
}

impl DeleteNotification {
    /// Deletes from `inboxes`, at the time of `clock`.
    pub fn new(inboxes: Arc<dyn InboxRepository>, clock: Arc<dyn Clock>) -> Self {
        Self { inboxes, clock }
    }

    /// Deletes the notification and returns the new state; `None` if the user does not have it.
    pub async fn run(
        &self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<InboxState>, PortError> {
        let ids = std::slice::from_ref(id);
        let deleted = self.inboxes.delete(user, ids, self.clock.now()).await?;
        Ok(deleted.map(|event| event.state()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{InMemoryStore, ManualClock, a_draft, epoch, id, user};

    #[tokio::test]
    async fn only_a_notification_of_the_user_is_deleted() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let drafts = ["n1", "n2"].map(|name| a_draft("ada", name));
        store.create(drafts.into()).await.unwrap();
        let delete = DeleteNotification::new(store.clone(), Arc::new(ManualClock::at(5)));
        assert_eq!(delete.run(&user("bob"), &id("n1")).await.unwrap(), None);
        let state = delete.run(&user("ada"), &id("n1")).await.unwrap().unwrap();
        assert_eq!((state.revision.get(), state.unread.get()), (3, 1));
        assert_eq!(delete.run(&user("ada"), &id("n1")).await.unwrap(), None, "n1 is deleted");
        assert_eq!(store.get(&user("ada"), &id("n1")).await.unwrap(), None);
    }
}
