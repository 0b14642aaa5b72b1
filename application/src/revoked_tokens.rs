//! The revocations that a node knows.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use belfry_domain::{Timestamp, UserId};
use parking_lot::RwLock;
use tokio::sync::SetOnce;

use crate::ports::{Claims, Revocation, TokenOwner};

/// Applies a stored revocation on this node.
#[async_trait]
pub trait ApplyRevocation: Send + Sync {
    /// Rejects the revoked tokens from now on, and ends their sessions if this node has any.
    async fn apply(&self, revocation: &Revocation);
}

/// A node's copy of the stored [`crate::ports::Revocations`], kept in memory because every sign-in needs it.
#[derive(Debug)]
pub struct RevokedTokens {
    known: RwLock<KnownRevocations>,
    loaded: SetOnce<()>,
    leeway: Duration,
}

/// The latest revocation of each owner: tokens that were issued before its instant are revoked.
#[derive(Debug, Default)]
struct KnownRevocations {
    everyone: Option<Timestamp>,
    by_user: HashMap<UserId, Timestamp>,
    /// Revocations that were added since a reload began. The reload may have read the store before they were
    /// written. `None` unless a reload is in progress.
    added_during_reload: Option<Vec<Revocation>>,
}

impl KnownRevocations {
    /// Adds a revocation. Returns `false` if a known revocation of the same owner already covers it.
    fn add(&mut self, revocation: &Revocation) -> bool {
        let Revocation { owner, issued_before } = revocation;
        let known = match owner {
            TokenOwner::Everyone => self.everyone.as_ref(),
            TokenOwner::User(user) => self.by_user.get(user),
        };
        if known.is_some_and(|instant| instant >= issued_before) {
            return false;
        }
        match owner {
            TokenOwner::Everyone => self.everyone = Some(*issued_before),
            TokenOwner::User(user) => drop(self.by_user.insert(user.clone(), *issued_before)),
        }
        true
    }

    /// The user's tokens that were issued before this instant are revoked; `None` if none are.
    fn issued_before(&self, user: &UserId) -> Option<Timestamp> {
        self.by_user.get(user).copied().max(self.everyone)
    }
}

/// The revocations are not loaded yet, so no token can be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token revocations are not loaded yet")]
pub struct RevocationsNotLoaded;

impl RevokedTokens {
    /// Not usable before the first [`replace_all`](Self::replace_all).
    pub fn not_loaded() -> Self {
        Self { known: RwLock::default(), loaded: SetOnce::new(), leeway: Duration::ZERO }
    }

    /// Loaded, without any revocation.
    pub fn empty() -> Self {
        let empty = Self::not_loaded();
        empty.replace_all([]);
        empty
    }

    /// Tolerates a difference between the clocks of issuers and nodes. A token whose time of issue is less than
    /// `leeway` after a revocation may have been issued before it, so it is revoked too.
    #[must_use]
    pub fn with_leeway(self, leeway: Duration) -> Self {
        Self { leeway, ..self }
    }

    /// Begins a reload. Call it before all revocations are read from the store, and pass the result of the
    /// read to [`replace_all`](Self::replace_all).
    pub fn begin_reload(&self) {
        self.known.write().added_during_reload = Some(Vec::new());
    }

    /// Replaces all known revocations, except for those that were added since
    /// [`begin_reload`](Self::begin_reload).
    pub fn replace_all(&self, all: impl IntoIterator<Item = Revocation>) {
        let mut known = self.known.write();
        let added = known.added_during_reload.take().unwrap_or_default();
        *known = KnownRevocations::default();
        for revocation in all.into_iter().chain(added) {
            known.add(&revocation);
        }
        // It can be set only once. After the first time this returns an error, and the value stays set.
        let _ = self.loaded.set(());
    }

    /// Waits for the first [`replace_all`](Self::replace_all).
    pub async fn loaded(&self) {
        self.loaded.wait().await;
    }

    /// Adds a revocation. Returns `false` if a known revocation of the same owner already covers it.
    pub fn add(&self, revocation: &Revocation) -> bool {
        let mut known = self.known.write();
        if let Some(added) = &mut known.added_during_reload {
            added.push(revocation.clone());
        }
        known.add(revocation)
    }

    /// Whether the token with these claims is revoked. A token without a time of issue is revoked by
    /// any revocation of its user.
    pub fn is_revoked(&self, claims: &Claims) -> Result<bool, RevocationsNotLoaded> {
        if !self.loaded.initialized() {
            return Err(RevocationsNotLoaded);
        }
        let issued_before = self.known.read().issued_before(&claims.user);
        let limit = issued_before.map(|instant| instant.plus(self.leeway));
        Ok(limit.is_some_and(|limit| claims.issued_at.is_none_or(|at| at < limit)))
    }
}

/// For a node without sessions: no session has to be ended.
#[async_trait]
impl ApplyRevocation for RevokedTokens {
    async fn apply(&self, revocation: &Revocation) {
        self.add(revocation);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::testing::{at, claims, user};

    fn issued(name: &str, issued_at: Option<i64>) -> Claims {
        Claims { issued_at: issued_at.map(at), ..claims(name, 9_000) }
    }

    fn revocation(name: &str, issued_before: i64) -> Revocation {
        Revocation { owner: TokenOwner::User(user(name)), issued_before: at(issued_before) }
    }

    #[test]
    fn token_issued_before_the_revocation_is_revoked() {
        let revoked = RevokedTokens::empty();
        assert!(revoked.add(&revocation("ada", 1_000)));
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
    fn token_of_a_clock_that_is_ahead_by_at_most_the_leeway_is_revoked() {
        let revoked = RevokedTokens::empty().with_leeway(Duration::from_mins(1));
        revoked.add(&revocation("ada", 1_000_000));
        for (issued_at, expected) in
            [(999_999, true), (1_030_000, true), (1_059_999, true), (1_060_000, false)]
        {
            let claims = issued("ada", Some(issued_at));
            assert_eq!(revoked.is_revoked(&claims), Ok(expected), "{issued_at}");
        }
    }

    #[test]
    fn later_one_of_two_revocations_applies() {
        let revoked = RevokedTokens::empty();
        assert!(revoked.add(&revocation("ada", 2_000)));
        assert!(!revoked.add(&revocation("ada", 1_000)));
        assert!(!revoked.add(&revocation("ada", 2_000)));
        assert_eq!(revoked.is_revoked(&issued("ada", Some(1_500))), Ok(true));
        assert!(revoked.add(&revocation("ada", 3_000)));
        assert_eq!(revoked.is_revoked(&issued("ada", Some(2_500))), Ok(true));
    }

    #[test]
    fn no_token_is_checked_before_revocations_are_loaded() {
        let revoked = RevokedTokens::not_loaded();
        assert_eq!(revoked.is_revoked(&issued("ada", Some(1))), Err(RevocationsNotLoaded));
        revoked.replace_all([revocation("bob", 5)]);
        assert_eq!(revoked.is_revoked(&issued("ada", Some(1))), Ok(false));
        revoked.replace_all([]);
        assert_eq!(revoked.is_revoked(&issued("bob", Some(1))), Ok(false));
    }

    #[tokio::test(start_paused = true)]
    async fn loaded_waits_for_the_first_revocations() {
        let revoked = RevokedTokens::not_loaded();
        assert!(timeout(Duration::from_secs(9), revoked.loaded()).await.is_err());
        revoked.replace_all([]);
        revoked.loaded().await;
    }

    #[test]
    fn revocation_for_everyone_applies_to_each_user() {
        let revoked = RevokedTokens::empty();
        revoked.add(&revocation("ada", 2_000));
        let everyone = Revocation { owner: TokenOwner::Everyone, issued_before: at(1_000) };
        assert!(revoked.add(&everyone));
        assert!(!revoked.add(&everyone));
        for (claims, expected) in [
            (issued("ada", Some(1_999)), true),
            (issued("bob", Some(999)), true),
            (issued("bob", Some(1_000)), false),
            (issued("bob", None), true),
        ] {
            assert_eq!(revoked.is_revoked(&claims), Ok(expected), "{claims:?}");
        }
    }

    #[test]
    fn revocation_that_is_added_during_a_reload_is_kept() {
        let revoked = RevokedTokens::empty();
        revoked.add(&revocation("ada", 1_000));
        revoked.begin_reload();
        revoked.add(&revocation("bob", 1_000));
        revoked.replace_all([revocation("cy", 1_000)]);
        let is_revoked =
            ["ada", "bob", "cy"].map(|name| revoked.is_revoked(&issued(name, Some(999))).unwrap());
        assert_eq!(is_revoked, [false, true, true]);
        revoked.begin_reload();
        revoked.replace_all([]);
        assert_eq!(revoked.is_revoked(&issued("bob", Some(999))), Ok(false));
    }
}
