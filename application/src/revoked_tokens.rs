//! Which tokens hold no more although they have not ended.

use std::collections::HashMap;

use belfry_domain::{Timestamp, UserId};
use parking_lot::RwLock;
use tokio::sync::SetOnce;

use crate::ports::{Claims, Revocation};

/// What a node knows of [`crate::ports::Revocations`]: asked with each sign-in, so it is kept here
/// rather than looked up. One entry for each user with a revocation that is not forgotten yet.
#[derive(Debug, Default)]
pub struct RevokedTokens {
    /// The instants before which each user's tokens must not have been issued.
    ends: RwLock<HashMap<UserId, Timestamp>>,
    known: SetOnce<()>,
}

/// Nothing was learned yet, so nobody can be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not known yet which tokens were revoked")]
pub struct NotKnownYet;

impl RevokedTokens {
    /// Nothing is known until [`learn_all`](Self::learn_all).
    pub fn unknown() -> Self {
        Self::default()
    }

    /// It is known that there are none.
    pub fn none() -> Self {
        let none = Self::default();
        none.learn_all([]);
        none
    }

    /// Takes over what there is, in the place of what was known.
    pub fn learn_all(&self, all: impl IntoIterator<Item = Revocation>) {
        let all = all.into_iter().map(|one| (one.user, one.issued_before));
        *self.ends.write() = all.collect();
        // Set once; it stays known.
        let _ = self.known.set(());
    }

    /// Waits until something is known.
    pub async fn known(&self) {
        self.known.wait().await;
    }

    /// Takes over one more. `false` if that is nothing new.
    pub fn learn(&self, Revocation { user, issued_before }: &Revocation) -> bool {
        let mut ends = self.ends.write();
        if ends.get(user).is_some_and(|there| there >= issued_before) {
            return false;
        }
        ends.insert(user.clone(), *issued_before);
        true
    }

    /// Whether the token with these claims was revoked.
    pub fn have(&self, claims: &Claims) -> Result<bool, NotKnownYet> {
        if !self.known.initialized() {
            return Err(NotKnownYet);
        }
        let ends = self.ends.read();
        let end = ends.get(&claims.user);
        Ok(end.is_some_and(|end| claims.issued_at.is_none_or(|issued_at| issued_at < *end)))
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
    fn a_token_is_revoked_if_it_was_issued_before() {
        let revoked = RevokedTokens::none();
        assert!(revoked.learn(&before("ada", 1_000)));
        for (claims, is_revoked) in [
            (issued("ada", Some(999)), true),
            (issued("ada", Some(1_000)), false),
            (issued("ada", None), true),
            (issued("bob", Some(999)), false),
            (issued("bob", None), false),
        ] {
            assert_eq!(revoked.have(&claims), Ok(is_revoked), "{claims:?}");
        }
    }

    #[test]
    fn the_later_instant_holds() {
        let revoked = RevokedTokens::none();
        assert!(revoked.learn(&before("ada", 2_000)));
        assert!(!revoked.learn(&before("ada", 1_000)));
        assert!(!revoked.learn(&before("ada", 2_000)));
        assert_eq!(revoked.have(&issued("ada", Some(1_500))), Ok(true));
        assert!(revoked.learn(&before("ada", 3_000)));
        assert_eq!(revoked.have(&issued("ada", Some(2_500))), Ok(true));
    }

    #[test]
    fn nobody_is_judged_by_what_is_not_known() {
        let revoked = RevokedTokens::unknown();
        assert_eq!(revoked.have(&issued("ada", Some(1))), Err(NotKnownYet));
        revoked.learn_all([before("bob", 5)]);
        assert_eq!(revoked.have(&issued("ada", Some(1))), Ok(false));
        revoked.learn_all([]);
        assert_eq!(revoked.have(&issued("bob", Some(1))), Ok(false));
    }
}
