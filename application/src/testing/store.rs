use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use belfry_domain::{
    Change, DomainEvent, Draft, Due, Epoch, Inbox, InboxState, Marked, MissedChange, Notification,
    NotificationId, Receipt, ReplayRange, Revision, Timestamp, UserId,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ports::{
    History, IdempotencyKey, InboxRepository, ListFilter, Mark, Once, Outbox, OutboxEntry,
    OutboxId, OutboxLease, Page, PageLimit, PortError, Retention, Revocation, Revocations,
};
use crate::trace;

/// Inboxes and their outbox, in memory: [`belfry_domain::Inbox`] behind the ports. Keeps every
/// promise of a real store but that of surviving the process.
#[derive(Debug)]
pub struct InMemoryStore {
    epoch: Epoch,
    shared: Arc<Shared>,
}

/// What the store and its lead have in common; a lead outlives the call that gave it.
#[derive(Debug, Default)]
struct Shared {
    content: Mutex<Content>,
    written: Notify,
    led: AtomicBool,
}

#[derive(Debug, Default)]
struct Content {
    inboxes: HashMap<UserId, Inbox>,
    outbox: BTreeMap<i64, OutboxEntry>,
    last_entry: i64,
    requests: HashMap<(UserId, String), Request>,
    revocations: Vec<Revocation>,
}

#[derive(Debug)]
struct Request {
    fingerprint: String,
    made_at: Timestamp,
    led_to: Vec<(UserId, NotificationId)>,
}

impl InMemoryStore {
    /// An empty store.
    pub fn new(epoch: Epoch) -> Self {
        Self { epoch, shared: Arc::default() }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Content) -> T) -> T {
        let answer = change(&mut self.shared.content.lock());
        // One permit is kept for a lead that is about to wait, so that no call is lost.
        self.shared.written.notify_one();
        answer
    }

    fn read<T>(&self, user: &UserId, question: impl FnOnce(&Inbox) -> T) -> T {
        let content = self.shared.content.lock();
        match content.inboxes.get(user) {
            Some(inbox) => question(inbox),
            None => question(&Inbox::new(user.clone())),
        }
    }
}

impl Content {
    fn inbox(&mut self, user: &UserId) -> &mut Inbox {
        self.inboxes.entry(user.clone()).or_insert_with(|| Inbox::new(user.clone()))
    }

    fn state(&self, user: &UserId) -> InboxState {
        self.inboxes.get(user).map(Inbox::state).unwrap_or_default()
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
                if let Receipt::Taken(event) = &receipt {
                    self.put_out(event, at);
                }
                receipt
            })
            .collect()
    }

    fn put_out(&mut self, event: &DomainEvent, written_at: Timestamp) {
        self.last_entry += 1;
        let entry = OutboxEntry {
            id: OutboxId(self.last_entry),
            event: event.clone(),
            written_at,
            trace: trace::current(),
        };
        self.outbox.insert(self.last_entry, entry);
    }

    fn put_out_if_any(&mut self, event: Option<DomainEvent>, at: Timestamp) -> Option<DomainEvent> {
        if let Some(event) = &event {
            self.put_out(event, at);
        }
        event
    }
}

#[async_trait]
impl InboxRepository for InMemoryStore {
    async fn epoch(&self) -> Result<Epoch, PortError> {
        Ok(self.epoch.clone())
    }

    async fn create(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, PortError> {
        Ok(self.change(|content| content.create(drafts)))
    }

    async fn create_once(
        &self,
        key: &IdempotencyKey,
        drafts: Vec<Draft>,
    ) -> Result<Once, PortError> {
        Ok(self.change(|content| {
            let name = (key.caller().clone(), key.key().to_owned());
            if let Some(request) = content.requests.get(&name) {
                if request.fingerprint != key.fingerprint() {
                    return Once::KeyReused;
                }
                let led_to = request.led_to.iter();
                let there = led_to.filter_map(|(user, id)| content.get(user, id)).collect();
                return Once::Before(there);
            }
            // There is no clock here: a request is as old as the first draft in it.
            let made_at =
                drafts.first().map_or(Timestamp::from_unix_millis(0), |one| one.created_at);
            let receipts = content.create(drafts);
            let led_to = receipts
                .iter()
                .filter_map(Receipt::notification)
                .map(|one| (one.user.clone(), one.id.clone()))
                .collect();
            let request = Request { fingerprint: key.fingerprint().to_owned(), made_at, led_to };
            content.requests.insert(name, request);
            Once::Done(receipts)
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
            Marked { event: content.put_out_if_any(event, read_at), unknown }
        }))
    }

    async fn mark_all_read(
        &self,
        user: &UserId,
        read_at: Timestamp,
    ) -> Result<Option<DomainEvent>, PortError> {
        Ok(self.change(|content| {
            let event = content.inbox(user).mark_all_read(read_at);
            content.put_out_if_any(event, read_at)
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
            content.put_out_if_any(event, deleted_at)
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
    ) -> Result<Page, PortError> {
        let content = self.shared.content.lock();
        let Some(inbox) = content.inboxes.get(user) else {
            return Ok(Page::default());
        };
        let matching = inbox
            .notifications()
            .filter(|one| filter.before.is_none_or(|before| one.created_revision < before))
            .filter(|one| filter.unread.is_none_or(|unread| one.is_read() != unread))
            .filter(|one| filter.kind.as_ref().is_none_or(|kind| one.kind == *kind));
        Ok(limit.page_of(matching))
    }

    async fn state(&self, user: &UserId) -> Result<InboxState, PortError> {
        Ok(self.shared.content.lock().state(user))
    }

    async fn history(
        &self,
        user: &UserId,
        since: Revision,
        limit: usize,
    ) -> Result<History, PortError> {
        Ok(self.read(user, |inbox| {
            let state = inbox.state();
            match inbox.count_since(since).filter(|count| count.changed <= limit) {
                Some(count) => History::Complete { state, created: count.created },
                None => History::OutOfReach { state },
            }
        }))
    }

    async fn created_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: PageLimit,
    ) -> Result<Page, PortError> {
        Ok(self.read(user, |inbox| limit.page_of(inbox.created_in(range))))
    }

    async fn changed_in(
        &self,
        user: &UserId,
        range: ReplayRange,
        limit: usize,
    ) -> Result<Option<Vec<MissedChange>>, PortError> {
        Ok(self.read(user, |inbox| {
            let mut changes = inbox.changed_in(range)?;
            if let Some(last) = changes.get(limit - 1) {
                let end = last.revision;
                changes.retain(|change| change.revision <= end);
            }
            Some(changes)
        }))
    }
}

#[async_trait]
impl Retention for InMemoryStore {
    async fn expire(&self, due: &Due, limit: usize) -> Result<usize, PortError> {
        Ok(self.change(|content| {
            let mut deleted = 0;
            let mut events = Vec::new();
            for inbox in content.inboxes.values_mut() {
                let Some(event) = inbox.expire(due, limit - deleted) else { continue };
                if let Change::Deleted { ids } = &event.change {
                    deleted += ids.len();
                }
                events.push(event);
            }
            for event in events {
                content.put_out(&event, due.now);
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
        Ok(inboxes.fold(0, |gone, inbox| gone + inbox.purge_deleted(deleted_before, limit - gone)))
    }

    async fn purge_requests(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        let mut content = self.shared.content.lock();
        let before = content.requests.len();
        let mut left = limit;
        content.requests.retain(|_, request| {
            let goes = request.made_at < made_before && left > 0;
            left -= usize::from(goes);
            !goes
        });
        Ok(before - content.requests.len())
    }

    async fn purge_revocations(
        &self,
        made_before: Timestamp,
        limit: usize,
    ) -> Result<usize, PortError> {
        // There is no clock here: a revocation is as old as what it says.
        let mut left = limit;
        self.shared.content.lock().revocations.retain(|one| {
            let goes = one.issued_before < made_before && left > 0;
            left -= usize::from(goes);
            !goes
        });
        Ok(limit - left)
    }
}

#[async_trait]
impl Revocations for InMemoryStore {
    async fn revoke(&self, revocation: &Revocation) -> Result<Revocation, PortError> {
        let kept = &mut self.shared.content.lock().revocations;
        let user = &revocation.user;
        let there = kept.iter().position(|one| one.user == *user).map(|place| kept.remove(place));
        let earlier = there.map_or(revocation.issued_before, |there| there.issued_before);
        let issued_before = revocation.issued_before.max(earlier);
        let holds = Revocation { user: user.clone(), issued_before };
        kept.push(holds.clone());
        Ok(holds)
    }

    /// All of them each time: some may come again.
    async fn since(&self, _: Option<Mark>) -> Result<(Vec<Revocation>, Mark), PortError> {
        Ok((self.shared.content.lock().revocations.clone(), Mark(0)))
    }
}

#[async_trait]
impl Outbox for InMemoryStore {
    async fn acquire_lease(&self) -> Result<Option<Box<dyn OutboxLease>>, PortError> {
        if self.shared.led.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        Ok(Some(Box::new(Lead(self.shared.clone()))))
    }

    async fn backlog(&self) -> Result<u64, PortError> {
        Ok(self.shared.content.lock().outbox.len() as u64)
    }
}

struct Lead(Arc<Shared>);

#[async_trait]
impl OutboxLease for Lead {
    async fn pending(&mut self, limit: usize) -> Result<Vec<OutboxEntry>, PortError> {
        Ok(self.0.content.lock().outbox.values().take(limit).cloned().collect())
    }

    async fn remove(&mut self, entries: &[OutboxId]) -> Result<(), PortError> {
        let mut content = self.0.content.lock();
        for OutboxId(id) in entries {
            content.outbox.remove(id);
        }
        Ok(())
    }

    async fn wait_for_entries(&mut self, patience: Duration) -> Result<(), PortError> {
        // Patience that runs out is no failure: the wait is over either way.
        let _ = tokio::time::timeout(patience, self.0.written.notified()).await;
        Ok(())
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.0.led.store(false, Ordering::SeqCst);
    }
}
