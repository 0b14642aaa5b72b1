//! How many sessions a user may have.

use std::fmt;
use std::sync::Arc;

use belfry_domain::UserRoom;

use super::Sessions;
use crate::ports::{Claims, Device};
use crate::session::Session;
use crate::session::rooms::Rooms;

/// How many sessions a user may have at once, and who goes where there would be more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimit {
    /// The most of one user.
    pub per_user: usize,
    /// Who goes.
    pub on_excess: ExcessPolicy,
}

/// Who goes where there would be too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExcessPolicy {
    /// The one that has been there for longest is sent away.
    EvictOldest,
    /// The new one is not let in.
    RejectNewest,
}

/// The user has as many sessions as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the user has too many sessions")]
pub struct TooManySessions;

impl TooManySessions {
    /// A stable word for programs.
    pub const CODE: &str = "too_many_sessions";
}

/// A device that may come in. Where new ones can be refused, it has a place in its user's room from now
/// on, so that it is not refused after it was told that it is in; dropped, it gives that back.
pub struct Admission<D: Device> {
    pub(super) claims: Claims,
    pub(super) place: Option<SessionReservation<D>>,
}

impl<D: Device> fmt::Debug for Admission<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("user", &self.claims.user).finish_non_exhaustive()
    }
}

pub(super) struct SessionReservation<D: Device> {
    rooms: Arc<Rooms<D>>,
    room: UserRoom,
    kept: bool,
}

impl<D: Device> Drop for SessionReservation<D> {
    fn drop(&mut self) {
        if self.kept {
            self.rooms.release_reservation(&self.room);
        }
    }
}

impl<D: Device> Sessions<D> {
    /// Puts a session into its room, and answers those that have to leave it for that.
    pub(super) fn enter(
        &self,
        session: Arc<Session<D>>,
        place: Option<SessionReservation<D>>,
    ) -> Vec<Arc<Session<D>>> {
        match place {
            Some(mut place) => {
                self.rooms.occupy(session);
                place.kept = false;
                Vec::new()
            }
            None => self.rooms.join(session, self.settings.limit.map(|limit| limit.per_user)),
        }
    }

    /// Whether there is a place for a device of this user.
    pub fn admit(&self, claims: Claims) -> Result<Admission<D>, TooManySessions> {
        let place = match self.settings.limit {
            Some(SessionLimit { per_user, on_excess: ExcessPolicy::RejectNewest }) => {
                let room = UserRoom::of(claims.user.clone());
                if !self.rooms.reserve(room.clone(), per_user) {
                    return Err(TooManySessions);
                }
                Some(SessionReservation { rooms: self.rooms.clone(), room, kept: true })
            }
            Some(SessionLimit { on_excess: ExcessPolicy::EvictOldest, .. }) | None => None,
        };
        Ok(Admission { claims, place })
    }
}
