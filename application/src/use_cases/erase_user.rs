use std::sync::Arc;

use belfry_domain::UserId;
use tracing::info;

use crate::ports::{Erased, Erasure, PortError};

/// Erases a user's data from the store, for example after the user's account was closed. [`Erasure::erase`]
/// lists the data that is kept. The user's devices start over with an empty list.
#[derive(Clone)]
pub struct EraseUser {
    erasure: Arc<dyn Erasure>,
}

impl EraseUser {
    /// Erases from the store of `erasure`.
    pub fn new(erasure: Arc<dyn Erasure>) -> Self {
        Self { erasure }
    }

    /// Erases the user. The log line is the record of the erasure: after a backup is restored, the erasures
    /// since the backup must be repeated.
    pub async fn run(&self, user: &UserId) -> Result<Erased, PortError> {
        let erased = self.erasure.erase(user).await?;
        let Erased { notifications, idempotency_keys, events, .. } = erased;
        info!(erased_user = %user, notifications, idempotency_keys, events, "user erased");
        Ok(erased)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::InboxRepository as _;
    use crate::testing::{InMemoryStore, a_draft, epoch, id, user};

    #[tokio::test]
    async fn erased_items_are_counted_and_items_of_other_users_are_kept() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        store.create(vec![a_draft("ada", "n1"), a_draft("bob", "n1")]).await.unwrap();
        let erase = EraseUser::new(store.clone());
        let erased = erase.run(&user("ada")).await.unwrap();
        let expected = Erased { inbox: true, notifications: 1, idempotency_keys: 0, events: 1 };
        assert_eq!(erased, expected);
        let erased_again = erase.run(&user("ada")).await.unwrap();
        assert_eq!(erased_again.notifications, 0, "nothing is left to erase");
        assert!(store.get(&user("bob"), &id("n1")).await.unwrap().is_some());
    }
}
