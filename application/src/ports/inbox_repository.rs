use async_trait::async_trait;
use belfry_domain::{
    DomainEvent, Draft, Epoch, InboxState, Marked, MissedChange, Notification, NotificationId,
    NotificationKind, Receipt, ReplayRange, Revision, Timestamp, UserId,
};

use super::page::{Page, PageLimit};
use crate::port_error::PortError;

/// The durable store of all inboxes.
///
/// [`belfry_domain::Inbox`] is the reference: every call has the same effect on an inbox as the
/// corresponding method of that type. A change and its event ([`super::Outbox`]) are written in one
/// transaction: after `Ok` both survive a crash; after an error either both are written or neither.
/// Concurrent changes of one inbox are serialised. Revisions are consecutive, and the unread count is exact
/// at each revision.
///
/// An inbox does not need to be created. Before its first change it is empty and at revision zero or, if any
/// user has been erased ([`super::Erasure`]), at the highest erased revision.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait InboxRepository: Send + Sync {
    /// Identifies the store. Stays the same as long as its revisions stay valid.
    async fn epoch(&self) -> Result<Epoch, PortError>;

    /// Creates notifications for one or several users, in the given order and in one transaction.
    /// Returns one receipt per draft, in the same order. Of two drafts with the same id or dedupe key
    /// in one inbox, in one call or in two, the second is a [`Receipt::Duplicate`].
    async fn create(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, PortError>;

    /// Like [`create`](Self::create), but executed once per caller and key, however often it is called.
    async fn create_once(
        &self,
        key: &IdempotencyKey,
        drafts: Vec<Draft>,
    ) -> Result<IdempotentOutcome, PortError>;

    /// Marks the unread notifications among `ids` as read. Unknown ids do not prevent this and are
    /// returned. They are determined in the transaction of the change: a notification that is created later
    /// is unknown and not marked.
    async fn mark_read(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        read_at: Timestamp,
    ) -> Result<Marked, PortError>;

    /// Marks all unread notifications as read. `None` if there was none.
    async fn mark_all_read(
        &self,
        user: &UserId,
        read_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError>;

    /// Deletes the notifications among `ids`. `None` if the inbox has none of them.
    async fn delete(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        deleted_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError>;

    /// One notification of this user; `None` if this user's inbox does not have it, even if another user's
    /// inbox does.
    async fn get(
        &self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<Notification>, PortError>;

    /// The notifications in the inbox, newest first (by `created_revision`). For the limit in bytes, the size
    /// of a notification is [`Notification::text_bytes`].
    async fn list(
        &self,
        user: &UserId,
        filter: &ListFilter,
        limit: PageLimit,
    ) -> Result<Page<Notification>, PortError>;

    /// The revision and unread count. Both are stored; no notifications are counted.
    async fn state(&self, user: &UserId) -> Result<InboxState, PortError>;

    /// Whether all changes after `since` can be replayed, as of the returned state. They cannot if more than
    /// `limit` notifications changed. Reads at most `limit` + 1 rows, and no texts.
    async fn history(
        &self,
        user: &UserId,
        since: Revision,
        limit: usize,
    ) -> Result<History, PortError>;

    /// The notifications created in the range and not deleted, oldest first. Their read state may be
    /// newer than the range. For the limit in bytes, the size of a notification is
    /// [`Notification::text_bytes`].
    async fn created_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: PageLimit,
    ) -> Result<Page<Notification>, PortError>;

    /// The changes of notifications that were read or deleted and whose latest change is in the range,
    /// ordered by revision. Notifications that were created and deleted after `range.since` are left out.
    /// `None` if the history of the range is incomplete ([`super::Retention`]).
    ///
    /// `limit` is at least 1. If fewer than `limit` rows are returned, no more follow. All rows with the
    /// revision of the last row are returned, even if they exceed `limit`: a device that has received a
    /// revision never requests the remaining rows of that revision.
    async fn changed_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: usize,
    ) -> Result<Option<Vec<MissedChange>>, PortError>;
}

/// Selects the notifications to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListFilter {
    /// Only notifications with an earlier `created_revision`; the paging cursor.
    pub before: Option<Revision>,
    /// Only unread (`true`) or only read (`false`) notifications.
    pub unread: Option<bool>,
    /// Only notifications of this kind.
    pub kind: Option<NotificationKind>,
}

/// Whether all changes since a revision can be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// All changes can be replayed.
    Complete {
        /// The state of the inbox.
        state: InboxState,
        /// The number of notifications that were created after the revision and are not deleted.
        created: usize,
    },
    /// The changes cannot be replayed: more notifications changed than the limit, tombstones were purged,
    /// or the revision is later than the latest one.
    OutOfReach {
        /// The state of the inbox.
        state: InboxState,
    },
}

/// Identifies a request that must be executed at most once, however often it is sent
/// (draft-ietf-httpapi-idempotency-key-header).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    caller: UserId,
    key: Box<str>,
    fingerprint: Box<str>,
}

/// The text is not an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to {} printable ASCII characters", IdempotencyKey::MAX_CHARS)]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// The maximum length in characters.
    pub const MAX_CHARS: usize = 200;

    /// Checks the key of a request by `caller`. `fingerprint` identifies the request's content: two
    /// requests have the same fingerprint if and only if their content is the same.
    pub fn parse(
        caller: UserId,
        key: &str,
        fingerprint: impl Into<Box<str>>,
    ) -> Result<Self, InvalidIdempotencyKey> {
        let printable = key.bytes().all(|b| matches!(b, b' '..=b'~'));
        if key.is_empty() || key.len() > Self::MAX_CHARS || !printable {
            return Err(InvalidIdempotencyKey);
        }
        Ok(Self { caller, key: key.into(), fingerprint: fingerprint.into() })
    }

    /// The caller. Keys of different callers are independent.
    pub fn caller(&self) -> &UserId {
        &self.caller
    }

    /// The unchanged key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The fingerprint of the request's content.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// The result of a request that is executed at most once.
#[derive(Debug, Clone, PartialEq)]
pub enum IdempotentOutcome {
    /// The request was executed by this call. One receipt per draft, in their order.
    Executed(Vec<Receipt>),
    /// An earlier call executed the request. Contains the notifications of that call in their current
    /// state; nothing changed.
    Repeated(Vec<Notification>),
    /// The key was used for a request with another fingerprint. Nothing changed.
    KeyReused,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::user;

    #[test]
    fn idempotency_key_is_printable_ascii_of_limited_length() {
        let parse = |key: &str| IdempotencyKey::parse(user("shop"), key, "f");
        let longest = "k".repeat(200);
        for raw in ["k", "order 7 / ~", "8e03978e-40d5-43dd-bc93-6894a57f9324", &longest] {
            let key = parse(raw).unwrap();
            let parts = (key.caller().as_str(), key.key(), key.fingerprint());
            assert_eq!(parts, ("shop", raw, "f"));
        }
        for raw in ["", "a\nb", "a\u{7f}", "ü", &format!("{longest}k")] {
            assert_eq!(parse(raw), Err(InvalidIdempotencyKey), "{raw:?}");
        }
    }
}
