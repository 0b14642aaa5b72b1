//! Devices that come by a WebSocket: Engine.IO 4 and Socket.IO 5, spoken by us.
//!
//! There is one task for each connection ([`Session`]), which waits for frames and for the time, and what
//! it shares with those who answer ([`Socket`](socket::Socket)). All that is said to a device goes by its
//! [`Outlet`](crate::transport::Outlet), from whatever task has it, so nothing is queued here.

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod heartbeat;
mod packet;
mod session;
mod socket;

pub(super) use packet::ATTACHMENTS;
pub(super) use session::Session;
