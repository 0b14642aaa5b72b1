use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use belfry_domain::Revision;

/// Where a page of an inbox ends, as a text that callers hand back without looking inside.
///
/// A version byte and the revision that created the last notification of the page, in base64url:
/// always twelve characters, and every revision has one text only. Unlike a page number it stays
/// right while notifications come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub Revision);

/// A text is not a [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that this service gave")]
pub struct InvalidCursor;

impl Cursor {
    /// Another layout takes another number, and this one is refused then rather than misread.
    const VERSION: u8 = 1;

    /// Reads a cursor back.
    pub fn parse(raw: &str) -> Result<Self, InvalidCursor> {
        // A little more than the nine bytes: the decoder asks for whole groups of three.
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
    fn what_is_given_out_is_read_back() {
        for number in [0, 1, 17, u64::from(u32::MAX), u64::MAX] {
            let cursor = Cursor(Revision::new(number));
            let text = cursor.to_string();
            assert_eq!(text.len(), 12);
            assert_eq!(Cursor::parse(&text), Ok(cursor));
        }
    }

    #[test]
    fn what_was_not_given_out_is_refused() {
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
