//! The revocations that a node knows.

use std::collections::HashMap;

use belfry_domain::{Timestamp, UserId};
use parking_lot::RwLock;
use tokio::sync::SetOnce;

use crate::ports::{Claims, Revocation};

/// A node's copy of [`crate::ports::Revocations`], because every sign-in needs it. One entry per user
/// with a stored revocation.
#[derive(Debug, Default)]
pub struct RevokedTokens {
    /// Tokens of this user that were issued before this instant are revoked.
    issued_before: RwLock<HashMap<UserId, Timestamp>>,
    loaded: SetOnce<()>,
}

/// The revocations are not loaded yet, so no token can be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token revocations are not loaded yet")]
pub struct RevocationsNotLoaded;

impl RevokedTokens {
    /// Not usable before the first [`replace_all`](Self::replace_all).
    pub fn not_loaded() -> Self {
        Self::default()
    }

    /// Loaded, without any revocation.
    pub fn empty() -> Self {
        let empty = Self::default();
        empty.replace_all([]);
        empty
    }

    /// Replaces all known revocations.
    pub fn replace_all(&self, all: impl IntoIterator<Item = Revocation>) {
        let all = all.into_iter().map(|one| (one.user, one.issued_before));
        *self.issued_before.write() = all.collect();
        // It can be set only once. Later calls fail, and it stays set.
        let _ = self.loaded.set(());
    }

    /// Waits for the first [`replace_all`](Self::replace_all).
    pub async fn loaded(&self) {
        self.loaded.wait().await;
    }

    /// Adds a revocation. `false` if the known one of this user already covers it.
    pub fn add(&self, Revocation { user, issued_before }: &Revocation) -> bool {
        let mut known = self.issued_before.write();
        if known.get(user).is_some_and(|there| there >= issued_before) {
            return false;
        }
        known.insert(user.clone(), *issued_before);
        true
    }

    /// Whether the token with these claims is revoked. A token without a time of issue is revoked by
    /// any revocation of its user.
    pub fn is_revoked(&self, claims: &Claims) -> Result<bool, RevocationsNotLoaded> {
        if !self.loaded.initialized() {
            return Err(RevocationsNotLoaded);
        }
        let known = self.issued_before.read();
        let issued_before = known.get(&claims.user);
        Ok(issued_before.is_some_and(|limit| claims.issued_at.is_none_or(|at| at < *limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, claims, user};

    fn issued(name: &str, issued_at: Option<i64>) -> Claims {
        Claims { issued_at: issued_at.map(at), ..claims(name, 9_000) }
    }

    fn before(name: &str, instant: i64) -> Revocation {
        Revocation { user: user(name), issued_before: at(instant) }
    }

    #[test]
    fn token_issued_before_the_revocation_is_revoked() {
        let revoked = RevokedTokens::empty();
        assert!(revoked.add(&before("ada", 1_000)));
        for (claims, expected) in [
            (issued("ada", Some(999)), true),
            (issued("ada", Some(1_000)), false),
            (issued("ada", None), true),
            (issued("bob", Some(999)), false),
            (issued("bob", None), false),
        ] {
            assert_eq!(revoked.is_revoked(&claims), Ok(expected), "{claims:?}");
        }
    }

    #[test]
    fn later_instant_applies() {
        let revoked = RevokedTokens::empty();
        assert!(revoked.add(&before("ada", 2_000)));
        assert!(!revoked.add(&before("ada", 1_000)));
        assert!(!revoked.add(&before("ada", 2_000)));
        assert_eq!(revoked.is_revoked(&issued("ada", Some(1_500))), Ok(true));
        assert!(revoked.add(&before("ada", 3_000)));
        assert_eq!(revoked.is_revoked(&issued("ada", Some(2_500))), Ok(true));
    }

    #[test]
    fn no_token_is_checked_before_revocations_are_loaded() {
        let revoked = RevokedTokens::not_loaded();
        assert_eq!(revoked.is_revoked(&issued("ada", Some(1))), Err(RevocationsNotLoaded));
        revoked.replace_all([before("bob", 5)]);
        assert_eq!(revoked.is_revoked(&issued("ada", Some(1))), Ok(false));
        revoked.replace_all([]);
        assert_eq!(revoked.is_revoked(&issued("bob", Some(1))), Ok(false));
    }
}
