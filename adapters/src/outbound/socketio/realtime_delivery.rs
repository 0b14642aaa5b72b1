use std::sync::Arc;

use async_trait::async_trait;
use belfry_application::ports::RealtimeDelivery;
use belfry_application::push::PushBatch;
use belfry_domain::UserRoom;
use metrics::Counter;

use super::SocketIoSessions;

const DELIVERED: &str = "belfry_announcements_delivered_total";

/// See [`crate::telemetry::describe_metrics`].
pub(crate) fn describe_metrics() {
    metrics::describe_counter!(
        DELIVERED,
        "Deliveries of events to devices. An event that goes to three devices counts as three."
    );
}

/// Delivers events to the Socket.IO devices that are connected to this node.
#[derive(Clone)]
pub struct SocketIoDelivery {
    sessions: Arc<SocketIoSessions>,
    delivered: Counter,
}

impl SocketIoDelivery {
    /// Delivers to the devices of these sessions. Call it after the metrics recorder is installed.
    pub fn new(sessions: Arc<SocketIoSessions>) -> Self {
        Self { sessions, delivered: metrics::counter!(DELIVERED) }
    }
}

#[async_trait]
impl RealtimeDelivery for SocketIoDelivery {
    async fn deliver(&self, room: &UserRoom, batch: PushBatch) -> usize {
        let devices = self.sessions.deliver(room, &batch);
        self.delivered.increment(devices as u64);
        devices
    }
}
