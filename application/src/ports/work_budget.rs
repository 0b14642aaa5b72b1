use async_trait::async_trait;
use belfry_domain::UserId;

/// Each user's budget of work on this node. The replays to a user's devices share the budget with the user's
/// own requests, so that no user can keep the store busy at the expense of others.
#[async_trait]
pub trait WorkBudget: Send + Sync {
    /// Waits until the user has some budget left.
    async fn available(&self, user: &UserId);

    /// Charges the user for notifications that were read from the store for a replay, by their number and the
    /// size of their texts in bytes. The charge may exceed the budget; then the user's next work waits.
    fn charge(&self, user: &UserId, notifications: usize, text_bytes: usize);
}
