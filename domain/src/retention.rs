use crate::notification::Notification;
use crate::time::Timestamp;

/// Decides which notifications are deleted because they expired or grew too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiryCutoff {
    /// Notifications that expire at or before this instant are deleted.
    pub now: Timestamp,
    /// Notifications created before this instant are deleted too; `None` sets no maximum age.
    pub created_before: Option<Timestamp>,
}

impl ExpiryCutoff {
    /// Whether the notification is to be deleted.
    pub fn applies_to(&self, notification: &Notification) -> bool {
        notification.expires_at.is_some_and(|end| end <= self.now)
            || self.created_before.is_some_and(|limit| notification.created_at < limit)
    }
}
