use std::collections::HashMap;
use std::sync::Arc;

use belfry_domain::UserRoom;
use parking_lot::RwLock;

use super::session::Session;
use crate::ports::Device;

/// The rooms of this node and their sessions.
pub(super) struct Rooms<D: Device> {
    rooms: RwLock<HashMap<UserRoom, Room<D>>>,
}

/// The sessions of one user. A room exists as long as it has a session or a reservation.
struct Room<D: Device> {
    /// In the order of joining.
    sessions: Vec<Arc<Session<D>>>,
    /// The number of reservations for sessions that have not joined yet.
    reserved: usize,
}

impl<D: Device> Default for Rooms<D> {
    fn default() -> Self {
        Self { rooms: RwLock::new(HashMap::new()) }
    }
}

impl<D: Device> Default for Room<D> {
    fn default() -> Self {
        Self { sessions: Vec::new(), reserved: 0 }
    }
}

impl<D: Device> Rooms<D> {
    /// Reserves a place for one session if the room has fewer than `limit` sessions and reservations.
    /// `true` if the place is reserved: the caller must then call
    /// [`release_reservation`](Self::release_reservation) or [`occupy`](Self::occupy) exactly once.
    pub(super) fn reserve(&self, room: UserRoom, limit: usize) -> bool {
        let mut rooms = self.rooms.write();
        let used = rooms.get(&room).map_or(0, |room| room.sessions.len() + room.reserved);
        let is_free = used < limit;
        if is_free {
            rooms.entry(room).or_default().reserved += 1;
        }
        is_free
    }

    /// Releases a reservation that no session has used.
    pub(super) fn release_reservation(&self, room: &UserRoom) {
        let mut rooms = self.rooms.write();
        if let Some(found) = rooms.get_mut(room) {
            found.reserved -= 1;
            if found.is_unused() {
                rooms.remove(room);
            }
        }
    }

    /// Adds the session to its user's room and uses up a reservation.
    pub(super) fn occupy(&self, session: Arc<Session<D>>) {
        let room = UserRoom::of(session.user().clone());
        let mut rooms = self.rooms.write();
        let room = rooms.entry(room).or_default();
        room.reserved -= 1;
        room.sessions.push(session);
    }

    /// Adds a session without a reservation to its user's room. If the room then has more than `limit`
    /// sessions, removes and returns the oldest ones.
    pub(super) fn join(
        &self,
        session: Arc<Session<D>>,
        limit: Option<usize>,
    ) -> Vec<Arc<Session<D>>> {
        let room = UserRoom::of(session.user().clone());
        let mut rooms = self.rooms.write();
        let sessions = &mut rooms.entry(room).or_default().sessions;
        sessions.push(session);
        let excess = limit.map_or(0, |limit| sessions.len().saturating_sub(limit));
        sessions.drain(..excess).collect()
    }

    /// Removes the session from its room, and removes the room if it has no other session or reservation.
    /// Returns `false` if the session was not in the room.
    pub(super) fn leave(&self, session: &Session<D>) -> bool {
        let room = UserRoom::of(session.user().clone());
        let mut rooms = self.rooms.write();
        let Some(found) = rooms.get_mut(&room) else {
            return false;
        };
        let count_before = found.sessions.len();
        found.sessions.retain(|other| other.id() != session.id());
        let removed = found.sessions.len() < count_before;
        if found.is_unused() {
            rooms.remove(&room);
        }
        removed
    }

    /// A copy of the list of sessions in the room. Sending to them takes longer than the lock may be held.
    pub(super) fn sessions_in(&self, room: &UserRoom) -> Vec<Arc<Session<D>>> {
        self.rooms.read().get(room).map(|room| room.sessions.clone()).unwrap_or_default()
    }

    /// A copy of all sessions of all rooms.
    pub(super) fn all_sessions(&self) -> Vec<Arc<Session<D>>> {
        self.rooms.read().values().flat_map(|room| &room.sessions).cloned().collect()
    }

    /// The number of sessions in all rooms.
    pub(super) fn session_count(&self) -> usize {
        self.rooms.read().values().map(|room| room.sessions.len()).sum()
    }

    #[cfg(test)]
    pub(super) fn room_count(&self) -> usize {
        self.rooms.read().len()
    }
}

impl<D: Device> Room<D> {
    fn is_unused(&self) -> bool {
        self.sessions.is_empty() && self.reserved == 0
    }
}
