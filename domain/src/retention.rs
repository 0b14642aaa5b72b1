use crate::{Notification, Timestamp};

/// What has had its time at an instant, and is to disappear from inboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// That instant. What expires then or has expired before it is due.
    pub now: Timestamp,
    /// What was created before this is due too, if anything is by its age alone.
    pub created_before: Option<Timestamp>,
}

impl Due {
    /// Whether that notification is due.
    pub fn has_come_for(&self, notification: &Notification) -> bool {
        notification.expires_at.is_some_and(|end| end <= self.now)
            || self.created_before.is_some_and(|then| notification.created_at < then)
    }
}
