use belfry_domain::NotificationId;

/// Names what Belfry makes itself.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait IdGenerator: Send + Sync {
    /// An id that was never given before and cannot be guessed.
    fn notification_id(&self) -> NotificationId;
}
