use async_trait::async_trait;
use belfry_domain::UserRoom;

use crate::push::PushBatch;

/// Delivers pushes to the devices that are connected to this node.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait RealtimeDelivery: Send + Sync {
    /// Delivers a batch to every device in the room and to no other device. Devices receive the
    /// batches of one room in the order of these calls.
    ///
    /// Delivery is best effort and does not wait for devices. A device that is offline or too slow
    /// misses the batch and catches up when it reconnects.
    ///
    /// Returns the number of devices that have received the batch or will receive it: for some it is still
    /// queued, or held back while they catch up.
    async fn deliver(&self, room: &UserRoom, batch: PushBatch) -> usize;
}
