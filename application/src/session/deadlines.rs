use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use belfry_domain::Timestamp;
use parking_lot::Mutex;

use super::session::{Session, SessionId};
use crate::ports::Device;

/// When each session is to be looked at next. One place for all of them, as a timer for each would
/// cost every idle device a task.
pub(super) struct Deadlines<D: Device> {
    due: Mutex<ByTime<D>>,
}

type ByTime<D> = BTreeMap<(Timestamp, SessionId), Weak<Session<D>>>;

impl<D: Device> Default for Deadlines<D> {
    fn default() -> Self {
        Self { due: Mutex::default() }
    }
}

impl<D: Device> Deadlines<D> {
    /// The session shall be looked at then, and not at the instant it was to be before.
    pub(super) fn set(&self, session: &Arc<Session<D>>, at: Timestamp) {
        let mut due = self.due.lock();
        if let Some(before) = session.next_check(Some(at)) {
            due.remove(&(before, session.id()));
        }
        due.insert((at, session.id()), Arc::downgrade(session));
    }

    /// The session is gone.
    pub(super) fn forget(&self, session: &Session<D>) {
        let mut due = self.due.lock();
        if let Some(before) = session.next_check(None) {
            due.remove(&(before, session.id()));
        }
    }

    /// Takes out all that are due.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Arc<Session<D>>> {
        let mut due = self.due.lock();
        let mut sessions = Vec::new();
        while let Some(first) = due.first_entry().filter(|first| first.key().0 <= now) {
            if let Some(session) = first.remove().upgrade() {
                session.next_check(None);
                sessions.push(session);
            }
        }
        sessions
    }
}
