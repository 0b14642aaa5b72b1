//! Databases know signed numbers of 64 bits only.

use super::Unreadable;

/// A limit or bound for a question. Whatever is larger than any number in the database asks the same
/// as the largest.
pub(crate) fn clamped(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// How many rows a statement has changed.
pub(crate) fn count(rows: u64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}

/// A stored number that cannot be negative, as a constraint guards it.
pub(crate) fn whole(number: i64) -> Result<u64, Unreadable> {
    u64::try_from(number).map_err(|_| Unreadable::new("a number", &"it is negative"))
}
