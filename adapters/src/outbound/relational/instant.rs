use belfry_domain::Timestamp;

/// An instant that a store refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the instant {0} ms after 1970 lies outside the years 0 to 9999")]
pub(crate) struct InstantOutOfRange(i64);

/// `0000-01-01T00:00:00.000Z` and `9999-12-31T23:59:59.999Z`, in milliseconds since 1970 began.
const WRITABLE: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// Lets only such instants pass as can be told afterwards: RFC 3339, in which events are written,
/// has years of four digits. Every column type in use keeps these to the millisecond.
pub(crate) fn storable(at: Timestamp) -> Result<Timestamp, InstantOutOfRange> {
    let millis = at.unix_millis();
    if WRITABLE.contains(&millis) { Ok(at) } else { Err(InstantOutOfRange(millis)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Rfc3339;

    #[test]
    fn what_is_kept_can_be_told() {
        for millis in [*WRITABLE.start(), -1, 0, *WRITABLE.end()] {
            let at = storable(Timestamp::from_unix_millis(millis)).unwrap();
            let told = Rfc3339(at).to_string();
            assert_eq!(Rfc3339::parse(&told), Some(Rfc3339(at)), "{told}");
        }
    }

    #[test]
    fn what_could_not_be_told_is_not_kept() {
        for millis in [i64::MIN, WRITABLE.start() - 1, WRITABLE.end() + 1, i64::MAX] {
            let at = Timestamp::from_unix_millis(millis);
            assert_eq!(storable(at), Err(InstantOutOfRange(millis)));
        }
    }
}
