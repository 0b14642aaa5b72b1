use std::sync::{Arc, Weak};

use belfry_domain::Revision;
use tokio::sync::{Mutex, mpsc};

use super::session::Session;
use crate::ports::Device;

/// A bounded queue of sessions that missed an event. A session is queued at most once, because its gate
/// stays closed until it has caught up.
pub(super) struct LaggingSessions<D: Device> {
    sender: mpsc::Sender<LaggingSession<D>>,
    receiver: Mutex<mpsc::Receiver<LaggingSession<D>>>,
}

/// A session, and the last revision delivered to it.
type LaggingSession<D> = (Weak<Session<D>>, Revision);

/// The queue is full.
pub(super) struct QueueFull;

impl<D: Device> Default for LaggingSessions<D> {
    fn default() -> Self {
        const CAPACITY: usize = 4_096;
        let (sender, receiver) = mpsc::channel(CAPACITY);
        Self { sender, receiver: Mutex::new(receiver) }
    }
}

impl<D: Device> LaggingSessions<D> {
    /// Queues a session without waiting.
    pub(super) fn try_push(
        &self,
        session: &Arc<Session<D>>,
        last_delivered: Revision,
    ) -> Result<(), QueueFull> {
        let lagging = (Arc::downgrade(session), last_delivered);
        self.sender.try_send(lagging).map_err(|_| QueueFull)
    }

    /// Queues a session, waiting for space in the queue.
    pub(super) async fn push(&self, session: &Arc<Session<D>>, last_delivered: Revision) {
        // It cannot fail, because the queue keeps the receiver.
        let _ = self.sender.send((Arc::downgrade(session), last_delivered)).await;
    }

    /// Waits for the next session that has not ended. May be called concurrently.
    pub(super) async fn pop(&self) -> (Arc<Session<D>>, Revision) {
        loop {
            let next = self.receiver.lock().await.recv().await;
            let (session, last_delivered) = next.expect("the queue keeps a sender");
            if let Some(session) = session.upgrade() {
                return (session, last_delivered);
            }
        }
    }
}
