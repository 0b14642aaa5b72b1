//! The words and rules of Belfry: what a notification is, whose inbox it is in, and how an inbox
//! changes.
//!
//! Everything here is pure: no I/O, no clock, no wire format. A value exists only if it is valid,
//! so it is parsed once, where it comes in, and carried as its type from there on.

mod event;
mod inbox;
mod notification;
mod replay;
mod retention;
mod text;
mod time;
mod user;

pub use event::{Change, DomainEvent};
pub use inbox::{Epoch, Inbox, InboxState, InvalidEpoch, Marked, Receipt, Revision, UnreadCount};
pub use notification::{
    Data, Draft, InvalidData, InvalidDraft, InvalidId, InvalidKind, InvalidLink, InvalidMessage,
    InvalidPriority, InvalidTitle, Kind, Link, Message, Notification, NotificationId, Priority,
    Title,
};
pub use replay::{Missed, MissedChange, MissedCount, ReplayRange};
pub use retention::Due;
pub use time::Timestamp;
pub use user::{InvalidUserId, UserId, UserRoom};
