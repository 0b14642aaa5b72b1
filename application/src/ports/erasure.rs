use async_trait::async_trait;
use belfry_domain::UserId;

use crate::port_error::PortError;

/// Erases users from the store.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait Erasure: Send + Sync {
    /// Erases a user in one transaction: notifications and their tombstones, the inbox, events in the outbox,
    /// and idempotency keys that the user sent or with which notifications for the user were created. A key
    /// with which notifications for other users were created too is kept, without those of this user. The
    /// store then has no data of the user, with two exceptions:
    ///
    /// - The user's revocation stays until [`super::Retention::purge_revocations`], because revoked tokens
    ///   would otherwise be valid again.
    /// - If there was an inbox, the outbox has one event for the user, [`belfry_domain::Change::Erased`], as
    ///   [`belfry_domain::Inbox::erase`] returns it. Every inbox that is created later, for any user, starts
    ///   at the highest revision of these events ([`belfry_domain::Inbox::starting_at`]).
    ///
    /// Concurrent changes of the inbox come before the erasure and are erased, or come after it and start a
    /// new inbox. If the store has no data of the user, nothing changes.
    async fn erase(&self, user: &UserId) -> Result<Erased, PortError>;
}

/// The number of items that an erasure removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Erased {
    /// Whether there was an inbox. If so, the outbox has an event for the user's devices.
    pub inbox: bool,
    /// Notifications, including tombstones.
    pub notifications: u64,
    /// Idempotency keys, including those that are kept for other users.
    pub idempotency_keys: u64,
    /// Events that were not published yet, or that are not published because they could not be parsed.
    pub events: u64,
}
