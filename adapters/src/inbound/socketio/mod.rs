//! The Socket.IO door: a thin binding of [`Sessions`](belfry_application::session::Sessions) to what
//! devices speak.
//!
//! A device signs in before it is in a namespace, hears what it missed and then what happens, and
//! each of its messages passes the guard. All of that is decided in
//! [`belfry_application::session`]; here it is only said in Socket.IO's words: by ourselves to devices
//! that come by a WebSocket (`websocket`), by the library socketioxide to those that poll (`library`).

mod admission;
mod answer;
mod door;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handshake;
mod inflow;
mod library;
mod messages;
mod service;
mod websocket;

pub use service::{InboxStories, SocketIoDoor, SocketIoParts, SocketIoSettings};
