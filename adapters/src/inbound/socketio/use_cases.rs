use belfry_application::use_cases::{
    CountUnread, DeleteNotification, ListInbox, MarkAllRead, MarkRead,
};

/// The use cases that devices can ask for.
#[derive(Clone)]
#[expect(missing_docs, reason = "each is the use case that it is named after")]
pub struct SocketUseCases {
    pub mark_read: MarkRead,
    pub mark_all_read: MarkAllRead,
    pub delete: DeleteNotification,
    pub list: ListInbox,
    pub count_unread: CountUnread,
}
