//! The JSON forms that REST, Socket.IO and AMQP have in common.

mod cursor;
mod draft;
mod event;
pub(crate) mod integer;
mod invalid_event;
mod notification;
mod page;
mod page_limit;
mod push;
pub mod socket;
mod time;

pub use cursor::{Cursor, InvalidCursor};
pub(crate) use draft::check_depth;
pub use draft::{DraftForm, InvalidForm, TextOrNumber, check_link};
pub use event::EventForm;
pub use integer::Integer;
pub use invalid_event::InvalidEvent;
pub use notification::NotificationForm;
pub use page::PageForm;
pub use page_limit::page_limit;
pub use push::{PushForm, SyncForm};
pub use time::Rfc3339;
