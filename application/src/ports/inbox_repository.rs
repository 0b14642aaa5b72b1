use async_trait::async_trait;
use belfry_domain::{
    DomainEvent, Draft, Epoch, InboxState, Kind, Marked, MissedChange, Notification,
    NotificationId, Receipt, ReplayRange, Revision, Timestamp, UserId,
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

    /// What is in the inbox, newest first (by the revision that created it).
    async fn list(
        &self,
        user: &UserId,
        filter: &ListFilter,
        limit: PageLimit,
    ) -> Result<Page, PortError>;

    /// Where the inbox stands. Does not count rows.
    async fn state(&self, user: &UserId) -> Result<InboxState, PortError>;

    /// Whether everything after `since` can be replayed, as of the state that is returned with it. Reads
    /// no texts, and no more than `limit` + 1 rows.
    async fn history(
        &self,
        user: &UserId,
        since: Revision,
        limit: usize,
    ) -> Result<History, PortError>;

    /// What was created in that range and is not deleted, oldest first. Rows may be newer than the range
    /// in every other respect.
    async fn created_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: PageLimit,
    ) -> Result<Page, PortError>;

    /// What was read or deleted by its latest change in that range, by revision. There are no more after
    /// fewer than `limit` (which is at least 1) rows. Rows of the same revision as the last one are
    /// returned even past the limit: a device that heard of a revision never asks for the rest of it.
    /// What was created after `range.since` and is deleted is left out. `None` if some of the range is
    /// forgotten ([`super::Retention`]).
    async fn changed_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: usize,
    ) -> Result<Option<Vec<MissedChange>>, PortError>;
}

/// How large a page may be. A store keeps to it while it reads, so that rows that do not fit never
/// reach this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// The most notifications on it.
    pub rows: usize,
    /// The most bytes of text ([`Notification::text_bytes`]) on it. A notification that is larger comes
    /// as a page of its own, so that there is always a next page.
    pub bytes: usize,
}

impl PageLimit {
    /// A page of that many notifications, whatever their size.
    pub const fn rows(rows: usize) -> Self {
        Self { rows, bytes: usize::MAX }
    }

    /// The first of these, as many as fit.
    pub fn page_of<'a>(self, notifications: impl Iterator<Item = &'a Notification>) -> Page {
        let mut page = Page::default();
        let mut bytes = 0;
        for one in notifications {
            bytes += one.text_bytes();
            let fits =
                page.items.len() < self.rows && (bytes <= self.bytes || page.items.is_empty());
            if !fits {
                page.more = true;
                break;
            }
            page.items.push(one.clone());
        }
        page
    }
}

/// Some of the notifications that were asked for, in the order that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The notifications.
    pub items: Vec<Notification>,
    /// Whether there are more after these.
    pub more: bool,
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

/// Whether a device can be told everything since a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// It can.
    Complete {
        /// Where the inbox stands.
        state: InboxState,
        /// How many notifications were created since, and are not deleted.
        created: usize,
    },
    /// It cannot: more notifications changed than the limit, some changes are forgotten, or the revision
    /// is later than the inbox's latest.
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
