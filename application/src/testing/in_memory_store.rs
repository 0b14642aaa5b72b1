mod erasure;
mod inbox_repository;
mod outbox;
mod retention;
mod revocations;

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;

use belfry_domain::{
    DomainEvent, Draft, Epoch, Inbox, Notification, NotificationId, Receipt, Revision, Timestamp,
    UserId,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ports::{EventHeader, OutboxEntry, OutboxId, TokenOwner};
use crate::trace;

/// A store in memory: [`belfry_domain::Inbox`] behind the ports. Keeps every promise of a real store
/// except durability.
#[derive(Debug)]
pub struct InMemoryStore {
    epoch: Epoch,
    shared: Arc<Shared>,
    /// See [`yielding`](Self::yielding).
    reads_yield: bool,
}

/// Encodes the event of an outbox entry.
type EncodeEvent = fn(&DomainEvent) -> String;

/// Shared by the store and its lease.
#[derive(Debug)]
struct Shared {
    content: Mutex<Content>,
    /// Notified after each change.
    written: Notify,
    /// Whether a lease exists.
    leased: AtomicBool,
}

#[derive(Debug)]
struct Content {
    encode_event: EncodeEvent,
    inboxes: HashMap<UserId, Inbox>,
    /// The highest revision of all erased inboxes.
    erased_revision: Revision,
    outbox: BTreeMap<i64, OutboxEntry>,
    last_entry_id: i64,
    /// By caller and idempotency key.
    requests: HashMap<(UserId, String), Request>,
    /// By owner: the number of the owner's latest call of `revoke`, and the `issued_before` that applies.
    revocations: HashMap<TokenOwner, (i64, Timestamp)>,
    /// The number of the latest call of `revoke`.
    last_revocation: i64,
}

/// A request that was executed with an idempotency key.
#[derive(Debug)]
struct Request {
    fingerprint: String,
    made_at: Timestamp,
    notifications: Vec<(UserId, NotificationId)>,
}

impl InMemoryStore {
    /// An empty store. It encodes events with [`encode_event`](Self::encode_event).
    pub fn new(epoch: Epoch) -> Self {
        Self::with_encoder(epoch, Self::encode_event)
    }

    /// An empty store that encodes events with `encode_event`. For tests in which a real consumer
    /// decodes the published events.
    pub fn with_encoder(epoch: Epoch, encode_event: fn(&DomainEvent) -> String) -> Self {
        let shared = Shared {
            content: Mutex::new(Content::new(encode_event)),
            written: Notify::new(),
            leased: AtomicBool::new(false),
        };
        Self { epoch, shared: Arc::new(shared), reads_yield: false }
    }

    /// The body of an outbox entry: a text that is different for different events. It is no wire
    /// format and cannot be decoded.
    pub fn encode_event(event: &DomainEvent) -> String {
        format!("{event:?}")
    }

    /// Another handle to the same store. It yields to other tasks before and after each read of a catch-up, as
    /// a real store does.
    #[must_use]
    pub fn yielding(&self) -> Self {
        Self { epoch: self.epoch.clone(), shared: self.shared.clone(), reads_yield: true }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Content) -> T) -> T {
        let result = change(&mut self.shared.content.lock());
        // `notify_one` keeps a permit for a lease that is about to wait, so no wake-up is lost.
        self.shared.written.notify_one();
        result
    }

    async fn read<T>(&self, user: &UserId, query: impl FnOnce(&Inbox) -> T) -> T {
        self.yield_if_needed().await;
        let result = {
            let content = self.shared.content.lock();
            match content.inboxes.get(user) {
                Some(inbox) => query(inbox),
                None => query(&Inbox::starting_at(user.clone(), content.erased_revision)),
            }
        };
        self.yield_if_needed().await;
        result
    }

    async fn yield_if_needed(&self) {
        if self.reads_yield {
            yield_once().await;
        }
    }
}

/// Yields to other tasks once.
pub(crate) async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Content {
    fn new(encode_event: EncodeEvent) -> Self {
        Self {
            encode_event,
            inboxes: HashMap::new(),
            erased_revision: Revision::ZERO,
            outbox: BTreeMap::new(),
            last_entry_id: 0,
            requests: HashMap::new(),
            revocations: HashMap::new(),
            last_revocation: 0,
        }
    }

    fn inbox(&mut self, user: &UserId) -> &mut Inbox {
        let new = || Inbox::starting_at(user.clone(), self.erased_revision);
        self.inboxes.entry(user.clone()).or_insert_with(new)
    }

    /// For changes of existing notifications: they never create an inbox.
    fn with_inbox<T>(&mut self, user: &UserId, change: impl FnOnce(&mut Inbox) -> T) -> T {
        match self.inboxes.get_mut(user) {
            Some(inbox) => change(inbox),
            None => change(&mut Inbox::starting_at(user.clone(), self.erased_revision)),
        }
    }

    fn get(&self, user: &UserId, id: &NotificationId) -> Option<Notification> {
        let mut notifications = self.inboxes.get(user)?.notifications();
        notifications.find(|notification| notification.id == *id).cloned()
    }

    fn create(&mut self, drafts: Vec<Draft>) -> Vec<Receipt> {
        drafts
            .into_iter()
            .map(|draft| {
                let at = draft.created_at;
                let receipt = self.inbox(&draft.user.clone()).create(draft);
                if let Receipt::Created(event) = &receipt {
                    self.enqueue(event, at);
                }
                receipt
            })
            .collect()
    }

    fn enqueue(&mut self, event: &DomainEvent, written_at: Timestamp) {
        self.last_entry_id += 1;
        let entry = OutboxEntry {
            id: OutboxId(self.last_entry_id),
            header: EventHeader::of(event),
            body: (self.encode_event)(event).into(),
            written_at,
            trace: trace::current(),
        };
        self.outbox.insert(self.last_entry_id, entry);
    }

    fn enqueue_if_any(&mut self, event: Option<DomainEvent>, at: Timestamp) -> Option<DomainEvent> {
        if let Some(event) = &event {
            self.enqueue(event, at);
        }
        event
    }
}
