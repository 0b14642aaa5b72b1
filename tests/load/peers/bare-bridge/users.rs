//! The connected users and their sockets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::socket::Socket;

type Rooms = HashMap<Box<str>, Vec<Arc<Socket>>>;

/// All users share one lock. Only the consumer's task takes it often, so there is almost no contention.
#[derive(Debug, Default)]
pub(crate) struct Users(Mutex<Rooms>);

impl Users {
    pub(crate) fn join(&self, user: &str, socket: Arc<Socket>) {
        self.rooms(|rooms| rooms.entry(user.into()).or_default().push(socket));
    }

    pub(crate) fn leave(&self, user: &str, socket: &Arc<Socket>) {
        self.rooms(|rooms| {
            let Some(sockets) = rooms.get_mut(user) else { return };
            sockets.retain(|other| !Arc::ptr_eq(other, socket));
            if sockets.is_empty() {
                rooms.remove(user);
            }
        });
    }

    /// Calls `call` with the user's sockets, if there are any.
    pub(crate) fn with_sockets(&self, user: &str, call: impl FnOnce(&[Arc<Socket>])) {
        self.rooms(|rooms| {
            if let Some(sockets) = rooms.get(user) {
                call(sockets);
            }
        });
    }

    fn rooms<T>(&self, call: impl FnOnce(&mut Rooms) -> T) -> T {
        call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
