use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::outbound::relational::Wakeup;

/// Wakes the outbox's leader after a commit, and makes sure that there is at most one leader. The
/// store and its lease share it.
#[derive(Debug, Default)]
pub(super) struct CommitNotifier {
    /// Stores one wakeup for a leader that is about to wait.
    committed: Notify,
    has_leader: AtomicBool,
}

impl CommitNotifier {
    /// Wakes the leader when the returned value is dropped.
    pub(super) fn wakeup_on_drop(&self) -> Wakeup<impl FnMut()> {
        Wakeup::on_drop(|| self.committed.notify_one())
    }

    /// Waits for a commit, at most `patience`.
    pub(super) async fn commit(&self, patience: Duration) {
        // The caller reads the outbox after a timeout too.
        let _ = tokio::time::timeout(patience, self.committed.notified()).await;
    }

    /// `None` if there is a leader.
    pub(super) fn try_lead(self: &Arc<Self>) -> Option<LeaderFlag> {
        let has_leader = self.has_leader.swap(true, Ordering::SeqCst);
        (!has_leader).then(|| LeaderFlag(self.clone()))
    }
}

/// Marks the outbox as led until it is dropped.
#[derive(Debug)]
pub(super) struct LeaderFlag(Arc<CommitNotifier>);

impl Drop for LeaderFlag {
    fn drop(&mut self) {
        self.0.has_leader.store(false, Ordering::SeqCst);
    }
}
