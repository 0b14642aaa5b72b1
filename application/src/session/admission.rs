//! The limit on the number of sessions per user on one node.

use std::fmt;
use std::sync::Arc;

use belfry_domain::UserRoom;

use super::rooms::Rooms;
use super::session::Session;
use crate::ports::{Claims, Device};

/// The maximum number of concurrent sessions per user on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimit {
    /// The maximum number.
    pub per_user: usize,
    /// The policy for further sessions.
    pub on_excess: ExcessPolicy,
}

/// The policy for a user who is at the limit and opens another session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExcessPolicy {
    /// Disconnect the user's oldest session.
    EvictOldest,
    /// Reject the new session.
    RejectNewest,
}

/// The user has reached the session limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the user has too many sessions")]
pub struct TooManySessions;

impl TooManySessions {
    /// The stable code for clients.
    pub const CODE: &str = "too_many_sessions";
}

/// The permission for a session to join its user's room. With [`ExcessPolicy::RejectNewest`] it contains a
/// reservation, so that concurrent connects cannot exceed the limit and an admitted session can always join.
/// Dropping the admission releases the reservation.
pub struct Admission<D: Device> {
    pub(super) claims: Claims,
    pub(super) reservation: Option<SessionReservation<D>>,
}

impl<D: Device> fmt::Debug for Admission<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("user", &self.claims.user).finish_non_exhaustive()
    }
}

/// A reserved place in a room. Dropping it releases the place unless a session occupies it.
pub(super) struct SessionReservation<D: Device> {
    rooms: Arc<Rooms<D>>,
    room: UserRoom,
    occupied: bool,
}

impl<D: Device> SessionReservation<D> {
    /// Fails if the room already has `limit` sessions and reservations together.
    pub(super) fn new(
        rooms: Arc<Rooms<D>>,
        room: UserRoom,
        limit: usize,
    ) -> Result<Self, TooManySessions> {
        if rooms.reserve(room.clone(), limit) {
            Ok(Self { rooms, room, occupied: false })
        } else {
            Err(TooManySessions)
        }
    }

    pub(super) fn occupy(mut self, session: Arc<Session<D>>) {
        self.rooms.occupy(session);
        self.occupied = true;
    }
}

impl<D: Device> Drop for SessionReservation<D> {
    fn drop(&mut self) {
        if !self.occupied {
            self.rooms.release_reservation(&self.room);
        }
    }
}
