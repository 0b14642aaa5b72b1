use std::sync::Arc;

use belfry_application::use_cases::{
    CountUnread, DeleteNotification, ListInbox, MarkAllRead, MarkRead, RequestChange,
};

use super::settings::SocketIoSettings;
use crate::limits::UserWork;
use crate::outbound::socketio::SocketIoSessions;

/// The parts of a [`SocketIoServer`](super::SocketIoServer).
pub struct SocketIoParts {
    /// The sessions of connected devices.
    pub sessions: Arc<SocketIoSessions>,
    /// The use cases that devices can call.
    pub use_cases: SocketUseCases,
    /// Limits the work of each user. The limits are shared by all devices and REST requests of the user.
    pub work: UserWork,
    /// The server's settings.
    pub settings: SocketIoSettings,
}

/// The use cases that devices can call, by mode.
#[derive(Clone)]
pub enum SocketUseCases {
    /// Store mode: Belfry keeps the inboxes.
    Store(InboxUseCases),
    /// Forward mode: another service keeps the inboxes. [`RequestChange`] passes the changes that devices request on
    /// to it. With `None`, these requests are refused.
    Forward(Option<RequestChange>),
}

/// The use cases for a user's own inbox.
#[derive(Clone)]
#[expect(missing_docs, reason = "each field is named after its use case")]
pub struct InboxUseCases {
    pub mark_read: MarkRead,
    pub mark_all_read: MarkAllRead,
    pub delete: DeleteNotification,
    pub list: ListInbox,
    pub count_unread: CountUnread,
}
