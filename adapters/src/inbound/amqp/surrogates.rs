//! Repairs JSON texts that were cut in the middle of a character.

use std::borrow::Cow;

/// Replaces each lone surrogate with `\uFFFD`: an escape from `\uD800` to `\uDFFF` without the other half of
/// its pair. JavaScript writes lone surrogates when it cuts a text between the halves of a character. JSON
/// parsers reject them (RFC 8259, section 8.2). Apart from lone surrogates, `json` must be valid.
pub(super) fn without_lone_surrogates(json: &str) -> Cow<'_, str> {
    /// The length of an escape such as `\ud83d`.
    const ESCAPE: usize = 6;
    if !json.contains("\\ud") && !json.contains("\\uD") {
        return json.into();
    }
    let mut repaired = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        repaired.push_str(before);
        let pair = (surrogate(escape), surrogate(escape.get(ESCAPE..).unwrap_or_default()));
        let valid_len = match pair {
            (Some(Half::High), Some(Half::Low)) => 2 * ESCAPE,
            (Some(_), _) => {
                repaired.push_str("\\uFFFD");
                rest = &escape[ESCAPE..];
                continue;
            }
            // The backslash and the character after it. The second backslash of `\\` begins no escape.
            (None, _) => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        repaired.push_str(&escape[..valid_len]);
        rest = &escape[valid_len..];
    }
    repaired.push_str(rest);
    repaired.into()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    High,
    Low,
}

/// The half of a surrogate pair whose escape is at the beginning of the text, if there is one.
fn surrogate(text: &str) -> Option<Half> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    match u16::from_str_radix(digits, 16).ok()? {
        0xD800..=0xDBFF => Some(Half::High),
        0xDC00..=0xDFFF => Some(Half::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_are_kept() {
        for (json, repaired) in [
            (r#"{"a":"cut \ud83d"}"#, r#"{"a":"cut \uFFFD"}"#),
            (
                r#"["\uD83D\uDE00","\ude00","\ud83d\ud83d\ude00"]"#,
                r#"["\uD83D\uDE00","\uFFFD","\uFFFD\ud83d\ude00"]"#,
            ),
            (
                r#"["\\ud83d","\\\ud83d","\u00e4\"\ud83dx"]"#,
                r#"["\\ud83d","\\\uFFFD","\u00e4\"\uFFFDx"]"#,
            ),
            (r#"{"a":"\n"}"#, r#"{"a":"\n"}"#),
        ] {
            assert_eq!(without_lone_surrogates(json), repaired);
            let valid: Result<serde_json::Value, _> = serde_json::from_str(repaired);
            assert!(valid.is_ok(), "{repaired}");
        }
    }
}
