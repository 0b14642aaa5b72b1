use async_trait::async_trait;
use belfry_domain::{ExpiryCutoff, Timestamp};

use crate::port_error::PortError;

/// Removes old data in small batches. Each call is one transaction, short enough not to block other
/// work. Each call returns the number of removed items. A number below `limit` means that nothing is left to
/// remove, or that another node is removing it.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait Retention: Send + Sync {
    /// Deletes at most `limit` expired notifications of any inboxes, as
    /// [`super::InboxRepository::delete`] would: one change per inbox, with its event in the outbox.
    async fn expire(&self, cutoff: &ExpiryCutoff, limit: usize) -> Result<usize, PortError>;

    /// Removes at most `limit` tombstones of notifications that were deleted before `deleted_before`.
    /// [`super::InboxRepository::history`] then returns [`super::History::OutOfReach`] for revisions
    /// before the latest of these deletions, and creating one of these notifications again succeeds.
    /// Nothing else changes.
    async fn purge_deleted(
        &self,
        deleted_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError>;

    /// Removes at most `limit` idempotency keys of requests that were made before `made_before`. The
    /// same request would then be executed again.
    async fn purge_idempotency_keys(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError>;

    /// Removes at most `limit` revocations that were made before `made_before`.
    async fn purge_revocations(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError>;
}
