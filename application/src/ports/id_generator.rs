use belfry_domain::NotificationId;

/// Generates the ids of notifications that arrive without one.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait IdGenerator: Send + Sync {
    /// A unique id that cannot be guessed.
    fn notification_id(&self) -> NotificationId;
}
