use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use belfry_domain::Timestamp;
use parking_lot::Mutex;

use super::session::{Session, SessionId};
use crate::ports::Device;

/// The schedule of expiry checks: the instant of each session's next check. All sessions share one schedule,
/// because a timer per session would cost a task for every idle device.
pub(super) struct Deadlines<D: Device> {
    by_time: Mutex<ByTime<D>>,
}

type ByTime<D> = BTreeMap<(Timestamp, SessionId), Weak<Session<D>>>;

impl<D: Device> Default for Deadlines<D> {
    fn default() -> Self {
        Self { by_time: Mutex::default() }
    }
}

impl<D: Device> Deadlines<D> {
    /// Schedules the session's next check at `at`. Replaces the check that is scheduled for it so far.
    pub(super) fn schedule(&self, session: &Arc<Session<D>>, at: Timestamp) {
        let mut by_time = self.by_time.lock();
        if let Some(previous) = session.replace_next_check(Some(at)) {
            by_time.remove(&(previous, session.id()));
        }
        by_time.insert((at, session.id()), Arc::downgrade(session));
    }

    /// Removes the session from the schedule.
    pub(super) fn cancel(&self, session: &Session<D>) {
        let mut by_time = self.by_time.lock();
        if let Some(previous) = session.replace_next_check(None) {
            by_time.remove(&(previous, session.id()));
        }
    }

    /// Removes and returns all sessions whose check is due.
    pub(super) fn take_due(&self, now: Timestamp) -> Vec<Arc<Session<D>>> {
        let mut by_time = self.by_time.lock();
        let mut sessions = Vec::new();
        while let Some(first) = by_time.first_entry().filter(|first| first.key().0 <= now) {
            if let Some(session) = first.remove().upgrade() {
                session.replace_next_check(None);
                sessions.push(session);
            }
        }
        sessions
    }
}
