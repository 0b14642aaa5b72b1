use async_trait::async_trait;
use belfry_domain::UserRoom;

use crate::push::PushBatch;

/// Pushes to the devices that are connected to this node.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait RealtimeDelivery: Send + Sync {
    /// Tells every device in the room, and no other. Announcements to one room are heard in the
    /// order in which they were given here.
    ///
    /// A push is best effort: a device that is away or too slow is not told and not waited for. It
    /// gets what it missed when it comes back.
    async fn deliver(&self, room: &UserRoom, announcement: PushBatch);
}
