use std::sync::Arc;

use async_trait::async_trait;
use belfry_application::ports::RealtimeDelivery;
use belfry_application::push::PushBatch;
use belfry_domain::UserRoom;

use super::SocketIoSessions;

/// Delivers to the Socket.IO devices that are connected to this node.
#[derive(Clone)]
pub struct SocketIoDelivery {
    sessions: Arc<SocketIoSessions>,
}

impl SocketIoDelivery {
    /// Delivers to the devices of these sessions.
    pub fn new(sessions: Arc<SocketIoSessions>) -> Self {
        Self { sessions }
    }
}

#[async_trait]
impl RealtimeDelivery for SocketIoDelivery {
    async fn deliver(&self, room: &UserRoom, batch: PushBatch) {
        let devices = self.sessions.deliver(room, &batch);
        metrics::counter!("belfry_announcements_delivered_total").increment(devices as u64);
    }
}
