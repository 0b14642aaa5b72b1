use std::fmt;

use engineioxide_core::Sid;

/// The `sid` of a session that polls: whoever knows it can act as the session's client, so it is secret.
///
/// It is made of two of the library's ids, whose 96 random bits each come from a cryptographically secure
/// generator, and has nothing in common with the public `socket.id`.
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

    /// `None` if no session can have that id.
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

/// Its text would let a reader of the log take the session over.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_read_as_it_is_written_and_no_two_are_alike() {
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
