use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use belfry_domain::Revision;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::session::Session;
use crate::ports::Device;

/// A bounded queue of sessions that missed an event. A session is queued at most once: it is queued when its
/// gate closes, and the gate stays closed until the session has caught up.
pub(super) struct LaggingSessions<D: Device> {
    sender: mpsc::Sender<LaggingSession<D>>,
    receiver: Mutex<mpsc::Receiver<LaggingSession<D>>>,
    /// The number of [`LaggingSession`] values that exist.
    count: Arc<AtomicUsize>,
}

/// A session that has missed an event. It counts as lagging until this value is dropped.
pub(super) struct LaggingSession<D: Device> {
    session: Weak<Session<D>>,
    /// The session has to catch up from this revision.
    pub(super) last_delivered: Revision,
    /// When it was found that the session missed the event.
    pub(super) since: Instant,
    count: Arc<AtomicUsize>,
}

impl<D: Device> LaggingSession<D> {
    fn new(session: &Arc<Session<D>>, last_delivered: Revision, count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        let (session, since) = (Arc::downgrade(session), Instant::now());
        Self { session, last_delivered, since, count: count.clone() }
    }

    /// `None` if the session has ended.
    pub(super) fn session(&self) -> Option<Arc<Session<D>>> {
        self.session.upgrade()
    }
}

impl<D: Device> Drop for LaggingSession<D> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The queue is full.
pub(super) struct QueueFull;

impl<D: Device> Default for LaggingSessions<D> {
    fn default() -> Self {
        const CAPACITY: usize = 4_096;
        let (sender, receiver) = mpsc::channel(CAPACITY);
        Self { sender, receiver: Mutex::new(receiver), count: Arc::default() }
    }
}

impl<D: Device> LaggingSessions<D> {
    /// Queues a session without waiting.
    pub(super) fn try_push(
        &self,
        session: &Arc<Session<D>>,
        last_delivered: Revision,
    ) -> Result<(), QueueFull> {
        let lagging = LaggingSession::new(session, last_delivered, &self.count);
        self.sender.try_send(lagging).map_err(|_| QueueFull)
    }

    /// Queues a session, waiting for space in the queue.
    pub(super) async fn push(&self, session: &Arc<Session<D>>, last_delivered: Revision) {
        // Sending cannot fail, because this struct keeps the receiver.
        let _ = self.sender.send(LaggingSession::new(session, last_delivered, &self.count)).await;
    }

    /// Waits for the next session. May be called concurrently.
    pub(super) async fn pop(&self) -> LaggingSession<D> {
        let next = self.receiver.lock().await.recv().await;
        next.expect("this struct keeps a sender")
    }

    /// The number of sessions that are queued or whose [`LaggingSession`] is in use.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}
