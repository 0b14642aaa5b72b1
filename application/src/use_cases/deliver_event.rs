use std::sync::Arc;

use belfry_domain::{DomainEvent, UserRoom};

use crate::ports::RealtimeDelivery;
use crate::push::PushBatch;

/// Delivers a stored event to the user's devices on this node.
#[derive(Clone)]
pub struct DeliverEvent {
    delivery: Arc<dyn RealtimeDelivery>,
}

impl DeliverEvent {
    /// Delivers through `delivery`.
    pub fn new(delivery: Arc<dyn RealtimeDelivery>) -> Self {
        Self { delivery }
    }

    /// Delivers the event to the room of the inbox's owner.
    pub async fn run(&self, event: DomainEvent) {
        let room = UserRoom::of(event.user.clone());
        self.delivery.deliver(&room, PushBatch::of(event)).await;
    }
}
