//! The use cases of the inbound adapters, in store mode and in forward mode.

use std::sync::Arc;

use belfry_adapters::inbound::rest::RestUseCases;
use belfry_adapters::inbound::socketio::{InboxUseCases, SocketUseCases};
use belfry_application::ports::{Clock, InboxOwner, InboxRepository};
use belfry_application::use_cases::{
    CountUnread, CreateNotification, DeleteNotification, GetNotification, ListInbox, MarkAllRead,
    MarkRead, RequestChange,
};

/// Where the inboxes are, according to `amqp.ingest.mode`.
pub(super) enum Inboxes<'a> {
    /// Store mode: Belfry keeps the inboxes.
    Kept(&'a Arc<dyn InboxRepository>),
    /// Forward mode: another service keeps the inboxes. `None` if devices may not request changes.
    KeptElsewhere(Option<Arc<dyn InboxOwner>>),
}

impl Inboxes<'_> {
    pub(super) fn socket_use_cases(&self, clock: &Arc<dyn Clock>) -> SocketUseCases {
        match self {
            Self::Kept(inboxes) => SocketUseCases::Store(socket_inbox(inboxes, clock)),
            Self::KeptElsewhere(owner) => {
                SocketUseCases::Forward(owner.clone().map(RequestChange::new))
            }
        }
    }

    pub(super) fn rest_use_cases(&self, clock: &Arc<dyn Clock>) -> Option<Arc<RestUseCases>> {
        match self {
            Self::Kept(inboxes) => Some(Arc::new(rest_inbox(inboxes, clock))),
            Self::KeptElsewhere(_) => None,
        }
    }
}

fn socket_inbox(inboxes: &Arc<dyn InboxRepository>, clock: &Arc<dyn Clock>) -> InboxUseCases {
    InboxUseCases {
        mark_read: MarkRead::new(inboxes.clone(), clock.clone()),
        mark_all_read: MarkAllRead::new(inboxes.clone(), clock.clone()),
        delete: DeleteNotification::new(inboxes.clone(), clock.clone()),
        list: ListInbox::new(inboxes.clone()),
        count_unread: CountUnread::new(inboxes.clone()),
    }
}

fn rest_inbox(inboxes: &Arc<dyn InboxRepository>, clock: &Arc<dyn Clock>) -> RestUseCases {
    RestUseCases {
        create: CreateNotification::new(inboxes.clone()),
        list: ListInbox::new(inboxes.clone()),
        get: GetNotification::new(inboxes.clone()),
        count_unread: CountUnread::new(inboxes.clone()),
        mark_read: MarkRead::new(inboxes.clone(), clock.clone()),
        mark_all_read: MarkAllRead::new(inboxes.clone(), clock.clone()),
        delete: DeleteNotification::new(inboxes.clone(), clock.clone()),
    }
}
