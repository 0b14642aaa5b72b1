use std::fmt;

use belfry_domain::Timestamp;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant in JSON. It is written as RFC 3339 in UTC with milliseconds, `2026-11-23T08:15:30.123Z`, like
/// JavaScript's `toISOString`. It is read with any offset and precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rfc3339(pub Timestamp);

impl Rfc3339 {
    /// `None` if the text is not RFC 3339.
    pub fn parse(raw: &str) -> Option<Self> {
        let time = DateTime::parse_from_rfc3339(raw).ok()?;
        Some(Self(Timestamp::from_unix_millis(time.timestamp_millis())))
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An instant outside the calendar, such as the expiry of a token without end, is written as the
        // calendar's last instant.
        let time = DateTime::<Utc>::from_timestamp_millis(self.0.unix_millis())
            .unwrap_or(DateTime::<Utc>::MAX_UTC);
        f.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rfc3339 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&raw).ok_or_else(|| D::Error::custom("not an RFC 3339 date and time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instant_is_written_in_utc_and_read_with_any_offset() {
        let at = Timestamp::from_unix_millis(1_795_421_730_123);
        assert_eq!(Rfc3339(at).to_string(), "2026-11-23T08:15:30.123Z");
        for raw in ["2026-11-23T08:15:30.123Z", "2026-11-23T09:15:30.123456+01:00"] {
            assert_eq!(Rfc3339::parse(raw), Some(Rfc3339(at)), "{raw}");
        }
        for raw in ["2026-11-23", "yesterday", ""] {
            assert_eq!(Rfc3339::parse(raw), None, "{raw}");
        }
    }

    #[test]
    fn instant_beyond_the_calendar_is_written_as_its_end() {
        assert!(!Rfc3339(Timestamp::from_unix_millis(i64::MAX)).to_string().is_empty());
    }
}
