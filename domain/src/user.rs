use std::fmt;
use std::sync::Arc;

use crate::text::{self, InvalidText};

/// Identifies a user, as in the user claim of that user's token: 1 to [`UserId::MAX_CHARS`] visible
/// characters without spaces. Case-sensitive.
///
/// `OpenID` Connect Core (section 2) limits the claim `sub` to 255 ASCII characters. Belfry also accepts
/// visible characters other than ASCII, because a claim other than `sub` can be configured as the user
/// claim. It accepts no spaces: an id with a space at one end would look like another user's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

/// Why a text is not a [`UserId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserId {
    /// The text is empty.
    #[error("a user id must not be empty")]
    Empty,
    /// Longer than [`UserId::MAX_CHARS`].
    #[error("a user id has at most {} characters", UserId::MAX_CHARS)]
    TooLong,
    /// Contains white space, a control character or an invisible character.
    #[error("a user id is made of visible characters, without spaces")]
    Invisible,
    /// `.` or `..`: see [`UserId::parse_addressable`].
    #[error("a user id must not be . or .., which no URL can name")]
    DotSegment,
}

impl UserId {
    /// The maximum length in characters.
    pub const MAX_CHARS: usize = 255;

    /// Checks the text and keeps it unchanged. Nothing is trimmed, so two different texts never
    /// identify the same user.
    pub fn parse(raw: &str) -> Result<Self, InvalidUserId> {
        text::check_visible(raw, Self::MAX_CHARS).map_err(|why| match why {
            InvalidText::Empty => InvalidUserId::Empty,
            InvalidText::TooLong => InvalidUserId::TooLong,
            InvalidText::Invisible => InvalidUserId::Invisible,
        })?;
        Ok(Self(raw.into()))
    }

    /// Like [`parse`](Self::parse), but also rejects `.` and `..`, which a URL path cannot contain as a
    /// segment. Used for users who sign in or receive notifications. `parse` accepts these ids because a
    /// store may contain them.
    pub fn parse_addressable(raw: &str) -> Result<Self, InvalidUserId> {
        if text::is_dot_segment(raw) { Err(InvalidUserId::DotSegment) } else { Self::parse(raw) }
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

/// The room of all devices of one user, `user:<userId>`.
///
/// A room is only created from a valid [`UserId`], never from a text that a device sent. A payload
/// can therefore not name another user's room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserRoom(UserId);

impl UserRoom {
    /// The room of this user.
    pub fn of(user: UserId) -> Self {
        Self(user)
    }

    /// The room's user.
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
    fn ids_of_common_identity_providers_are_accepted() {
        for raw in ["42", "auth0|5f7c8ec7c33c6c004bbafe82", "ada@example.org", "user:*", "日本"] {
            assert_eq!(UserId::parse(raw).map(|id| id.to_string()), Ok(raw.to_owned()));
        }
    }

    #[test]
    fn empty_id_and_invisible_characters_are_rejected() {
        for raw in ["a b", "a\n", "\u{0}", "a\u{200b}b", "\u{202e}nimda", "\u{feff}a"] {
            assert_eq!(UserId::parse(raw), Err(InvalidUserId::Invisible), "{raw:?}");
        }
        assert_eq!(UserId::parse(""), Err(InvalidUserId::Empty));
    }

    #[test]
    fn dot_segments_are_rejected_by_parse_addressable_only() {
        for raw in [".", ".."] {
            assert_eq!(UserId::parse_addressable(raw), Err(InvalidUserId::DotSegment));
            assert_eq!(UserId::parse(raw).unwrap().as_str(), raw);
        }
        assert!(UserId::parse_addressable("a/b?c").is_ok());
    }

    #[test]
    fn length_is_counted_in_characters_not_bytes() {
        assert!(UserId::parse(&"ü".repeat(255)).is_ok());
        assert_eq!(UserId::parse(&"u".repeat(256)), Err(InvalidUserId::TooLong));
        assert_eq!(UserId::parse(&"u".repeat(10_000)), Err(InvalidUserId::TooLong));
    }

    #[test]
    fn room_is_named_after_the_user() {
        let user = UserId::parse("u42").unwrap();
        let room = UserRoom::of(user.clone());
        assert_eq!(room.to_string(), "user:u42");
        assert_eq!(room.user(), &user);
    }
}
