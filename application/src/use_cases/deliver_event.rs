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

    /// Forward mode: drops every event. Events of inboxes that are left from store mode, such as expired
    /// notifications, do not concern the inboxes that devices show.
    pub const fn without_inboxes() -> Self {
        Self { delivery: None }
    }

    /// Delivers the event to the room of the inbox's owner.
    pub async fn run(&self, event: DomainEvent) {
        let Some(delivery) = &self.delivery else { return };
        let room = UserRoom::of(event.user.clone());
        delivery.deliver(&room, PushBatch::of(event)).await;
    }
}
