use std::fmt;

use engineioxide_core::Sid;

/// The `sid` of an Engine.IO session. It is secret, because anyone who knows it can act as the session's client.
///
/// It consists of two ids of the library, each with 96 random bits from a cryptographically secure generator. It is
/// unrelated to the public `socket.id`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SessionId([u8; Self::LENGTH]);

impl SessionId {
    const LENGTH: usize = 32;

    pub(super) fn random() -> Self {
        let mut id = [0; Self::LENGTH];
        for half in id.chunks_exact_mut(Self::LENGTH / 2) {
            half.copy_from_slice(Sid::new().as_str().as_bytes());
        }
        Self(id)
    }

    /// `None` if it is not a valid id.
    pub(super) fn parse(raw: &str) -> Option<Self> {
        let is_base64_url = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let bytes = raw.as_bytes().try_into().ok()?;
        raw.as_bytes().iter().all(is_base64_url).then_some(Self(bytes))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| fmt::Write::write_char(f, char::from(*byte)))
    }
}

/// Hides the id: a reader of a log could take over the session with it.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_unique_and_survives_formatting_and_parsing() {
        let (one, other) = (SessionId::random(), SessionId::random());
        assert_ne!(one, other);
        assert_eq!(SessionId::parse(&one.to_string()), Some(one));
        for raw in ["", "AAAAAAAAAAAAAAAA", &"A".repeat(33), &format!("{}%", "A".repeat(31))] {
            assert_eq!(SessionId::parse(raw), None, "{raw}");
        }
    }

    #[test]
    fn id_is_not_shown_by_debug() {
        assert!(!format!("{:?}", SessionId::random()).contains(|c: char| c.is_ascii_digit()));
    }
}
