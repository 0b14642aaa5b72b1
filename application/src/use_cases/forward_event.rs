use std::sync::Arc;

use belfry_domain::{UserId, UserRoom};

use crate::ports::RealtimeDelivery;
use crate::push::{ForwardedPush, Push, PushBatch};

/// A service that keeps its own inboxes says what happened: this node's devices hear it as it came.
/// Nothing is stored, so nothing can be caught up on.
#[derive(Clone)]
pub struct ForwardEvent {
    delivery: Arc<dyn RealtimeDelivery>,
}

/// What such a service says, and to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardedEvent {
    /// Whose devices shall hear it.
    pub user: UserId,
    /// What happened.
    pub news: Option<ForwardedPush>,
    /// That service's unread count, where it came along.
    pub unread_count: Option<Arc<str>>,
}

impl ForwardEvent {
    /// Delivers by that.
    pub fn new(delivery: Arc<dyn RealtimeDelivery>) -> Self {
        Self { delivery }
    }

    /// Tells the user's room, the news first and then the count.
    pub async fn run(&self, event: ForwardedEvent) {
        let count = event.unread_count.map(ForwardedPush::UnreadCount);
        let pushes: Vec<_> = event.news.into_iter().chain(count).map(Push::Forwarded).collect();
        if !pushes.is_empty() {
            let room = UserRoom::of(event.user);
            self.delivery.deliver(&room, PushBatch::forwarded(pushes)).await;
        }
    }
}
