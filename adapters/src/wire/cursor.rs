use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use belfry_domain::Revision;

/// The end of a page of an inbox, as an opaque text that clients send to request the next page.
///
/// The text is the base64url encoding of a version byte and the revision that created the page's last
/// notification. It always has twelve characters, and each revision has exactly one text. Unlike a page number, a
/// cursor stays valid when notifications are created or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub Revision);

/// The text is not a [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor was not issued by this service")]
pub struct InvalidCursor;

impl Cursor {
    /// Identifies the layout, so that cursors of other layouts are rejected and not misread.
    const VERSION: u8 = 1;

    /// Parses the text that `Display` writes.
    pub fn parse(raw: &str) -> Result<Self, InvalidCursor> {
        // A valid cursor has nine bytes. Any other length is rejected.
        let mut bytes = [0; 12];
        let length = URL_SAFE_NO_PAD.decode_slice(raw, &mut bytes).map_err(|_| InvalidCursor)?;
        match &bytes[..length] {
            [Self::VERSION, revision @ ..] => revision
                .try_into()
                .map(|number| Self(Revision::new(u64::from_be_bytes(number))))
                .map_err(|_| InvalidCursor),
            _ => Err(InvalidCursor),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [Self::VERSION; 9];
        bytes[1..].copy_from_slice(&self.0.get().to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsed_cursor_equals_the_written_one() {
        for number in [0, 1, 17, u64::from(u32::MAX), u64::MAX] {
            let cursor = Cursor(Revision::new(number));
            let text = cursor.to_string();
            assert_eq!(text.len(), 12);
            assert_eq!(Cursor::parse(&text), Ok(cursor));
        }
    }

    #[test]
    fn invalid_cursor_is_rejected() {
        let another_version = URL_SAFE_NO_PAD.encode([2, 0, 0, 0, 0, 0, 0, 0, 1]);
        let good = Cursor(Revision::new(17)).to_string();
        for raw in [
            "",
            "17",
            "AQ",
            &good[..11],
            &format!("{good}AAAA"),
            &format!("{good}="),
            &format!(" {good}"),
            &another_version,
            "ä",
            &"A".repeat(100_000),
        ] {
            assert_eq!(Cursor::parse(raw), Err(InvalidCursor), "{raw:.20}");
        }
    }
}
