//! Character rules shared by the text types.

/// Whether a character is visible: neither whitespace nor a control character nor an invisible format
/// character. With invisible characters, two different texts can look the same (Unicode TR 36, section 2).
pub(crate) fn is_visible(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !is_invisible_format(c)
}

/// Soft hyphen, zero-width characters, direction marks and overrides, annotations and tags.
fn is_invisible_format(c: char) -> bool {
    matches!(c,
        '\u{00AD}'
        | '\u{180E}'
        | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}'
        | '\u{FEFF}'
        | '\u{FFF9}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E007F}')
}

/// Why [`check_visible`] rejected a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidText {
    Empty,
    TooLong,
    /// It contains a character that is not [visible](is_visible).
    Invisible,
}

/// Checks that a text has 1 to `max` characters and that all of them are visible.
pub(crate) fn check_visible(raw: &str, max: usize) -> Result<(), InvalidText> {
    if raw.is_empty() {
        return Err(InvalidText::Empty);
    }
    // A character has at most 4 bytes. This rejects a huge text without counting its characters.
    if raw.len() > max * 4 || raw.chars().count() > max {
        return Err(InvalidText::TooLong);
    }
    if raw.chars().all(is_visible) { Ok(()) } else { Err(InvalidText::Invisible) }
}

/// Whether the text is `.` or `..`. A URL path cannot contain such an id as a segment: clients and proxies
/// remove dot segments (RFC 3986, 5.2.4), and browsers remove even percent-encoded ones.
pub(crate) fn is_dot_segment(raw: &str) -> bool {
    matches!(raw, "." | "..")
}

/// Whether a text contains a control character other than line breaks and tabs. Such texts are rejected,
/// because some stores cannot keep the control character NUL in a text.
pub(crate) fn has_control(raw: &str) -> bool {
    raw.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_symbols_and_combining_marks_are_visible() {
        for c in ['a', '~', 'ß', '日', '🦀', '\u{0301}', '\u{2010}', '\u{FFFC}', '\u{FFFD}'] {
            assert!(is_visible(c), "{c:?}");
        }
    }

    #[test]
    fn whitespace_control_and_format_characters_are_not_visible() {
        for c in [
            ' ',
            '\n',
            '\u{0}',
            '\u{7F}',
            '\u{A0}',
            '\u{AD}',
            '\u{200B}',
            '\u{200F}',
            '\u{202E}',
            '\u{2060}',
            '\u{FEFF}',
            '\u{FFF9}',
            '\u{E0041}',
        ] {
            assert!(!is_visible(c), "{c:?}");
        }
    }

    #[test]
    fn length_is_limited_in_characters_even_if_they_have_four_bytes() {
        assert_eq!(check_visible("🦀🦀", 2), Ok(()));
        for raw in ["🦀🦀🦀", "abc", &"x".repeat(1_000)] {
            assert_eq!(check_visible(raw, 2), Err(InvalidText::TooLong), "{raw:?}");
        }
        assert_eq!(check_visible("", 2), Err(InvalidText::Empty));
        assert_eq!(check_visible("a\t", 2), Err(InvalidText::Invisible));
    }

    #[test]
    fn control_characters_other_than_line_breaks_and_tabs_are_found() {
        assert!(!has_control("one\r\ntwo\tthree \u{AD}"));
        for raw in ["\u{0}", "\u{1b}[31m", "a\u{7F}", "\u{85}"] {
            assert!(has_control(raw), "{raw:?}");
        }
    }
}
