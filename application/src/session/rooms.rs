use std::collections::HashMap;
use std::sync::Arc;

use belfry_domain::UserRoom;
use parking_lot::RwLock;

use super::session::Session;
use crate::ports::Device;

/// Who is in which room, on this node.
pub(super) struct Rooms<D: Device> {
    rooms: RwLock<HashMap<UserRoom, Room<D>>>,
}

/// A room is there as long as somebody is in it, or has a place kept in it.
struct Room<D: Device> {
    /// In the order in which they came.
    present: Vec<Arc<Session<D>>>,
    /// How many places are kept for those who are on their way in.
    kept: usize,
}

impl<D: Device> Default for Rooms<D> {
    fn default() -> Self {
        Self { rooms: RwLock::new(HashMap::new()) }
    }
}

impl<D: Device> Default for Room<D> {
    fn default() -> Self {
        Self { present: Vec::new(), kept: 0 }
    }
}

impl<D: Device> Rooms<D> {
    /// Keeps a place in the room, if no more than `at_most` are taken or kept then. `true` must be
    /// followed by one [`release_reservation`](Self::release_reservation) or [`occupy`](Self::occupy).
    pub(super) fn reserve(&self, room: UserRoom, at_most: usize) -> bool {
        let mut rooms = self.rooms.write();
        let taken = rooms.get(&room).map_or(0, |room| room.present.len() + room.kept);
        let free = taken < at_most;
        if free {
            rooms.entry(room).or_default().kept += 1;
        }
        free
    }

    /// The place that was kept is not needed.
    pub(super) fn release_reservation(&self, room: &UserRoom) {
        let mut rooms = self.rooms.write();
        if let Some(found) = rooms.get_mut(room) {
            found.kept -= 1;
            if found.is_deserted() {
                rooms.remove(room);
            }
        }
    }

    /// Puts the session into its user's room, in the place that was kept there.
    pub(super) fn occupy(&self, session: Arc<Session<D>>) {
        let room = UserRoom::of(session.user().clone());
        let mut rooms = self.rooms.write();
        let room = rooms.entry(room).or_default();
        room.kept -= 1;
        room.present.push(session);
    }

    /// Puts the session into its user's room; there is no way into another one. Takes out and
    /// answers those who have been there for longest, as far as there are more than `at_most` then.
    pub(super) fn join(
        &self,
        session: Arc<Session<D>>,
        at_most: Option<usize>,
    ) -> Vec<Arc<Session<D>>> {
        let room = UserRoom::of(session.user().clone());
        let mut rooms = self.rooms.write();
        let present = &mut rooms.entry(room).or_default().present;
        present.push(session);
        let too_many = at_most.map_or(0, |at_most| present.len().saturating_sub(at_most));
        present.drain(..too_many).collect()
    }

    /// Takes the session out, and the room away if it was the last. `false` if it was not there.
    pub(super) fn leave(&self, session: &Session<D>) -> bool {
        let room = UserRoom::of(session.user().clone());
        let mut rooms = self.rooms.write();
        let Some(found) = rooms.get_mut(&room) else {
            return false;
        };
        let before = found.present.len();
        found.present.retain(|other| other.id() != session.id());
        let left = found.present.len() < before;
        if found.is_deserted() {
            rooms.remove(&room);
        }
        left
    }

    /// Who is in the room now. A copy, as telling them takes longer than others should wait for the
    /// rooms.
    pub(super) fn present_in(&self, room: &UserRoom) -> Vec<Arc<Session<D>>> {
        self.rooms.read().get(room).map(|room| room.present.clone()).unwrap_or_default()
    }

    /// All sessions, as they are now.
    pub(super) fn all(&self) -> Vec<Arc<Session<D>>> {
        self.rooms.read().values().flat_map(|room| &room.present).cloned().collect()
    }

    /// How many sessions there are, in all rooms.
    pub(super) fn sessions(&self) -> usize {
        self.rooms.read().values().map(|room| room.present.len()).sum()
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.rooms.read().len()
    }
}

impl<D: Device> Room<D> {
    fn is_deserted(&self) -> bool {
        self.present.is_empty() && self.kept == 0
    }
}
