use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use belfry_domain::{NotificationId, Timestamp, UserId, UserRoom};
use parking_lot::Mutex;

use super::samples::{claims, id};
use crate::ports::{
    BearerToken, Claims, Clock, CloseReason, Device, EventPublisher, IdGenerator, InboxOwner,
    KeyFingerprint, OutboxEntry, PortError, PublishOutcome, RealtimeDelivery, RequestedChange,
    SendError, TokenError, TokenVerifier, WorkBudget,
};
use crate::push::{Push, PushBatch};

/// A clock that tests set.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Starts `millis` milliseconds after the Unix epoch.
    pub fn at(millis: i64) -> Self {
        Self(AtomicI64::new(millis))
    }

    /// Sets the time, forwards or backwards.
    pub fn set(&self, millis: i64) {
        self.0.store(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Predictable ids: `id-1`, `id-2`, …
#[derive(Debug, Default)]
pub struct SequentialIds(AtomicU64);

impl IdGenerator for SequentialIds {
    fn notification_id(&self) -> NotificationId {
        id(&format!("id-{}", self.0.fetch_add(1, Ordering::SeqCst) + 1))
    }
}

/// Accepts tokens of the form `<user>:<expiry in milliseconds>`.
#[derive(Debug, Clone, Copy)]
pub struct FakeTokenVerifier;

#[async_trait]
impl TokenVerifier for FakeTokenVerifier {
    async fn verify(&self, token: &BearerToken) -> Result<Claims, TokenError> {
        let parts = token.reveal().rsplit_once(':');
        let parsed = parts.and_then(|(user, expiry)| Some((user, expiry.parse().ok()?)));
        parsed
            .map(|(user, expiry)| claims(user, expiry))
            .ok_or(TokenError::Invalid("not `<user>:<expiry>`"))
    }

    fn accepted_keys(&self) -> HashSet<KeyFingerprint> {
        HashSet::from([KeyFingerprint::default()])
    }
}

/// A budget that is never exhausted.
#[derive(Debug, Clone, Copy)]
pub struct UnlimitedWork;

#[async_trait]
impl WorkBudget for UnlimitedWork {
    async fn available(&self, _: &UserId) {}

    fn charge(&self, _: &UserId, _: usize, _: usize) {}
}

/// Confirms and records every entry.
#[derive(Debug, Default)]
pub struct RecordingPublisher(Mutex<Vec<OutboxEntry>>);

impl RecordingPublisher {
    /// All published entries, in order.
    pub fn published(&self) -> Vec<OutboxEntry> {
        self.0.lock().clone()
    }
}

#[async_trait]
impl EventPublisher for RecordingPublisher {
    async fn publish(&self, entries: &[OutboxEntry]) -> PublishOutcome {
        self.0.lock().extend_from_slice(entries);
        PublishOutcome::all_confirmed(entries)
    }
}

/// Accepts and records every request.
#[derive(Debug, Default)]
pub struct RecordingInboxOwner(Mutex<Vec<(UserId, RequestedChange)>>);

impl RecordingInboxOwner {
    /// All requests, in order.
    pub fn requests(&self) -> Vec<(UserId, RequestedChange)> {
        self.0.lock().clone()
    }
}

#[async_trait]
impl InboxOwner for RecordingInboxOwner {
    async fn request(&self, user: &UserId, change: &RequestedChange) -> Result<(), PortError> {
        self.0.lock().push((user.clone(), change.clone()));
        Ok(())
    }
}

/// Records every delivered batch and its room.
#[derive(Debug, Default)]
pub struct RecordingDelivery(Mutex<Vec<(UserRoom, PushBatch)>>);

impl RecordingDelivery {
    /// All deliveries, in order.
    pub fn delivered(&self) -> Vec<(UserRoom, PushBatch)> {
        self.0.lock().clone()
    }
}

#[async_trait]
impl RealtimeDelivery for RecordingDelivery {
    /// Each room has one device.
    async fn deliver(&self, room: &UserRoom, batch: PushBatch) -> usize {
        self.0.lock().push((room.clone(), batch));
        1
    }
}

/// A device that records every push. Its send queue can be limited. A full queue accepts no push until the
/// test calls [`read_frames`](Self::read_frames) or [`read_all`](Self::read_all).
#[derive(Debug, Clone)]
pub struct FakeDevice(Arc<Mutex<Connection>>);

#[derive(Debug)]
struct Connection {
    received: Vec<Push>,
    /// The length of the send queue in frames.
    queued: usize,
    /// The maximum length of the send queue; `None` for a device that reads each frame at once.
    capacity: Option<usize>,
    close_reason: Option<CloseReason>,
}

impl Default for FakeDevice {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeDevice {
    /// A device that reads each frame at once.
    pub fn new() -> Self {
        Self::with_capacity(None)
    }

    /// A device whose send queue is full when it contains `capacity` frames.
    pub fn with_queue_of(capacity: usize) -> Self {
        Self::with_capacity(Some(capacity))
    }

    fn with_capacity(capacity: Option<usize>) -> Self {
        let connection =
            Connection { received: Vec::new(), queued: 0, capacity, close_reason: None };
        Self(Arc::new(Mutex::new(connection)))
    }

    /// Reads all queued frames.
    pub fn read_all(&self) {
        self.read_frames(usize::MAX);
    }

    /// Reads at most `count` queued frames.
    pub fn read_frames(&self, count: usize) {
        let mut connection = self.0.lock();
        connection.queued = connection.queued.saturating_sub(count);
    }

    /// All pushes that the send queue has accepted, in order. Some may not be read yet.
    pub fn received(&self) -> Vec<Push> {
        self.0.lock().received.clone()
    }

    /// The ids of the new notifications among [`received`](Self::received), in order.
    pub fn received_ids(&self) -> Vec<String> {
        let new = |push: &Push| match push {
            Push::New(notification) => Some(notification.id.to_string()),
            _ => None,
        };
        self.0.lock().received.iter().filter_map(new).collect()
    }

    /// The reason for which the device was closed; `None` while it is open.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.lock().close_reason
    }
}

impl Device for FakeDevice {
    type Frame = Push;

    fn frame(push: &Push) -> Push {
        push.clone()
    }

    fn send(&self, frame: &Push) -> Result<(), SendError> {
        let mut connection = self.0.lock();
        if connection.close_reason.is_some() {
            return Err(SendError::Closed);
        }
        if let Some(capacity) = connection.capacity {
            if connection.queued >= capacity {
                return Err(SendError::Full);
            }
            connection.queued += 1;
        }
        connection.received.push(frame.clone());
        Ok(())
    }

    fn queued(&self) -> usize {
        let connection = self.0.lock();
        if connection.close_reason.is_some() { 0 } else { connection.queued }
    }

    fn close(&self, why: CloseReason) {
        self.0.lock().close_reason.get_or_insert(why);
    }
}
