use std::fmt;
use std::sync::Arc;

use crate::text::{self, NotVisible};

/// Names a notification within one inbox: one to [`NotificationId::MAX_CHARS`] visible characters.
///
/// Belfry's own ids are UUIDs of version 7 (RFC 9562). A service that keeps its own notifications
/// brings its own ids, and finds them again unchanged at every device.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotificationId(Arc<str>);

/// Why a text is not a [`NotificationId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Nothing in it.
    #[error("an id must not be empty")]
    Empty,
    /// Longer than [`NotificationId::MAX_CHARS`].
    #[error("an id has at most {} characters", NotificationId::MAX_CHARS)]
    TooLong,
    /// White space, a control character or an invisible one.
    #[error("an id is made of visible characters, without spaces")]
    Invisible,
}

impl NotificationId {
    /// The most characters an id has.
    pub const MAX_CHARS: usize = 128;

    /// Takes the text as it stands; case matters.
    pub fn parse(raw: &str) -> Result<Self, InvalidId> {
        text::visible(raw, Self::MAX_CHARS).map_err(|why| match why {
            NotVisible::Empty => InvalidId::Empty,
            NotVisible::TooLong => InvalidId::TooLong,
            NotVisible::Invisible => InvalidId::Invisible,
        })?;
        Ok(Self(raw.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotificationId({})", self.0)
    }
}

impl fmt::Display for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_other_services_are_taken_as_they_are() {
        for raw in ["n1", "0198c9a2-4b1e-7c3d-8f00-0123456789ab", "507f1f77bcf86cd799439011", "42"]
        {
            assert_eq!(NotificationId::parse(raw).unwrap().as_str(), raw);
        }
    }

    #[test]
    fn blanks_and_endless_texts_are_refused() {
        assert_eq!(NotificationId::parse(""), Err(InvalidId::Empty));
        assert_eq!(NotificationId::parse("a b"), Err(InvalidId::Invisible));
        assert_eq!(NotificationId::parse(&"x".repeat(129)), Err(InvalidId::TooLong));
    }
}
