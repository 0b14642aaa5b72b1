//! What may stand in a line of text, shared by the types that are made of one.

/// A character that shows and takes a place: no white space, no control character, none of the
/// invisible ones with which one text can be made to look like another (Unicode TR 36, 3.1 and 3.4).
pub(crate) fn is_visible(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !is_invisible_format(c)
}

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

/// Why a text is not an identifier of at most so many visible characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotVisible {
    Empty,
    TooLong,
    Invisible,
}

/// Checks for one to `max` visible characters.
pub(crate) fn visible(raw: &str, max: usize) -> Result<(), NotVisible> {
    if raw.is_empty() {
        return Err(NotVisible::Empty);
    }
    // Bytes bound characters from above: a huge text is refused without walking through it.
    if raw.len() > max * 4 || raw.chars().count() > max {
        return Err(NotVisible::TooLong);
    }
    if raw.chars().all(is_visible) { Ok(()) } else { Err(NotVisible::Invisible) }
}

/// Whether a text holds a control character other than line breaks and tabs. Not every
/// store can keep NUL in a text.
pub(crate) fn has_control(raw: &str) -> bool {
    raw.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}
