//! Who is connected, and by which sockets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::socket::Socket;

type Rooms = HashMap<Box<str>, Vec<Arc<Socket>>>;

/// One lock for all: the consumer's task is the only one that takes it often, so it hardly ever waits.
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

    /// Calls it only for a user who has sockets.
    pub(crate) fn each_socket(&self, user: &str, call: impl FnOnce(&[Arc<Socket>])) {
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
