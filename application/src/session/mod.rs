//! The rules of a device's session, for any transport. A device signs in before it joins its user's room. It
//! receives the changes that it missed, then live events, each once and in order. Each of its messages
//! is checked against the claims of its token. Its session ends when its token expires or is revoked.
//!
//! Each session has a gate, a filter between live events and the device:
//!
//! ```text
//! sign in ──▶ join the room (the gate holds live events back)
//!                └─▶ prepare (read the state of the inbox) ──▶ confirm the connect to the client
//!                       └─▶ start: sync, missed changes ──▶ held events ──▶ live events
//! ```
//!
//! A transport implements [`Device`](crate::ports::Device) and calls [`Sessions`]. Nothing here knows
//! how bytes travel.

mod admission;
mod deadlines;
mod gate;
mod lagging_sessions;
mod replay_limiter;
mod rooms;
#[expect(clippy::module_inception, reason = "the session itself, within the session rules")]
mod session;
mod sessions;
mod slow_reader;
mod sync_error;

pub use admission::{Admission, ExcessPolicy, SessionLimit, TooManySessions};
pub use session::{Session, SessionId};
pub use sessions::{SessionSettings, Sessions};
pub use sync_error::SyncError;
