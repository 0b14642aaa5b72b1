use std::ops::RangeInclusive;

use belfry_application::ports::PortError;
use belfry_domain::Timestamp;
use chrono::{DateTime, Utc};

/// A column type that stores a [`Timestamp`].
pub(crate) trait StoredTimestamp: Sized {
    fn from_domain(at: Timestamp) -> Result<Self, TimestampOutOfRange>;
    fn to_domain(&self) -> Timestamp;
}

/// PostgreSQL's `timestamptz`.
impl StoredTimestamp for DateTime<Utc> {
    fn from_domain(at: Timestamp) -> Result<Self, TimestampOutOfRange> {
        let millis = storable_millis(at)?;
        Ok(Self::from_timestamp_millis(millis).expect("four-digit years are in chrono's range"))
    }

    fn to_domain(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.timestamp_millis())
    }
}

/// SQLite's `INTEGER`: milliseconds since the Unix epoch.
impl StoredTimestamp for i64 {
    fn from_domain(at: Timestamp) -> Result<Self, TimestampOutOfRange> {
        storable_millis(at)
    }

    fn to_domain(&self) -> Timestamp {
        Timestamp::from_unix_millis(*self)
    }
}

/// A timestamp that no store accepts; in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the timestamp {0} ms since the Unix epoch is outside the years 0 to 9999")]
pub(crate) struct TimestampOutOfRange(i64);

impl From<TimestampOutOfRange> for PortError {
    fn from(error: TimestampOutOfRange) -> Self {
        Self::rejected(error.to_string())
    }
}

/// `0000-01-01T00:00:00.000Z` to `9999-12-31T23:59:59.999Z`, in milliseconds since the Unix epoch.
/// Events contain timestamps in RFC 3339, which has four-digit years. Every column type in use
/// keeps such a timestamp to the millisecond.
const STORABLE: RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

fn storable_millis(at: Timestamp) -> Result<i64, TimestampOutOfRange> {
    let millis = at.unix_millis();
    if STORABLE.contains(&millis) { Ok(millis) } else { Err(TimestampOutOfRange(millis)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Rfc3339;

    #[test]
    fn storable_timestamp_can_be_written_as_rfc_3339() {
        for millis in [*STORABLE.start(), -1, 0, *STORABLE.end()] {
            let at = Timestamp::from_unix_millis(millis);
            assert_eq!(storable_millis(at), Ok(millis));
            let text = Rfc3339(at).to_string();
            assert_eq!(Rfc3339::parse(&text), Some(Rfc3339(at)), "{text}");
        }
    }

    #[test]
    fn stored_timestamp_keeps_its_milliseconds() {
        for millis in [*STORABLE.start(), -1, 0, *STORABLE.end()] {
            let at = Timestamp::from_unix_millis(millis);
            assert_eq!(DateTime::from_domain(at).unwrap().to_domain(), at);
            assert_eq!(i64::from_domain(at).unwrap().to_domain(), at);
        }
    }

    #[test]
    fn timestamp_outside_four_digit_years_is_rejected() {
        for millis in [i64::MIN, STORABLE.start() - 1, STORABLE.end() + 1, i64::MAX] {
            let at = Timestamp::from_unix_millis(millis);
            assert_eq!(storable_millis(at), Err(TimestampOutOfRange(millis)));
        }
    }
}
