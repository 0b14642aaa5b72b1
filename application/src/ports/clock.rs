use belfry_domain::Timestamp;

/// The current time.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Clock: Send + Sync {
    /// Now. May stand still, and may jump when the machine's clock is set.
    fn now(&self) -> Timestamp;
}
