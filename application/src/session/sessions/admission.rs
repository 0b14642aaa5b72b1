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
    pub over: Over,
}

/// Who goes where there would be too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The one that has been there for longest is sent away.
    Oldest,
    /// The new one is not let in.
    Newest,
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
    pub(super) place: Option<Place<D>>,
}

impl<D: Device> fmt::Debug for Admission<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("user", &self.claims.user).finish_non_exhaustive()
    }
}

pub(super) struct Place<D: Device> {
    rooms: Arc<Rooms<D>>,
    room: UserRoom,
    kept: bool,
}

impl<D: Device> Drop for Place<D> {
    fn drop(&mut self) {
        if self.kept {
            self.rooms.give_back(&self.room);
        }
    }
}

impl<D: Device> Sessions<D> {
    /// Puts a session into its room, and answers those that have to leave it for that.
    pub(super) fn enter(
        &self,
        session: Arc<Session<D>>,
        place: Option<Place<D>>,
    ) -> Vec<Arc<Session<D>>> {
        match place {
            Some(mut place) => {
                self.rooms.take_place(session);
                place.kept = false;
                Vec::new()
            }
            None => self.rooms.join(session, self.settings.limit.map(|limit| limit.per_user)),
        }
    }

    /// Whether there is a place for a device of this user.
    pub fn admit(&self, claims: Claims) -> Result<Admission<D>, TooManySessions> {
        let place = match self.settings.limit {
            Some(SessionLimit { per_user, over: Over::Newest }) => {
                let room = UserRoom::of(claims.user.clone());
                if !self.rooms.keep_place(room.clone(), per_user) {
                    return Err(TooManySessions);
                }
                Some(Place { rooms: self.rooms.clone(), room, kept: true })
            }
            Some(SessionLimit { over: Over::Oldest, .. }) | None => None,
        };
        Ok(Admission { claims, place })
    }
}
