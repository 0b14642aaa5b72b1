//! Medians, units and the formatting of numbers.

use crate::tally::Latency;

/// Converts a count to a float.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// Rounds down to a whole number; negative numbers become 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "truncation is the purpose"
)]
pub(crate) fn whole(number: f64) -> u64 {
    number.max(0.0) as u64
}

/// The median of the finite values; NaN if there are none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Returns a function that formats the median of a figure of these samples.
pub(crate) fn medians<'a, S: 'a>(
    samples: impl Iterator<Item = &'a S> + Clone,
) -> impl Fn(fn(&S) -> f64) -> String {
    move |figure| show(median(samples.clone().map(figure)))
}

/// Formats a number with three significant digits, or from 100 on as a whole number; `–` if it is not finite.
pub(crate) fn show(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "–".to_owned(),
        size if size >= 99.95 || value == 0.0 => grouped(value),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.0995 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Formats as a whole number with commas: `12,345`.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as KiB.
pub(crate) fn kib(bytes: f64) -> f64 {
    bytes / 1024.0
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    float(bytes) / 1024.0 / 1024.0
}

/// A percentile of latencies in milliseconds; NaN if there are none.
pub(crate) fn ms_at(latency: &Latency, percentile: f64) -> f64 {
    if latency.is_empty() {
        return f64::NAN;
    }
    float(latency.value_at_percentile(percentile)) / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_ignores_nan() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median([4.0, f64::NAN, 1.0]) - 2.5).abs() < 1e-9);
        assert!(median([]).is_nan());
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        for (value, text) in [
            (1_234_567.8, "1,234,568"),
            (123.4, "123"),
            (99.96, "100"),
            (12.34, "12.3"),
            (1.234, "1.23"),
            (0.0123, "0.0123"),
            (0.0, "0"),
            (-1_500.0, "-1,500"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(show(value), text);
        }
    }
}
