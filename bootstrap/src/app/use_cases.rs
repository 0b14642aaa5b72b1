//! The use cases of each inbound adapter.

use std::sync::Arc;

use belfry_adapters::inbound::rest::RestUseCases;
use belfry_adapters::inbound::socketio::SocketUseCases;
use belfry_application::ports::{Clock, InboxRepository};
use belfry_application::use_cases::{
    CountUnread, DeleteNotification, GetNotification, ListInbox, MarkAllRead, MarkRead,
};

pub(super) fn socket_use_cases(
    inboxes: &Arc<dyn InboxRepository>,
    clock: &Arc<dyn Clock>,
) -> SocketUseCases {
    SocketUseCases {
        mark_read: MarkRead::new(inboxes.clone(), clock.clone()),
        mark_all_read: MarkAllRead::new(inboxes.clone(), clock.clone()),
        delete: DeleteNotification::new(inboxes.clone(), clock.clone()),
        list: ListInbox::new(inboxes.clone()),
        count_unread: CountUnread::new(inboxes.clone()),
    }
}

pub(super) fn rest_use_cases(
    inboxes: &Arc<dyn InboxRepository>,
    clock: &Arc<dyn Clock>,
) -> RestUseCases {
    RestUseCases {
        list: ListInbox::new(inboxes.clone()),
        get: GetNotification::new(inboxes.clone()),
        count_unread: CountUnread::new(inboxes.clone()),
        mark_read: MarkRead::new(inboxes.clone(), clock.clone()),
        mark_all_read: MarkAllRead::new(inboxes.clone(), clock.clone()),
        delete: DeleteNotification::new(inboxes.clone(), clock.clone()),
    }
}
