use std::fmt;
use std::sync::Arc;

use crate::text::{self, NotVisible};

/// Whom a notification is for: the user claim of that person's token, one to
/// [`UserId::MAX_CHARS`] visible characters without spaces. Case matters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

/// Why a text is not a [`UserId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserId {
    /// Nothing in it.
    #[error("a user id must not be empty")]
    Empty,
    /// Longer than [`UserId::MAX_CHARS`].
    #[error("a user id has at most {} characters", UserId::MAX_CHARS)]
    TooLong,
    /// White space, a control character or an invisible one.
    #[error("a user id is made of visible characters, without spaces")]
    Invisible,
}

impl UserId {
    /// The most characters a user id has.
    pub const MAX_CHARS: usize = 128;

    /// Takes the text as it stands: nothing is trimmed, so that no two texts name one user.
    pub fn parse(raw: &str) -> Result<Self, InvalidUserId> {
        text::visible(raw, Self::MAX_CHARS).map_err(|why| match why {
            NotVisible::Empty => InvalidUserId::Empty,
            NotVisible::TooLong => InvalidUserId::TooLong,
            NotVisible::Invisible => InvalidUserId::Invisible,
        })?;
        Ok(Self(raw.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserId({})", self.0)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The room that all devices of one user are in, and nobody else: `user:<userId>`.
///
/// A room is made from a valid [`UserId`] only, never from a text that a device sent, so no payload
/// can name another user's room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserRoom(UserId);

impl UserRoom {
    /// The room of that user.
    pub fn of(user: UserId) -> Self {
        Self(user)
    }

    /// Whose room it is.
    pub fn user(&self) -> &UserId {
        &self.0
    }
}

impl fmt::Display for UserRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user:{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_common_identity_providers_are_taken() {
        for raw in ["42", "auth0|5f7c8ec7c33c6c004bbafe82", "ada@example.org", "user:*", "日本"] {
            assert_eq!(UserId::parse(raw).map(|id| id.to_string()), Ok(raw.to_owned()));
        }
    }

    #[test]
    fn what_cannot_be_seen_is_refused() {
        for raw in ["a b", "a\n", "\u{0}", "a\u{200b}b", "\u{202e}nimda", "\u{feff}a"] {
            assert_eq!(UserId::parse(raw), Err(InvalidUserId::Invisible), "{raw:?}");
        }
        assert_eq!(UserId::parse(""), Err(InvalidUserId::Empty));
    }

    #[test]
    fn the_bound_counts_characters_not_bytes() {
        assert!(UserId::parse(&"ü".repeat(128)).is_ok());
        assert_eq!(UserId::parse(&"u".repeat(129)), Err(InvalidUserId::TooLong));
        assert_eq!(UserId::parse(&"u".repeat(10_000)), Err(InvalidUserId::TooLong));
    }

    #[test]
    fn the_room_is_named_after_the_user() {
        let user = UserId::parse("u42").unwrap();
        assert_eq!(UserRoom::of(user).to_string(), "user:u42");
    }
}
