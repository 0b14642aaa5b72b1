use async_trait::async_trait;
use belfry_domain::{Due, Timestamp};

use super::PortError;

/// What makes room in a store, a little at a time: each call is one transaction that is short enough
/// to be in nobody's way. Answers are numbers; one that is smaller than `limit` says that there was
/// no more to do, or that another node is about to do it.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait Retention: Send + Sync {
    /// Deletes at most `limit` notifications that are due, of any inboxes, as
    /// [`super::InboxRepository::delete`] would: one change for each inbox, with its event in the
    /// outbox. Answers how many.
    async fn expire(&self, due: &Due, limit: usize) -> Result<usize, PortError>;

    /// Forgets at most `limit` notifications that were deleted before then. Afterwards
    /// [`super::InboxRepository::history`] is out of reach from any revision at which one of them
    /// was not deleted yet, and whoever creates one of them again makes it anew. Nothing else
    /// changes. Answers how many.
    async fn purge_deleted(
        &self,
        deleted_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError>;

    /// Forgets at most `limit` requests with an idempotency key that were made before then: the same
    /// one would take effect once more. Answers how many.
    async fn purge_requests(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError>;

    /// Forgets at most `limit` revocations that were made before then. Answers how many.
    async fn purge_revocations(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError>;
}
