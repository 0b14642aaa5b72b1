use async_trait::async_trait;
use belfry_domain::{NotificationId, UserId};

use crate::port_error::PortError;

/// The service that keeps the inboxes in forward mode.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait InboxOwner: Send + Sync {
    /// Passes on the change that `user` requested.
    ///
    /// After `Ok` the request survives a crash of Belfry and will reach the service, which may still refuse
    /// the change. Requests of one user reach the service in the order of these calls, unless a call begins
    /// before the previous one has returned.
    ///
    /// After an error the request may have been passed on nevertheless. A caller that repeats it may cause a
    /// duplicate.
    ///
    /// The number of calls in flight and the time of each call are limited. Above a limit, the error is
    /// [`PortError::Unavailable`].
    async fn request(&self, user: &UserId, change: &RequestedChange) -> Result<(), PortError>;
}

/// A change of an inbox that a device requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedChange {
    /// Mark these notifications as read; at least one.
    MarkRead(Vec<NotificationId>),
    /// Mark all notifications as read.
    MarkAllRead,
    /// Delete this notification.
    Delete(NotificationId),
}
