use std::collections::HashMap;
use std::sync::Arc;

use belfry_domain::UserRoom;
use parking_lot::RwLock;

use super::session::Session;
use crate::ports::Device;

/// Who is in which room, on this node.
pub(super) struct Rooms<D: Device> {
    members: RwLock<HashMap<UserRoom, Vec<Arc<Session<D>>>>>,
}

impl<D: Device> Default for Rooms<D> {
    fn default() -> Self {
        Self { members: RwLock::new(HashMap::new()) }
    }
}

impl<D: Device> Rooms<D> {
    /// Puts the session into its user's room; there is no way into another one.
    pub(super) fn join(&self, session: Arc<Session<D>>) {
        let room = UserRoom::of(session.user().clone());
        self.members.write().entry(room).or_default().push(session);
    }

    /// Takes the session out, and the room away if it was the last. `false` if it was not there.
    pub(super) fn leave(&self, session: &Session<D>) -> bool {
        let room = UserRoom::of(session.user().clone());
        let mut members = self.members.write();
        let Some(present) = members.get_mut(&room) else {
            return false;
        };
        let before = present.len();
        present.retain(|other| other.id() != session.id());
        let left = present.len() < before;
        if present.is_empty() {
            members.remove(&room);
        }
        left
    }

    /// Shows each session in the room to `visit`.
    pub(super) fn for_each_in(&self, room: &UserRoom, mut visit: impl FnMut(&Arc<Session<D>>)) {
        if let Some(present) = self.members.read().get(room) {
            present.iter().for_each(&mut visit);
        }
    }

    /// All sessions, as they are now.
    pub(super) fn all(&self) -> Vec<Arc<Session<D>>> {
        self.members.read().values().flatten().cloned().collect()
    }

    pub(super) fn is_empty(&self, room: &UserRoom) -> bool {
        !self.members.read().contains_key(room)
    }

    /// How many sessions there are, in all rooms.
    pub(super) fn sessions(&self) -> usize {
        self.members.read().values().map(Vec::len).sum()
    }
}
