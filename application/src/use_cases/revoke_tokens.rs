use std::sync::Arc;

use belfry_domain::{Timestamp, UserId};

use crate::ports::{Clock, PortError, Revocation, Revocations};

/// A user's tokens hold no more: a device was stolen, an account was closed. Every node learns of it
/// within a second, ends the sessions that live on such a token, and lets in nobody who shows one.
#[derive(Clone)]
pub struct RevokeTokens {
    revocations: Arc<dyn Revocations>,
    clock: Arc<dyn Clock>,
}

impl RevokeTokens {
    /// Keeps them there, by that clock.
    pub fn new(revocations: Arc<dyn Revocations>, clock: Arc<dyn Clock>) -> Self {
        Self { revocations, clock }
    }

    /// Those that were issued before that instant, or before now. No token is issued in the future,
    /// so an instant that lies there means now too: a mistake in it would lock the user out until
    /// then, and a revocation is never taken back.
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
    async fn it_holds_from_now_unless_an_earlier_instant_is_named() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let revoke = RevokeTokens::new(store, Arc::new(ManualClock::at(5_000)));
        for (name, asked, holds) in
            [("ada", None, 5_000), ("bob", Some(at(4_000)), 4_000), ("cy", Some(at(6_000)), 5_000)]
        {
            let kept = revoke.run(user(name), asked).await.unwrap();
            assert_eq!(kept, Revocation { user: user(name), issued_before: at(holds) });
        }
    }
}
