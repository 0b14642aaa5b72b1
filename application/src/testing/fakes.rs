use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use belfry_domain::{NotificationId, Timestamp, UserRoom};
use parking_lot::Mutex;

use super::samples::{claims, id};
use crate::ports::{
    BearerToken, Claims, Clock, CloseReason, Device, EventPublisher, IdGenerator, OutboxEntry,
    Published, RealtimeDelivery, SendError, TokenError, TokenVerifier,
};
use crate::push::{Push, PushBatch};

/// A clock that moves when it is told to.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at so many milliseconds after 1970 began.
    pub fn at(millis: i64) -> Self {
        Self(AtomicI64::new(millis))
    }

    /// Moves it there, forward or back.
    pub fn set(&self, millis: i64) {
        self.0.store(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Ids that can be foretold: `id-1`, `id-2`, …
#[derive(Debug, Default)]
pub struct SequentialIds(AtomicU64);

impl IdGenerator for SequentialIds {
    fn notification_id(&self) -> NotificationId {
        id(&format!("id-{}", self.0.fetch_add(1, Ordering::SeqCst) + 1))
    }
}

/// Believes a token that reads `<user>:<expiry in milliseconds>`, and no other.
#[derive(Debug, Clone, Copy)]
pub struct FakeTokens;

#[async_trait]
impl TokenVerifier for FakeTokens {
    async fn verify(&self, token: &BearerToken) -> Result<Claims, TokenError> {
        let parts = token.reveal().rsplit_once(':');
        let parsed = parts.and_then(|(user, expiry)| Some((user, expiry.parse().ok()?)));
        parsed
            .map(|(user, expiry)| claims(user, expiry))
            .ok_or(TokenError::Invalid("not `<user>:<expiry>`"))
    }
}

/// Remembers what was published.
#[derive(Debug, Default)]
pub struct RecordingPublisher(Mutex<Vec<OutboxEntry>>);

impl RecordingPublisher {
    /// All of it, in order.
    pub fn published(&self) -> Vec<OutboxEntry> {
        self.0.lock().clone()
    }
}

#[async_trait]
impl EventPublisher for RecordingPublisher {
    async fn publish(&self, entries: &[OutboxEntry]) -> Published {
        self.0.lock().extend_from_slice(entries);
        Published::all(entries)
    }
}

/// Remembers what was delivered, and to whom.
#[derive(Debug, Default)]
pub struct RecordingDelivery(Mutex<Vec<(UserRoom, PushBatch)>>);

impl RecordingDelivery {
    /// All of it, in order.
    pub fn delivered(&self) -> Vec<(UserRoom, PushBatch)> {
        self.0.lock().clone()
    }
}

#[async_trait]
impl RealtimeDelivery for RecordingDelivery {
    async fn deliver(&self, room: &UserRoom, announcement: PushBatch) {
        self.0.lock().push((room.clone(), announcement));
    }
}

/// A device that remembers what it heard. It may have room for only so much until it reads.
#[derive(Debug, Clone)]
pub struct FakeDevice(Arc<Mutex<Connection>>);

#[derive(Debug)]
struct Connection {
    heard: Vec<Push>,
    /// How many frames wait to be read.
    unread: usize,
    /// How many may wait; `None` for a device that reads each frame at once.
    capacity: Option<usize>,
    closed: Option<CloseReason>,
}

impl Default for FakeDevice {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeDevice {
    /// A device that reads each frame at once.
    pub fn new() -> Self {
        Self::of(None)
    }

    /// A device that takes so many frames and then no more, until it reads.
    pub fn with_room_for(capacity: usize) -> Self {
        Self::of(Some(capacity))
    }

    fn of(capacity: Option<usize>) -> Self {
        let connection = Connection { heard: Vec::new(), unread: 0, capacity, closed: None };
        Self(Arc::new(Mutex::new(connection)))
    }

    /// Reads all that is queued, which makes room.
    pub fn read(&self) {
        self.read_frames(usize::MAX);
    }

    /// Reads at most so many of the frames that are queued.
    pub fn read_frames(&self, count: usize) {
        let mut connection = self.0.lock();
        connection.unread = connection.unread.saturating_sub(count);
    }

    /// All it heard.
    pub fn heard(&self) -> Vec<Push> {
        self.0.lock().heard.clone()
    }

    /// The ids of the notifications it heard of as new.
    pub fn heard_ids(&self) -> Vec<String> {
        let new = |push: &Push| match push {
            Push::New(notification) => Some(notification.id.to_string()),
            _ => None,
        };
        self.0.lock().heard.iter().filter_map(new).collect()
    }

    /// Why it was closed, if it was.
    pub fn closed(&self) -> Option<CloseReason> {
        self.0.lock().closed
    }
}

impl Device for FakeDevice {
    type Frame = Push;

    fn frame(push: &Push) -> Push {
        push.clone()
    }

    fn send(&self, frame: &Push) -> Result<(), SendError> {
        let mut connection = self.0.lock();
        if connection.closed.is_some() {
            return Err(SendError::Closed);
        }
        if let Some(capacity) = connection.capacity {
            if connection.unread >= capacity {
                return Err(SendError::Full);
            }
            connection.unread += 1;
        }
        connection.heard.push(frame.clone());
        Ok(())
    }

    fn queued(&self) -> usize {
        let connection = self.0.lock();
        if connection.closed.is_some() { 0 } else { connection.unread }
    }

    fn close(&self, why: CloseReason) {
        self.0.lock().closed.get_or_insert(why);
    }
}
