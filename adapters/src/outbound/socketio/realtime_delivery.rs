use std::sync::Arc;

use async_trait::async_trait;
use belfry_application::ports::RealtimeDelivery;
use belfry_application::push::PushBatch;
use belfry_domain::UserRoom;

use super::SocketIoSessions;

/// Delivers to the devices that are connected to this node by Socket.IO.
#[derive(Clone)]
pub struct SocketIoDelivery {
    sessions: Arc<SocketIoSessions>,
}

impl SocketIoDelivery {
    /// Delivers to those sessions.
    pub fn new(sessions: Arc<SocketIoSessions>) -> Self {
        Self { sessions }
    }
}

#[async_trait]
impl RealtimeDelivery for SocketIoDelivery {
    async fn deliver(&self, room: &UserRoom, announcement: PushBatch) {
        let told = self.sessions.deliver(room, &announcement);
        metrics::counter!("belfry_announcements_delivered_total").increment(told as u64);
    }
}
