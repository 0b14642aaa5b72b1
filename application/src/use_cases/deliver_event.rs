use std::sync::Arc;

use belfry_domain::{DomainEvent, UserRoom};

use crate::ports::RealtimeDelivery;
use crate::push::PushBatch;

/// Something happened to an inbox: this node's devices of its user hear of it.
#[derive(Clone)]
pub struct DeliverEvent {
    delivery: Arc<dyn RealtimeDelivery>,
}

impl DeliverEvent {
    /// Delivers by that.
    pub fn new(delivery: Arc<dyn RealtimeDelivery>) -> Self {
        Self { delivery }
    }

    /// Tells the room of the user whose inbox changed.
    pub async fn run(&self, event: DomainEvent) {
        let room = UserRoom::of(event.user.clone());
        self.delivery.deliver(&room, PushBatch::of(event)).await;
    }
}
