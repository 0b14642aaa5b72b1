use std::time::Duration;

/// An instant, in whole milliseconds since 1970-01-01T00:00:00Z.
///
/// JavaScript's `Date` has the same precision, so a round trip to a device does not change an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant `millis` milliseconds after the Unix epoch; before the epoch if negative.
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// The instant `seconds` seconds after the Unix epoch; before the epoch if negative. Saturates at the
    /// smallest and the largest timestamp.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_millis(self) -> i64 {
        self.0
    }

    /// This instant plus `duration`, saturating at the largest timestamp.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This instant minus `duration`, saturating at the smallest timestamp.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// The time from `earlier` to this instant; zero if this instant is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_added_and_subtracted_in_whole_milliseconds() {
        let instant = Timestamp::from_unix_millis(1_500);
        let duration = Duration::from_micros(2_000_900);
        assert_eq!(instant.plus(duration).unix_millis(), 3_500);
        assert_eq!(instant.minus(duration).unix_millis(), -500);
        assert_eq!(Timestamp::from_unix_seconds(-2).unix_millis(), -2_000);
    }

    #[test]
    fn time_since_a_later_instant_is_zero() {
        let [earlier, later] = [1_000, 3_500].map(Timestamp::from_unix_millis);
        assert_eq!(later.since(earlier), Duration::from_millis(2_500));
        assert_eq!(earlier.since(later), Duration::ZERO);
    }

    #[test]
    fn arithmetic_saturates_at_the_smallest_and_largest_timestamp() {
        let largest = Timestamp::from_unix_millis(i64::MAX);
        assert_eq!(largest.plus(Duration::from_secs(1)), largest);
        assert_eq!(Timestamp::from_unix_seconds(i64::MAX), largest);
        let smallest = Timestamp::from_unix_millis(i64::MIN);
        assert_eq!(smallest.minus(Duration::MAX), smallest);
        assert_eq!(Timestamp::from_unix_seconds(i64::MIN), smallest);
        assert_eq!(smallest.since(largest), Duration::ZERO);
    }
}
