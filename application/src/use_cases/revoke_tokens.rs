use std::sync::Arc;

use belfry_domain::{Timestamp, UserId};

use crate::ports::{Clock, PortError, Revocation, Revocations};

/// Revokes a user's tokens, for example after a device was stolen or an account was closed. Within a
/// second every node ends the sessions with such a token and rejects the token.
#[derive(Clone)]
pub struct RevokeTokens {
    revocations: Arc<dyn Revocations>,
    clock: Arc<dyn Clock>,
}

impl RevokeTokens {
    /// Stores revocations in `revocations`, at the time of `clock`.
    pub fn new(revocations: Arc<dyn Revocations>, clock: Arc<dyn Clock>) -> Self {
        Self { revocations, clock }
    }

    /// Revokes the tokens that were issued before `issued_before`, by default before now. A later instant
    /// is replaced by now: a mistake would otherwise lock the user out until then, because a revocation
    /// cannot be undone.
    pub async fn run(
        &self,
        user: UserId,
        issued_before: Option<Timestamp>,
    ) -> Result<Revocation, PortError> {
        let now = self.clock.now();
        let issued_before = issued_before.map_or(now, |instant| instant.min(now));
        self.revocations.revoke(&Revocation { user, issued_before }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{InMemoryStore, ManualClock, at, epoch, user};

    #[tokio::test]
    async fn revocation_applies_from_now_or_an_earlier_instant() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let revoke = RevokeTokens::new(store, Arc::new(ManualClock::at(5_000)));
        for (name, requested, expected) in
            [("ada", None, 5_000), ("bob", Some(at(4_000)), 4_000), ("cy", Some(at(6_000)), 5_000)]
        {
            let stored = revoke.run(user(name), requested).await.unwrap();
            assert_eq!(stored, Revocation { user: user(name), issued_before: at(expected) });
        }
    }
}
