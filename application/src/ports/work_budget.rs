use async_trait::async_trait;
use belfry_domain::UserId;

/// The budget of work of each user on this node. The replays to a user's devices share it with the user's own
/// requests, so that no user keeps the store from the others.
#[async_trait]
pub trait WorkBudget: Send + Sync {
    /// Waits until the user has some budget left.
    async fn available(&self, user: &UserId);

    /// Charges the user for notifications that were read to be sent, by their number and their text in bytes. The
    /// charge may exceed the budget; then the user's next work waits.
    fn charge(&self, user: &UserId, notifications: usize, text_bytes: usize);
}
