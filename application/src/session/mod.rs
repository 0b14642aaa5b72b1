//! The rules of a device's session, for any transport: it signs in before it is anywhere; it hears
//! what it missed, then what happens, each thing once and in order; each of its messages is checked
//! against its claims; it does not outlive its token.
//!
//! ```text
//! sign in ──▶ join the room (live announcements are held back)
//!                └─▶ prepare (read where the inbox stands) ──▶ tell the client that it is connected
//!                       └─▶ start: sync, what was missed ──▶ what was held back ──▶ live
//! ```
//!
//! A transport brings a [`Device`](crate::ports::Device) and calls [`Sessions`]; nothing here
//! knows how bytes travel.

mod deadlines;
mod gate;
mod replay_turns;
mod rooms;
#[expect(clippy::module_inception, reason = "the session itself, in the module of its rules")]
mod session;
mod sessions;

pub use gate::{Gate, Passage, Release};
pub use session::{Session, SessionId};
pub use sessions::{
    Admission, ExcessPolicy, NotSynced, SessionLimit, SessionSettings, Sessions, TooManySessions,
};
