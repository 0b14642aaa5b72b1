//! The JSON forms that REST, Socket.IO and AMQP have in common.

mod cursor;
mod draft;
mod event;
mod invalid_event;
mod notification;
mod page;
mod push;
pub mod socket;
mod time;

pub use cursor::{Cursor, InvalidCursor};
pub use draft::{DraftForm, InvalidForm, TextOrNumber};
pub use event::EventForm;
pub use invalid_event::InvalidEvent;
pub use notification::NotificationForm;
pub use page::PageForm;
pub use push::{PushForm, SyncForm};
pub use time::Rfc3339;
