use std::sync::Arc;

use belfry_domain::{UserId, UserRoom};

use crate::ports::RealtimeDelivery;
use crate::push::{ForwardedPush, Push, PushBatch};

/// Delivers an event of another service, unchanged, to the user's devices on this node. That service stores
/// the inboxes; Belfry stores nothing, so a device that misses the event cannot catch up on it.
#[derive(Clone)]
pub struct ForwardEvent {
    delivery: Arc<dyn RealtimeDelivery>,
}

/// An event of a service that stores the inboxes itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardedEvent {
    /// The recipient.
    pub user: UserId,
    /// The change, such as a new notification; `None` if the event has only an unread count.
    pub push: Option<ForwardedPush>,
    /// The service's unread count, if the event contains it.
    pub unread_count: Option<Arc<str>>,
}

impl ForwardEvent {
    /// Delivers through `delivery`.
    pub fn new(delivery: Arc<dyn RealtimeDelivery>) -> Self {
        Self { delivery }
    }

    /// Delivers `push`, then the unread count, to the user's room. Returns the number of devices that have
    /// received or will receive them.
    pub async fn run(&self, event: ForwardedEvent) -> usize {
        let count = event.unread_count.map(ForwardedPush::UnreadCount);
        let pushes: Vec<_> = event.push.into_iter().chain(count).map(Push::Forwarded).collect();
        if pushes.is_empty() {
            return 0;
        }
        let room = UserRoom::of(event.user);
        self.delivery.deliver(&room, PushBatch::forwarded(pushes)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{RecordingDelivery, user};

    #[tokio::test]
    async fn push_and_count_are_delivered_in_this_order_if_there_are_any() {
        let new = ForwardedPush::New("{}".into());
        let count = ForwardedPush::UnreadCount("3".into());
        for (push, unread_count, expected) in [
            (Some(new.clone()), Some("3".into()), vec![new.clone(), count.clone()]),
            (Some(new.clone()), None, vec![new]),
            (None, Some("3".into()), vec![count]),
            (None, None, vec![]),
        ] {
            let delivery = Arc::new(RecordingDelivery::default());
            let event = ForwardedEvent { user: user("ada"), push, unread_count };
            let devices = ForwardEvent::new(delivery.clone()).run(event).await;
            assert_eq!(devices, usize::from(!expected.is_empty()));
            let pushes: Vec<_> = expected.into_iter().map(Push::Forwarded).collect();
            let expected = (UserRoom::of(user("ada")), PushBatch::forwarded(pushes.clone()));
            let expected = if pushes.is_empty() { vec![] } else { vec![expected] };
            assert_eq!(delivery.delivered(), expected);
        }
    }
}
