//! What a store promises: inboxes ([`InboxRepository`]) and the outbox ([`Outbox`]) behind them,
//! which are written together, [`Revocations`], and [`Retention`], which makes room in all of them.

pub mod changing;
pub mod creating;
pub mod outbox;
pub mod reading;
pub mod retention;
pub mod revoking;

use std::sync::Arc;

use belfry_domain::{
    Change, Data, DomainEvent, Draft, Due, Kind, Link, Marked, Message, Missed, MissedChange,
    NotificationId, Priority, Receipt, ReplayRange, Revision,
};

use super::Promise;
use crate::ports::{
    History, IdempotencyKey, InboxRepository, ListFilter, Outbox, OutboxEntry, OutboxLease, Page,
    PageLimit, Retention, Revocations,
};
use crate::testing::{a_draft, at, id, user};

/// Every promise, role by role.
pub fn promises() -> Vec<Promise<Store>> {
    [
        reading::promises(),
        creating::promises(),
        changing::promises(),
        outbox::promises(),
        retention::promises(),
        revoking::promises(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A fresh, empty store, by all of its ports.
#[derive(Clone)]
pub struct Store {
    inboxes: Arc<dyn InboxRepository>,
    outbox: Arc<dyn Outbox>,
    retention: Arc<dyn Retention>,
    revocations: Arc<dyn Revocations>,
}

impl Store {
    /// Takes one store, which has all of these ports.
    pub fn of<S>(store: S) -> Self
    where
        S: InboxRepository + Outbox + Retention + Revocations + 'static,
    {
        let store = Arc::new(store);
        Self {
            inboxes: store.clone(),
            outbox: store.clone(),
            retention: store.clone(),
            revocations: store,
        }
    }

    async fn takes(&self, drafts: Vec<Draft>) -> Vec<Receipt> {
        self.inboxes.create(drafts).await.expect("create")
    }

    async fn takes_plain(&self, name: &str, count: usize) {
        let drafts = (1..=count).map(|n| a_draft(name, &format!("n{n}"))).collect();
        self.takes(drafts).await;
    }

    async fn position(&self, name: &str) -> (u64, u64) {
        let state = self.inboxes.state(&user(name)).await.expect("state");
        (state.revision.get(), state.unread.get())
    }

    async fn listed(&self, name: &str, filter: &ListFilter, limit: usize) -> Vec<String> {
        ids_of(&self.list(name, filter, PageLimit::rows(limit)).await)
    }

    async fn list(&self, name: &str, filter: &ListFilter, limit: PageLimit) -> Page {
        self.inboxes.list(&user(name), filter, limit).await.expect("list")
    }

    async fn mark_read(&self, name: &str, ids: &[&str]) -> Option<DomainEvent> {
        self.marked(name, ids).await.event
    }

    /// Which of these the inbox does not know.
    async fn unknown(&self, name: &str, ids: &[&str]) -> Vec<String> {
        self.marked(name, ids).await.unknown.iter().map(ToString::to_string).collect()
    }

    async fn marked(&self, name: &str, ids: &[&str]) -> Marked {
        let ids: Vec<_> = ids.iter().copied().map(id).collect();
        self.inboxes.mark_read(&user(name), &ids, at(5_000)).await.expect("mark read")
    }

    async fn delete(&self, name: &str, ids: &[&str]) -> Option<DomainEvent> {
        let ids: Vec<_> = ids.iter().copied().map(id).collect();
        self.inboxes.delete(&user(name), &ids, at(6_000)).await.expect("delete")
    }

    async fn acquire_lease(&self) -> Box<dyn OutboxLease> {
        self.outbox.acquire_lease().await.expect("lead").expect("nobody else leads")
    }

    async fn waiting(&self) -> Vec<OutboxEntry> {
        self.acquire_lease().await.pending(10_000).await.expect("pending")
    }

    async fn history(&self, name: &str, since: u64, limit: usize) -> History {
        let since = Revision::new(since);
        self.inboxes.history(&user(name), since, limit).await.expect("history")
    }

    /// The range that a replay reads which is planned now.
    async fn range_since(&self, name: &str, since: u64) -> ReplayRange {
        ReplayRange::new(Revision::new(since), Revision::new(self.position(name).await.0))
    }

    async fn created_in(&self, name: &str, range: ReplayRange, limit: PageLimit) -> Page {
        self.inboxes.created_in(&user(name), range, limit).await.expect("created")
    }

    async fn changed_in(&self, name: &str, range: ReplayRange) -> Option<Vec<MissedChange>> {
        self.inboxes.changed_in(&user(name), range, 10_000).await.expect("changed")
    }

    /// What is replayed to a device that has everything up to `since`, in words: `3 new n2`.
    async fn missed(&self, name: &str, since: u64) -> Vec<String> {
        let range = self.range_since(name, since).await;
        let created = self.created_in(name, range, PageLimit::rows(1_000)).await;
        assert!(!created.more);
        let changes = self.changed_in(name, range).await.expect("within reach");
        let missed = Missed::of(created.items, changes);
        let words = missed.into_iter().map(|(revision, change)| match change {
            Change::Created(one) => format!("{revision} new {}", one.id),
            Change::MarkedRead { ids, .. } => format!("{revision} read {}", sorted(&ids)),
            Change::Deleted { ids } => format!("{revision} deleted {}", sorted(&ids)),
            Change::AllRead { .. } => panic!("rows do not tell all from some"),
        });
        words.collect()
    }

    /// Whether everything since then can be replayed.
    async fn reaches(&self, name: &str, since: u64) -> bool {
        matches!(self.history(name, since, 1_000).await, History::Complete { .. })
    }

    async fn expires(&self, due: Due, limit: usize) -> usize {
        self.retention.expire(&due, limit).await.expect("expire")
    }

    async fn forgets_deleted(&self, before: i64, limit: usize) -> usize {
        self.retention.purge_deleted(at(before), limit).await.expect("forget deleted")
    }
}

fn ids_of(page: &Page) -> Vec<String> {
    page.items.iter().map(|one| one.id.to_string()).collect()
}

/// The ids of one change, which come in no particular order.
fn sorted(ids: &[NotificationId]) -> String {
    let mut ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    ids.sort();
    ids.join(" ")
}

fn full_draft() -> Draft {
    Draft {
        kind: Kind::parse("order.shipped").unwrap(),
        message: Message::parse("It left today.\nÜbermorgen ist es da 📦").unwrap(),
        data: Some(Data::of_checked_syntax(r#"{"orderId":7,"tags":["a","b"],"z":null}"#).unwrap()),
        link: Some(Link::parse("/orders/7").unwrap()),
        priority: Priority::Urgent,
        dedupe_key: Some(id("order-7")),
        expires_at: Some(at(1_900_000_000_123)),
        ..a_draft("ada", "n1")
    }
}

fn key(name: &str, fingerprint: &str) -> IdempotencyKey {
    IdempotencyKey::parse(user("shop"), name, fingerprint).unwrap()
}
