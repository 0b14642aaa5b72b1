//! Conversion to the signed 64-bit numbers of SQL.

/// A number as a parameter. Larger numbers become `i64::MAX`, which no stored number exceeds.
pub(crate) fn clamped(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// The row limit of a query that must also find out whether there are more rows than `limit`.
pub(crate) fn one_more(limit: usize) -> i64 {
    clamped(limit).saturating_add(1)
}

/// A number of rows as `usize`.
pub(crate) fn row_count(rows: u64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}
