use async_trait::async_trait;
use belfry_domain::{Timestamp, UserId};

use crate::port_error::PortError;

/// Revoked tokens, shared by all nodes and kept across restarts.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait Revocations: Send + Sync {
    /// Stores a revocation. It cannot be undone: of two revocations for the same owner, the later
    /// `issued_before` applies. Returns the revocation that applies.
    async fn revoke(&self, revocation: &Revocation) -> Result<Revocation, PortError>;

    /// The revocations stored since `cursor` (all of them for `None`), and the cursor for the next call.
    ///
    /// A reader that passes each returned cursor to its next call misses no revocation of any node. This
    /// holds in whichever order the nodes' writes commit, and does not depend on any clock. Some revocations
    /// may be returned repeatedly. If the store has been restored to a state before `cursor`, all of them are
    /// returned.
    async fn since(
        &self,
        cursor: Option<RevocationCursor>,
    ) -> Result<(Vec<Revocation>, RevocationCursor), PortError>;
}

/// Revokes tokens that were issued before an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Whose tokens are revoked.
    pub owner: TokenOwner,
    /// Tokens issued before this instant are revoked, and tokens without a time of issue.
    pub issued_before: Timestamp,
}

/// Whose tokens a revocation concerns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenOwner {
    /// One user.
    User(UserId),
    /// All users.
    Everyone,
}

impl TokenOwner {
    /// The user; `None` for all users.
    pub const fn user(&self) -> Option<&UserId> {
        match self {
            Self::User(user) => Some(user),
            Self::Everyone => None,
        }
    }
}

/// A reader's position in [`Revocations`]. Only the store that returned it can interpret it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevocationCursor(pub i64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::user;

    #[test]
    fn revocation_for_everyone_has_no_user() {
        assert_eq!(TokenOwner::User(user("ada")).user(), Some(&user("ada")));
        assert_eq!(TokenOwner::Everyone.user(), None);
    }
}
