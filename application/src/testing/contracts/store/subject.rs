use std::sync::Arc;

use belfry_domain::{
    Change, Data, DomainEvent, Draft, ExpiryCutoff, Link, Marked, Message, MissedChange,
    Notification, NotificationId, NotificationKind, Priority, Receipt, ReplayBatch, ReplayRange,
    Revision,
};

use crate::ports::{
    Erased, Erasure, EventHeader, History, IdempotencyKey, InboxRepository, ListFilter, Outbox,
    OutboxEntry, OutboxLease, Page, PageLimit, Retention, Revocations,
};
use crate::testing::samples::{a_draft, at, id, user};

/// The store under test, as each of its five ports. Each contract test needs a new, empty store.
#[derive(Clone)]
pub struct Store {
    pub(super) inboxes: Arc<dyn InboxRepository>,
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) retention: Arc<dyn Retention>,
    pub(super) revocations: Arc<dyn Revocations>,
    pub(super) erasure: Arc<dyn Erasure>,
    /// The wire form that the body of an outbox entry must have.
    encode_event: fn(&DomainEvent) -> String,
}

impl Store {
    /// Wraps a store that implements all five ports and whose outbox entries have the body that
    /// `encode_event` returns, byte for byte.
    pub fn of<S>(store: S, encode_event: fn(&DomainEvent) -> String) -> Self
    where
        S: InboxRepository + Outbox + Retention + Revocations + Erasure + 'static,
    {
        let store = Arc::new(store);
        Self {
            inboxes: store.clone(),
            outbox: store.clone(),
            retention: store.clone(),
            revocations: store.clone(),
            erasure: store,
            encode_event,
        }
    }

    /// The same store behind decorators of its inboxes and its outbox.
    #[must_use]
    pub fn decorated(
        self,
        inboxes: impl FnOnce(Arc<dyn InboxRepository>) -> Arc<dyn InboxRepository>,
        outbox: impl FnOnce(Arc<dyn Outbox>) -> Arc<dyn Outbox>,
    ) -> Self {
        Self { inboxes: inboxes(self.inboxes), outbox: outbox(self.outbox), ..self }
    }

    pub(super) async fn create(&self, drafts: Vec<Draft>) -> Vec<Receipt> {
        self.inboxes.create(drafts).await.expect("create")
    }

    /// Creates notifications and returns the events.
    pub(super) async fn created_events(&self, drafts: Vec<Draft>) -> Vec<DomainEvent> {
        let event = |receipt| match receipt {
            Receipt::Created(event) => Some(event),
            Receipt::Duplicate(_) | Receipt::Deleted(_) => None,
        };
        self.create(drafts).await.into_iter().filter_map(event).collect()
    }

    /// Creates the notifications `n1`, `n2` … without optional fields.
    pub(super) async fn create_plain(&self, name: &str, count: usize) {
        let drafts = (1..=count).map(|n| a_draft(name, &format!("n{n}"))).collect();
        self.create(drafts).await;
    }

    /// The revision and the unread count.
    pub(super) async fn state(&self, name: &str) -> (u64, u64) {
        let state = self.inboxes.state(&user(name)).await.expect("state");
        (state.revision.get(), state.unread.get())
    }

    /// The ids on the first page of [`list`](Self::list).
    pub(super) async fn listed(
        &self,
        name: &str,
        filter: &ListFilter,
        limit: usize,
    ) -> Vec<String> {
        ids_of(&self.list(name, filter, PageLimit::rows(limit)).await)
    }

    pub(super) async fn list(
        &self,
        name: &str,
        filter: &ListFilter,
        limit: PageLimit,
    ) -> Page<Notification> {
        self.inboxes.list(&user(name), filter, limit).await.expect("list")
    }

    /// Marks notifications as read and returns the event, if there is one.
    pub(super) async fn mark_read(&self, name: &str, ids: &[&str]) -> Option<DomainEvent> {
        self.marked(name, ids).await.event
    }

    /// Marks notifications as read and returns those of `ids` that the inbox does not know.
    pub(super) async fn unknown(&self, name: &str, ids: &[&str]) -> Vec<String> {
        self.marked(name, ids).await.unknown.iter().map(ToString::to_string).collect()
    }

    /// Marks notifications as read and returns the whole result.
    pub(super) async fn marked(&self, name: &str, ids: &[&str]) -> Marked {
        let ids: Vec<_> = ids.iter().copied().map(id).collect();
        self.inboxes.mark_read(&user(name), &ids, at(5_000)).await.expect("mark read")
    }

    pub(super) async fn delete(&self, name: &str, ids: &[&str]) -> Option<DomainEvent> {
        let ids: Vec<_> = ids.iter().copied().map(id).collect();
        self.inboxes.delete(&user(name), &ids, at(6_000)).await.expect("delete")
    }

    pub(super) async fn erase(&self, name: &str) -> Erased {
        self.erasure.erase(&user(name)).await.expect("erase")
    }

    pub(super) async fn acquire_lease(&self) -> Box<dyn OutboxLease> {
        self.outbox.acquire_lease().await.expect("acquire").expect("the lease is free")
    }

    pub(super) async fn outbox_entries(&self) -> Vec<OutboxEntry> {
        self.acquire_lease().await.pending(PageLimit::rows(10_000)).await.expect("pending").items
    }

    /// Checks that outbox entries are those of `events`, in the same order.
    pub(super) fn assert_entries_of<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a OutboxEntry>,
        events: &[DomainEvent],
    ) {
        let actual: Vec<_> = entries
            .into_iter()
            .map(|entry| (entry.header.clone(), entry.body.to_string()))
            .collect();
        let expected: Vec<_> = events
            .iter()
            .map(|event| (EventHeader::of(event), (self.encode_event)(event)))
            .collect();
        assert_eq!(actual, expected);
    }

    pub(super) async fn history(&self, name: &str, since: u64, limit: usize) -> History {
        let since = Revision::new(since);
        self.inboxes.history(&user(name), since, limit).await.expect("history")
    }

    /// The range of a replay from `since` to the inbox's current revision.
    pub(super) async fn range_since(&self, name: &str, since: u64) -> ReplayRange {
        ReplayRange::new(Revision::new(since), Revision::new(self.state(name).await.0))
    }

    pub(super) async fn created_in(
        &self,
        name: &str,
        range: ReplayRange,
        limit: PageLimit,
    ) -> Page<Notification> {
        self.inboxes.created_in(&user(name), range, limit).await.expect("created")
    }

    pub(super) async fn changed_in(
        &self,
        name: &str,
        range: ReplayRange,
    ) -> Option<Vec<MissedChange>> {
        self.inboxes.changed_in(&user(name), range, 10_000).await.expect("changed")
    }

    /// The replay for a device whose resume point is `since`, one text per change, such as `3 new n2`.
    pub(super) async fn missed(&self, name: &str, since: u64) -> Vec<String> {
        let range = self.range_since(name, since).await;
        let created = self.created_in(name, range, PageLimit::rows(1_000)).await;
        assert!(!created.more);
        let changes = self.changed_in(name, range).await.expect("a complete history");
        let missed = ReplayBatch::merge(created.items, changes);
        let lines = missed.into_iter().map(|(revision, change)| match change {
            Change::Created(notification) => format!("{revision} new {}", notification.id),
            Change::MarkedRead { ids, .. } => format!("{revision} read {}", sorted(&ids)),
            Change::Deleted { ids } => format!("{revision} deleted {}", sorted(&ids)),
            Change::AllRead { .. } | Change::Erased { .. } => {
                panic!("a replay lists the ids of its notifications")
            }
        });
        lines.collect()
    }

    /// Whether all changes after `since` can be replayed.
    pub(super) async fn has_history(&self, name: &str, since: u64) -> bool {
        matches!(self.history(name, since, 1_000).await, History::Complete { .. })
    }

    pub(super) async fn expire(&self, cutoff: ExpiryCutoff, limit: usize) -> usize {
        self.retention.expire(&cutoff, limit).await.expect("expire")
    }

    pub(super) async fn purge_deleted(&self, before: i64, limit: usize) -> usize {
        self.retention.purge_deleted(at(before), limit).await.expect("purge deleted")
    }
}

pub(super) fn ids_of(page: &Page<Notification>) -> Vec<String> {
    page.items.iter().map(|notification| notification.id.to_string()).collect()
}

/// The sorted ids of one change. A store may return them in any order.
fn sorted(ids: &[NotificationId]) -> String {
    let mut ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    ids.sort();
    ids.join(" ")
}

/// A draft with all optional fields.
pub(super) fn full_draft() -> Draft {
    Draft {
        kind: NotificationKind::parse("order.shipped").unwrap(),
        message: Message::parse("It left today.\nÜbermorgen ist es da 📦").unwrap(),
        data: Some(Data::from_valid_json(r#"{"orderId":7,"tags":["a","b"],"z":null}"#).unwrap()),
        link: Some(Link::parse("/orders/7").unwrap()),
        priority: Priority::Urgent,
        dedupe_key: Some(id("order-7")),
        expires_at: Some(at(1_900_000_000_123)),
        ..a_draft("ada", "n1")
    }
}

/// An idempotency key of the caller `shop`.
pub(super) fn key(name: &str, fingerprint: &str) -> IdempotencyKey {
    IdempotencyKey::parse(user("shop"), name, fingerprint).unwrap()
}
