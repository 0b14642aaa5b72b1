use belfry_domain::Timestamp;

/// The current time.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Clock: Send + Sync {
    /// Not monotonic: two calls may return the same instant, and a later call may return an earlier one
    /// when the machine's clock is set.
    fn now(&self) -> Timestamp;
}
