use std::sync::Arc;

use belfry_domain::Timestamp;

use crate::ports::{Clock, PortError, Revocation, Revocations, TokenOwner};
use crate::revoked_tokens::ApplyRevocation;

/// Revokes tokens, for example after a device was stolen or an account was closed. Before
/// [`run`](Self::run) returns, this node rejects the revoked tokens and has ended their sessions. The other
/// nodes do so within a second.
#[derive(Clone)]
pub struct RevokeTokens {
    revocations: Arc<dyn Revocations>,
    this_node: Arc<dyn ApplyRevocation>,
    clock: Arc<dyn Clock>,
}

impl RevokeTokens {
    /// Stores revocations in `revocations`, at the time of `clock`, and applies them to `this_node`.
    pub fn new(
        revocations: Arc<dyn Revocations>,
        this_node: Arc<dyn ApplyRevocation>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { revocations, this_node, clock }
    }

    /// Revokes the tokens that were issued before `issued_before`, by default before the current time. An
    /// instant in the future is replaced by the current time. Otherwise a mistake would lock users out until
    /// that instant, because a revocation cannot be undone. Returns the revocation that applies.
    pub async fn run(
        &self,
        owner: TokenOwner,
        issued_before: Option<Timestamp>,
    ) -> Result<Revocation, PortError> {
        let now = self.clock.now();
        let issued_before = issued_before.map_or(now, |instant| instant.min(now));
        let stored = self.revocations.revoke(&Revocation { owner, issued_before }).await?;
        self.this_node.apply(&stored).await;
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ports::Claims;
    use crate::revoked_tokens::RevokedTokens;
    use crate::testing::{InMemoryStore, ManualClock, at, claims, epoch, user};

    #[tokio::test]
    async fn revocation_applies_from_now_or_an_earlier_instant() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let revoked = Arc::new(RevokedTokens::empty());
        let revoke = RevokeTokens::new(store, revoked.clone(), Arc::new(ManualClock::at(5_000)));
        let owner = |name| TokenOwner::User(user(name));
        for (owner, requested, expected) in [
            (owner("ada"), None, 5_000),
            (owner("bob"), Some(at(4_000)), 4_000),
            (owner("cy"), Some(at(6_000)), 5_000),
            (TokenOwner::Everyone, None, 5_000),
        ] {
            let stored = revoke.run(owner.clone(), requested).await.unwrap();
            assert_eq!(stored, Revocation { owner, issued_before: at(expected) });
        }
    }

    #[tokio::test]
    async fn revoked_token_is_rejected_when_the_call_returns() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let revoked = Arc::new(RevokedTokens::empty());
        let revoke = RevokeTokens::new(store, revoked.clone(), Arc::new(ManualClock::at(5_000)));
        revoke.run(TokenOwner::User(user("ada")), None).await.unwrap();
        assert_eq!(revoked.is_revoked(&claims("ada", 9_000)), Ok(true));
        assert_eq!(revoked.is_revoked(&claims("bob", 9_000)), Ok(false));
    }

    #[tokio::test]
    async fn token_is_revoked_even_if_the_clock_of_the_revoking_node_is_behind() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let revoked = Arc::new(RevokedTokens::empty().with_leeway(Duration::from_mins(1)));
        let half_a_minute_behind = Arc::new(ManualClock::at(970_000));
        let revoke = RevokeTokens::new(store, revoked.clone(), half_a_minute_behind);
        revoke.run(TokenOwner::User(user("ada")), None).await.unwrap();
        let claims = Claims { issued_at: Some(at(999_000)), ..claims("ada", 9_000_000) };
        assert_eq!(revoked.is_revoked(&claims), Ok(true));
    }
}
