//! The domain of Belfry: notifications, inboxes and the rules by which an inbox changes.
//!
//! - [`Draft`] and [`Notification`] with their fields ([`Title`], [`Link`], …). A value exists only if
//!   it is valid: parse it once at the edge (`Title::parse`), then pass the type.
//! - [`Inbox`] is one user's inbox in memory, the reference implementation for every store: creating,
//!   reading, deleting, expiry and the history that a returning device needs. [`InboxState`] is its latest
//!   [`Revision`], the counter of its changes, and its [`UnreadCount`].
//! - [`DomainEvent`] is one stored change of an inbox, to be published and delivered.
//! - [`ReplayRange`] and [`ReplayBatch`] describe the changes that a device missed.
//! - [`UserId`] and [`UserRoom`] name the recipient and the room of that user's devices.
//!
//! Everything is pure: no I/O, no clock, no async, no wire format.
//!
//! ```
//! use belfry_domain::{Inbox, UserId};
//!
//! let ada = UserId::parse("ada")?;
//! assert_eq!(Inbox::new(ada).state().unread.get(), 0);
//! # Ok::<(), belfry_domain::InvalidUserId>(())
//! ```

mod event;
mod inbox;
mod inbox_state;
mod notification;
mod replay;
mod retention;
mod text;
mod time;
mod user;

pub use event::{Change, DomainEvent, EventName, InvalidEventName};
pub use inbox::{Inbox, Marked, Receipt};
pub use inbox_state::{Epoch, InboxState, InvalidEpoch, Revision, UnreadCount};
pub use notification::{
    Data, Draft, InvalidData, InvalidDraft, InvalidId, InvalidLink, InvalidLinkScheme,
    InvalidMessage, InvalidNotificationKind, InvalidPriority, InvalidTitle, Link, LinkScheme,
    LinkSchemeNotAllowed, LinkSchemes, Message, Notification, NotificationId, NotificationKind,
    Priority, Title,
};
pub use replay::{MissedChange, MissedCount, ReplayBatch, ReplayRange};
pub use retention::ExpiryCutoff;
pub use time::Timestamp;
pub use user::{InvalidUserId, UserId, UserRoom};
