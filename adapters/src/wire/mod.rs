//! The JSON forms, the same at every door: REST, sockets and AMQP.

mod cursor;
mod draft;
mod event;
mod notification;
mod page;
mod push;
mod time;

pub use cursor::{Cursor, InvalidCursor};
pub use draft::{DraftForm, InvalidForm, TextOrNumber};
pub use event::{EventForm, InvalidEvent};
pub use notification::NotificationForm;
pub use page::PageForm;
pub use push::{PushForm, SyncForm};
pub use time::Rfc3339;
