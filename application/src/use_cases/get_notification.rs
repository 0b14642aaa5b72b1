use std::sync::Arc;

use belfry_domain::{Notification, NotificationId, UserId};

use crate::ports::{InboxRepository, PortError};

/// Returns one notification of a user.
#[derive(Clone)]
pub struct GetNotification {
    inboxes: Arc<dyn InboxRepository>,
}

impl GetNotification {
    /// Reads from `inboxes`.
    pub fn new(inboxes: Arc<dyn InboxRepository>) -> Self {
        Self { inboxes }
    }

    /// The notification; `None` if this user does not have it, even if another user does.
    pub async fn run(
        &self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<Notification>, PortError> {
        self.inboxes.get(user, id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{InMemoryStore, a_draft, epoch, id, user};

    #[tokio::test]
    async fn only_a_notification_of_the_user_is_returned() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        store.create(vec![a_draft("ada", "n1")]).await.unwrap();
        let get = GetNotification::new(store);
        let found = get.run(&user("ada"), &id("n1")).await.unwrap();
        assert_eq!(found.map(|notification| notification.id), Some(id("n1")));
        assert_eq!(get.run(&user("bob"), &id("n1")).await.unwrap(), None);
    }
}
