//! Times as other services write them.

use belfry_domain::Timestamp;
use chrono::{DateTime, NaiveDateTime};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Smaller numbers are Unix seconds (up to the year 5138). Other numbers are Unix milliseconds (from the year
/// 1973).
const FIRST_MILLIS: f64 = 1e11;

/// Parses RFC 3339, an SQL timestamp (`2026-11-29 10:00:00`, in UTC unless it has an offset), or Unix seconds or
/// milliseconds, as a number or a string of digits. `None` for anything else.
pub(super) fn lenient_time(json: &RawValue) -> Option<Timestamp> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(f64),
        Text(String),
    }
    match serde_json::from_str(json.get()).ok()? {
        Form::Number(number) => from_unix(number),
        Form::Text(text) => parse_text(text.trim()),
    }
}

/// Converts Unix seconds or milliseconds. `None` if the time is outside the range of `chrono`.
fn from_unix(number: f64) -> Option<Timestamp> {
    let millis = if number.abs() < FIRST_MILLIS { number * 1_000.0 } else { number };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only the fraction is lost; the range is checked below"
    )]
    let millis = millis as i64;
    // The cast saturates at the limits of `i64`, which are outside the range of `chrono`.
    DateTime::from_timestamp_millis(millis)?;
    Some(Timestamp::from_unix_millis(millis))
}

fn parse_text(text: &str) -> Option<Timestamp> {
    const WITHOUT_OFFSET: [&str; 2] = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    const WITH_OFFSET: &str = "%Y-%m-%d %H:%M:%S%.f%#z";
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return from_unix(text.parse().ok()?);
    }
    let with_offset =
        DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_str(text, WITH_OFFSET));
    let millis = with_offset.map(|time| time.timestamp_millis()).ok().or_else(|| {
        let parse = |format: &&str| NaiveDateTime::parse_from_str(text, format).ok();
        Some(WITHOUT_OFFSET.iter().find_map(parse)?.and_utc().timestamp_millis())
    })?;
    Some(Timestamp::from_unix_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instant_is_parsed_from_common_forms_and_other_values_are_none() {
        for json in [
            r#""2026-11-29T10:00:00Z""#,
            r#""2026-11-29T11:00:00.000+01:00""#,
            r#""2026-11-29 10:00:00""#,
            r#""2026-11-29 10:00:00.000""#,
            r#""2026-11-29 11:00:00+01""#,
            r#""2026-11-29T10:00:00""#,
            "1795946400",
            "1795946400.0",
            "1795946400000",
            r#""1795946400000""#,
        ] {
            let at = lenient_time(serde_json::from_str(json).unwrap());
            assert_eq!(at, Some(Timestamp::from_unix_millis(1_795_946_400_000)), "{json}");
        }
        for json in [r#""yesterday""#, r#""""#, "true", "{}", "1e300", "9223372036854775807"] {
            assert_eq!(lenient_time(serde_json::from_str(json).unwrap()), None, "{json}");
        }
    }
}
