use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use belfry_domain::{
    Change, DomainEvent, Draft, Epoch, EventName, ExpiryCutoff, Inbox, InboxState, Marked,
    MissedChange, Notification, NotificationId, Receipt, ReplayRange, Revision, Timestamp, UserId,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ports::{
    Erased, Erasure, EventHeader, History, IdempotencyKey, IdempotentOutcome, InboxRepository,
    ListFilter, Outbox, OutboxBacklog, OutboxEntry, OutboxId, OutboxLease, Page, PageLimit,
    PortError, Retention, Revocation, RevocationCursor, Revocations, TokenOwner,
};
use crate::trace;

/// A store in memory: [`belfry_domain::Inbox`] behind the ports. Keeps every promise of a real store
/// except durability.
#[derive(Debug)]
pub struct InMemoryStore {
    epoch: Epoch,
    shared: Arc<Shared>,
    reads_yield: bool,
}

/// Encodes the event of an outbox entry.
type EncodeEvent = fn(&DomainEvent) -> String;

/// Shared by the store and its lease.
#[derive(Debug)]
struct Shared {
    content: Mutex<Content>,
    written: Notify,
    /// A lease exists.
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
    /// With the number of the latest change.
    revocations: HashMap<TokenOwner, (i64, Timestamp)>,
    last_revocation: i64,
}

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

    /// Another handle to the same store. It yields to other tasks before and after each read of a state
    /// or a history, as a real store does.
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

    fn get(&self, user: &UserId, id: &NotificationId) -> Option<Notification> {
        self.inboxes.get(user)?.notifications().find(|one| one.id == *id).cloned()
    }

    fn create(&mut self, drafts: Vec<Draft>) -> Vec<Receipt> {
        drafts
            .into_iter()
            .map(|draft| {
                let at = draft.created_at;
                let receipt = self.inbox(&draft.user.clone()).receive(draft);
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

#[async_trait]
impl InboxRepository for InMemoryStore {
    async fn epoch(&self) -> Result<Epoch, PortError> {
        self.yield_if_needed().await;
        self.yield_if_needed().await;
        Ok(self.epoch.clone())
    }

    async fn create(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, PortError> {
        Ok(self.change(|content| content.create(drafts)))
    }

    async fn create_once(
        &self,
        key: &IdempotencyKey,
        drafts: Vec<Draft>,
    ) -> Result<IdempotentOutcome, PortError> {
        Ok(self.change(|content| {
            let request_key = (key.caller().clone(), key.key().to_owned());
            if let Some(request) = content.requests.get(&request_key) {
                if request.fingerprint != key.fingerprint() {
                    return IdempotentOutcome::KeyReused;
                }
                let created = request.notifications.iter();
                let current = created.filter_map(|(user, id)| content.get(user, id)).collect();
                return IdempotentOutcome::Repeated(current);
            }
            // The store has no clock: the first draft determines the age of the request.
            let made_at =
                drafts.first().map_or(Timestamp::from_unix_millis(0), |one| one.created_at);
            let receipts = content.create(drafts);
            let notifications = receipts
                .iter()
                .filter_map(Receipt::notification)
                .map(|one| (one.user.clone(), one.id.clone()))
                .collect();
            let fingerprint = key.fingerprint().to_owned();
            let request = Request { fingerprint, made_at, notifications };
            content.requests.insert(request_key, request);
            IdempotentOutcome::Executed(receipts)
        }))
    }

    async fn mark_read(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        read_at: Timestamp,
    ) -> Result<Marked, PortError> {
        Ok(self.change(|content| {
            let Marked { event, unknown } = content.inbox(user).mark_read(ids, read_at);
            Marked { event: content.enqueue_if_any(event, read_at), unknown }
        }))
    }

    async fn mark_all_read(
        &self,
        user: &UserId,
        read_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        Ok(self.change(|content| {
            let event = content.inbox(user).mark_all_read(read_at);
            content.enqueue_if_any(event, read_at)
        }))
    }

    async fn delete(
        &self,
        user: &UserId,
        ids: &[NotificationId],
        deleted_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        Ok(self.change(|content| {
            let event = content.inbox(user).delete(ids, deleted_at);
            content.enqueue_if_any(event, deleted_at)
        }))
    }

    async fn get(
        &self,
        user: &UserId,
        id: &NotificationId,
    ) -> Result<Option<Notification>, PortError> {
        Ok(self.shared.content.lock().get(user, id))
    }

    async fn list(
        &self,
        user: &UserId,
        filter: &ListFilter,
        limit: PageLimit,
    ) -> Result<Page<Notification>, PortError> {
        let content = self.shared.content.lock();
        let Some(inbox) = content.inboxes.get(user) else {
            return Ok(Page::default());
        };
        let matching = inbox
            .notifications()
            .filter(|one| filter.before.is_none_or(|before| one.created_revision < before))
            .filter(|one| filter.unread.is_none_or(|unread| one.is_read() != unread))
            .filter(|one| filter.kind.as_ref().is_none_or(|kind| one.kind == *kind));
        Ok(limit.page_of(matching, Notification::text_bytes))
    }

    async fn state(&self, user: &UserId) -> Result<InboxState, PortError> {
        Ok(self.read(user, Inbox::state).await)
    }

    async fn history(
        &self,
        user: &UserId,
        since: Revision,
        limit: usize,
    ) -> Result<History, PortError> {
        Ok(self
            .read(user, |inbox| {
                let state = inbox.state();
                match inbox.count_since(since).filter(|count| count.changed <= limit) {
                    Some(count) => History::Complete { state, created: count.created },
                    None => History::OutOfReach { state },
                }
            })
            .await)
    }

    async fn created_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: PageLimit,
    ) -> Result<Page<Notification>, PortError> {
        Ok(self
            .read(user, |inbox| limit.page_of(inbox.created_in(range), Notification::text_bytes))
            .await)
    }

    async fn changed_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: usize,
    ) -> Result<Option<Vec<MissedChange>>, PortError> {
        Ok(self
            .read(user, |inbox| {
                let mut changes = inbox.changed_in(range)?;
                if let Some(last) = changes.get(limit - 1) {
                    let end = last.revision;
                    changes.retain(|change| change.revision <= end);
                }
                Some(changes)
            })
            .await)
    }
}

#[async_trait]
impl Erasure for InMemoryStore {
    async fn erase(&self, user: &UserId) -> Result<Erased, PortError> {
        Ok(self.change(|content| {
            let inbox = content.inboxes.remove(user);
            let keeps = |entry: &OutboxEntry| {
                // Without an inbox, the event of an earlier erasure is the latest one.
                entry.header.user != *user
                    || (inbox.is_none() && entry.header.name.as_str() == EventName::ALL_ERASED)
            };
            let events = content.outbox.len();
            content.outbox.retain(|_, entry| keeps(entry));
            let events = events - content.outbox.len();
            let mut idempotency_keys = 0;
            content.requests.retain(|(caller, _), request| {
                let results = request.notifications.len();
                request.notifications.retain(|(owner, _)| owner != user);
                let removed = results - request.notifications.len();
                idempotency_keys += u64::from(caller == user || removed > 0);
                caller != user && (removed == 0 || removed < results)
            });
            let mut erased =
                Erased { events: events as u64, idempotency_keys, ..Erased::default() };
            if let Some(inbox) = inbox {
                erased.inbox = true;
                erased.notifications = inbox.entry_count() as u64;
                let event = inbox.erase(self.epoch.clone(), content.erased_revision);
                content.erased_revision = event.revision;
                // The store has no clock.
                content.enqueue(&event, Timestamp::from_unix_millis(0));
            }
            erased
        }))
    }
}

#[async_trait]
impl Retention for InMemoryStore {
    async fn expire(&self, cutoff: &ExpiryCutoff, limit: usize) -> Result<usize, PortError> {
        Ok(self.change(|content| {
            let mut deleted = 0;
            let mut events = Vec::new();
            for inbox in content.inboxes.values_mut() {
                let Some(event) = inbox.expire(cutoff, limit - deleted) else { continue };
                if let Change::Deleted { ids } = &event.change {
                    deleted += ids.len();
                }
                events.push(event);
            }
            for event in events {
                content.enqueue(&event, cutoff.now);
            }
            deleted
        }))
    }

    async fn purge_deleted(
        &self,
        deleted_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        let mut content = self.shared.content.lock();
        let inboxes = content.inboxes.values_mut();
        let purged = inboxes
            .fold(0, |purged, inbox| purged + inbox.purge_deleted(deleted_before, limit - purged));
        Ok(purged)
    }

    async fn purge_idempotency_keys(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        let mut content = self.shared.content.lock();
        let before = content.requests.len();
        let mut left = limit;
        content.requests.retain(|_, request| {
            let purge = request.made_at < made_before && left > 0;
            left -= usize::from(purge);
            !purge
        });
        Ok(before - content.requests.len())
    }

    async fn purge_revocations(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        // The store has no clock: `issued_before` determines the age of a revocation.
        let mut left = limit;
        self.shared.content.lock().revocations.retain(|_, (_, issued_before)| {
            let purge = *issued_before < made_before && left > 0;
            left -= usize::from(purge);
            !purge
        });
        Ok(limit - left)
    }
}

#[async_trait]
impl Revocations for InMemoryStore {
    async fn revoke(&self, revocation: &Revocation) -> Result<Revocation, PortError> {
        let Revocation { owner, issued_before } = revocation;
        let mut content = self.shared.content.lock();
        content.last_revocation += 1;
        let number = content.last_revocation;
        let known = content.revocations.get(owner).map(|(_, instant)| *instant);
        let issued_before = known.map_or(*issued_before, |known| known.max(*issued_before));
        content.revocations.insert(owner.clone(), (number, issued_before));
        Ok(Revocation { owner: owner.clone(), issued_before })
    }

    async fn since(
        &self,
        cursor: Option<RevocationCursor>,
    ) -> Result<(Vec<Revocation>, RevocationCursor), PortError> {
        let content = self.shared.content.lock();
        let after = cursor.map_or(0, |RevocationCursor(number)| number);
        let new = content.revocations.iter().filter(|(_, (number, _))| *number > after);
        let new = new.map(|(owner, (_, issued_before))| Revocation {
            owner: owner.clone(),
            issued_before: *issued_before,
        });
        Ok((new.collect(), RevocationCursor(content.last_revocation)))
    }
}

#[async_trait]
impl Outbox for InMemoryStore {
    async fn acquire_lease(&self) -> Result<Option<Box<dyn OutboxLease>>, PortError> {
        if self.shared.leased.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        Ok(Some(Box::new(InMemoryLease(self.shared.clone()))))
    }

    /// The store has no clock: the age is that of the oldest entry when the latest one was written.
    async fn backlog(&self) -> Result<OutboxBacklog, PortError> {
        let content = self.shared.content.lock();
        let written_at = |entry: (&i64, &OutboxEntry)| entry.1.written_at;
        let oldest = content.outbox.first_key_value().map(written_at);
        let latest = content.outbox.last_key_value().map(written_at);
        let age = latest.zip(oldest).map(|(latest, oldest)| latest.since(oldest));
        let entries = content.outbox.len() as u64;
        Ok(OutboxBacklog { entries, age: age.unwrap_or_default() })
    }
}

struct InMemoryLease(Arc<Shared>);

#[async_trait]
impl OutboxLease for InMemoryLease {
    async fn pending(&mut self, limit: PageLimit) -> Result<Page<OutboxEntry>, PortError> {
        Ok(limit.page_of(self.0.content.lock().outbox.values(), OutboxEntry::body_bytes))
    }

    async fn remove(&mut self, entries: &[OutboxId]) -> Result<(), PortError> {
        let mut content = self.0.content.lock();
        for OutboxId(id) in entries {
            content.outbox.remove(id);
        }
        Ok(())
    }

    async fn wait_for_entries(&mut self, patience: Duration) -> Result<(), PortError> {
        // A timeout is not an error: the wait ends either way.
        let _ = tokio::time::timeout(patience, self.0.written.notified()).await;
        Ok(())
    }
}

impl Drop for InMemoryLease {
    fn drop(&mut self) {
        self.0.leased.store(false, Ordering::SeqCst);
    }
}
