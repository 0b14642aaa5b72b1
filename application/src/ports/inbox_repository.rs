use async_trait::async_trait;
use belfry_domain::{
    DomainEvent, Draft, Epoch, InboxState, Kind, Marked, MissedChange, Notification,
    NotificationId, Receipt, Revision, Timestamp, UserId,
};

use super::PortError;

/// Every user's inbox, kept for good.
///
/// [`belfry_domain::Inbox`] is the reference: whatever is done through this port changes an inbox as
/// it would change that one. A change and its event ([`super::Outbox`]) are written in one
/// transaction: after an `Ok` both survive a crash, after an error both did or neither. Changes of
/// one inbox happen one after another, however many come at once; every change takes the next
/// revision, without holes, and the unread count is exact at each.
///
/// A user's inbox needs no making: one in which nothing ever happened is empty, at revision zero.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait InboxRepository: Send + Sync {
    /// Names this store. Never changes for as long as its revisions mean the same.
    async fn epoch(&self) -> Result<Epoch, PortError>;

    /// Puts drafts into their inboxes, of one user or of many, in the order given; all of them in
    /// one transaction. Answers one receipt for each, in the same order. Of two drafts with the
    /// same id or dedupe key in one inbox, within one call or not, the first is taken and the other
    /// is [`Receipt::AlreadyThere`].
    async fn create(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, PortError>;

    /// Does [`create`](Self::create) once for each caller and key, however often it is asked.
    async fn create_once(
        &self,
        key: &IdempotencyKey,
        drafts: Vec<Draft>,
    ) -> Result<Once, PortError>;

    /// Marks those of `ids` as read that are in the inbox and unread; the others do not hinder that.
    /// Says which of them the inbox has never had, at the revision at which the others were marked:
    /// one that comes later, by whatever way, was not there to be marked.
    async fn mark_read(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        read_at: Timestamp,
    ) -> Result<Marked, PortError>;

    /// Marks all that is unread as read. `None` if nothing was.
    async fn mark_all_read(
        &self,
        user: &UserId,
        read_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError>;

    /// Deletes those of `ids` that are in the inbox. `None` if none is.
    async fn delete(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        deleted_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError>;

    /// One notification of that user; `None` if that user has no such, whoever else may.
    async fn get(
        &self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<Notification>, PortError>;

    /// What is in the inbox, newest first (by the revision that created it), at most `limit`.
    async fn list(
        &self,
        user: &UserId,
        filter: &ListFilter,
        limit: usize,
    ) -> Result<Vec<Notification>, PortError>;

    /// Where the inbox stands. Does not count rows.
    async fn state(&self, user: &UserId) -> Result<InboxState, PortError>;

    /// All that changed in the inbox after `since`, if that is at most `limit` notifications: each
    /// as it is at the state that is told along, and none of a later change.
    async fn history(
        &self,
        user: &UserId,
        since: Revision,
        limit: usize,
    ) -> Result<History, PortError>;
}

/// Which part of an inbox to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListFilter {
    /// Only those created by an earlier change than this one.
    pub before: Option<Revision>,
    /// Only those that are unread (`true`) or read (`false`).
    pub unread: Option<bool>,
    /// Only those of this kind.
    pub kind: Option<Kind>,
}

/// What changed since a revision.
#[derive(Debug, Clone, PartialEq)]
pub enum History {
    /// All of it, by each notification's latest change.
    Complete {
        /// Where the inbox stands after these.
        state: InboxState,
        /// What changed, deleted ones included.
        changes: Vec<MissedChange>,
    },
    /// It cannot be told: more changed than was asked for, some of it is not kept any more, or the
    /// revision lies in this inbox's future.
    OutOfReach {
        /// Where the inbox stands.
        state: InboxState,
    },
}

/// One request that must take effect once, however often it is sent
/// (draft-ietf-httpapi-idempotency-key-header).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    caller: UserId,
    key: Box<str>,
    fingerprint: Box<str>,
}

/// A text is not an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to {} printable ASCII characters", IdempotencyKey::MAX_CHARS)]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// The most characters a key has.
    pub const MAX_CHARS: usize = 200;

    /// The request that `caller` names `key`. `fingerprint` stands for its content: two requests
    /// have the same one if and only if they ask for the same.
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

    /// Whose key it is: another caller's same key is another one.
    pub fn caller(&self) -> &UserId {
        &self.caller
    }

    /// The key as the caller wrote it.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Stands for the request's content.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// What became of a request that must take effect once.
#[derive(Debug, Clone, PartialEq)]
pub enum Once {
    /// It took effect now.
    Done(Vec<Receipt>),
    /// It had before; these are the notifications it led to, as they are now.
    Before(Vec<Notification>),
    /// The key was used for a request with another fingerprint. Nothing was done.
    KeyReused,
}
