//! The state of an inbox: its revision and its unread count, and the epoch that revisions belong to.

use std::fmt;
use std::sync::Arc;

use crate::text;

/// The number of a change within one inbox. Revisions are consecutive. The first one is 1, or, if the store
/// has erased inboxes, the number after the highest erased revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(u64);

impl Revision {
    /// Before the first change.
    pub const ZERO: Self = Self(0);

    /// The revision with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision of the following change.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of unread notifications in an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnreadCount(u64);

impl UnreadCount {
    /// No unread notification.
    pub const ZERO: Self = Self(0);

    /// This many unread notifications.
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Identifies the store that revisions belong to. A device that remembers another epoch loads its list
/// again, because its revisions have no meaning in this store.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

/// The text is not an [`Epoch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an epoch has 1 to {} visible characters", Epoch::MAX_CHARS)]
pub struct InvalidEpoch;

impl Epoch {
    /// The maximum length in characters.
    pub const MAX_CHARS: usize = 64;

    /// Checks the text and keeps it unchanged.
    pub fn parse(raw: &str) -> Result<Self, InvalidEpoch> {
        text::check_visible(raw, Self::MAX_CHARS).map_err(|_| InvalidEpoch)?;
        Ok(Self(raw.into()))
    }

    /// The epoch as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", self.0)
    }
}

/// The latest revision of an inbox and the unread count at that revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InboxState {
    /// The latest revision. Before the first change, it is zero or the highest revision of all erased inboxes.
    pub revision: Revision,
    /// The number of unread notifications.
    pub unread: UnreadCount,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_is_kept_unchanged_and_limited_in_characters() {
        let longest = "ü".repeat(Epoch::MAX_CHARS);
        for raw in ["e1", "0198c9a2-4b1e-7c3d-8f00-0123456789ab", &longest] {
            let epoch = Epoch::parse(raw).unwrap();
            assert_eq!(epoch.as_str(), raw);
            assert_eq!(format!("{epoch:?}"), format!("Epoch({raw})"));
        }
        for raw in ["", "e 1", "e\u{200b}1", &format!("{longest}x")] {
            assert_eq!(Epoch::parse(raw), Err(InvalidEpoch), "{raw:?}");
        }
    }

    #[test]
    fn revision_is_shown_as_its_number() {
        assert_eq!(Revision::ZERO.next().next().to_string(), "2");
    }
}
