//! Text forms of dead letters for the terminal.

use std::fmt::Write;

use belfry_adapters::inbound::amqp::DeadLetter;
use serde_json::json;

const HEADING: [&str; 8] =
    ["#", "reason", "attempts", "first failed", "last failed", "pattern", "message id", "bytes"];

/// A heading and one line per message, in aligned columns.
pub(super) fn table(dead_letters: &[DeadLetter]) -> Vec<String> {
    let rows: Vec<_> =
        std::iter::once(HEADING.map(str::to_owned)).chain(dead_letters.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..HEADING.len()).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(letter: &DeadLetter) -> [String; 8] {
    let or_dash = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), printable);
    [
        letter.position().to_string(),
        or_dash(letter.reason()),
        letter.attempts().to_string(),
        or_dash(letter.first_failed_at()),
        or_dash(letter.last_failed_at()),
        or_dash(letter.pattern()),
        or_dash(letter.message_id()),
        letter.body().len().to_string(),
    ]
}

/// One JSON object without the body.
pub(super) fn json(letter: &DeadLetter) -> String {
    json!({
        "position": letter.position(),
        "reason": letter.reason(),
        "error": letter.error(),
        "attempts": letter.attempts(),
        "firstFailedAt": letter.first_failed_at(),
        "lastFailedAt": letter.last_failed_at(),
        "pattern": letter.pattern(),
        "messageId": letter.message_id(),
        "bytes": letter.body().len(),
    })
    .to_string()
}

/// Properties and headers, one per line, then the body.
pub(super) fn details(letter: &DeadLetter) -> String {
    let properties = letter.properties().into_iter().map(|(name, value)| (name.to_owned(), value));
    let mut text = String::new();
    for (name, value) in properties.chain(letter.headers()) {
        writeln!(text, "{}: {}", printable(&name), printable(&value))
            .expect("writing to a string cannot fail");
    }
    text.push('\n');
    text.push_str(&text_or_hex(letter.body()));
    text
}

/// The number with its noun: `1 message`, `2 messages`.
pub(super) fn messages(count: u32) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

/// Escapes control characters: a sender's text must not move the cursor or break the line.
fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut printable, c| {
        if c.is_control() {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
        printable
    })
}

/// The body as text, or in hexadecimal if it is not UTF-8 or has control characters other than line
/// breaks and tabs.
fn text_or_hex(body: &[u8]) -> String {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    match std::str::from_utf8(body) {
        Ok(text) if text.chars().all(harmless) => text.to_owned(),
        _ => body.iter().fold(String::with_capacity(body.len() * 2), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
            hex
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc é"), "a\\u{1b}[2Jb\\nc é");
        assert_eq!(text_or_hex(b"{\n\t\"a\": 1}"), "{\n\t\"a\": 1}");
        assert_eq!(text_or_hex(&[0xff, 0x00]), "ff00");
        assert_eq!(text_or_hex(b"\x1b[2J"), "1b5b324a");
    }
}
