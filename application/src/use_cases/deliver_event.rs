use std::sync::Arc;

use belfry_domain::{DomainEvent, UserRoom};

use crate::ports::RealtimeDelivery;
use crate::push::PushBatch;

/// Delivers a stored event to the user's devices on this node.
#[derive(Clone)]
pub struct DeliverEvent {
    delivery: Option<Arc<dyn RealtimeDelivery>>,
}

impl DeliverEvent {
    /// Delivers through `delivery`.
    pub fn new(delivery: Arc<dyn RealtimeDelivery>) -> Self {
        Self { delivery: Some(delivery) }
    }

    /// Forward mode, in which another service keeps the inboxes: drops every event. The store may still have
    /// inboxes from a time in store mode. Their events, for example when notifications expire, do not concern
    /// the inboxes that devices show.
    pub const fn for_forward_mode() -> Self {
        Self { delivery: None }
    }

    /// Delivers the event to the room of the inbox's owner. Returns the number of devices that have received
    /// or will receive it.
    pub async fn run(&self, event: DomainEvent) -> usize {
        let Some(delivery) = &self.delivery else { return 0 };
        let room = UserRoom::of(event.user.clone());
        delivery.deliver(&room, PushBatch::of(event)).await
    }
}

#[cfg(test)]
mod tests {
    use belfry_domain::{Change, Revision, UnreadCount};

    use super::*;
    use crate::testing::{RecordingDelivery, at, user};

    #[tokio::test]
    async fn event_is_delivered_to_the_room_of_its_user() {
        let delivery = Arc::new(RecordingDelivery::default());
        let event = DomainEvent {
            user: user("ada"),
            revision: Revision::new(3),
            unread: UnreadCount::ZERO,
            change: Change::AllRead { read_at: at(5) },
        };
        assert_eq!(DeliverEvent::new(delivery.clone()).run(event.clone()).await, 1);
        assert_eq!(DeliverEvent::for_forward_mode().run(event.clone()).await, 0);
        let expected = (UserRoom::of(user("ada")), PushBatch::of(event));
        assert_eq!(delivery.delivered(), [expected]);
    }
}
