//! Disconnects devices when their tokens are revoked.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use belfry_domain::{UserId, UserRoom};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Sessions;
use crate::access::AuthError;
use crate::ports::{
    CloseReason, Device, PortError, Revocation, RevocationCursor, Revocations, TokenOwner,
};
use crate::revoked_tokens::ApplyRevocation;

/// New revocations are read at this interval. It is short enough for a revocation to apply on every node
/// within a second, with or without a broker.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// All revocations are read again at this interval, to forget those that were purged from the store.
const RELOAD_INTERVAL: Duration = Duration::from_mins(10);

impl<D: Device> Sessions<D> {
    /// Polls revocations and disconnects sessions with revoked tokens, until `stop` is cancelled. Until the
    /// first successful poll, every sign-in is rejected as unavailable.
    pub async fn poll_revocations(&self, store: Arc<dyn Revocations>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reloaded_at: Option<Instant> = None;
        let mut cursor = None;
        let mut reachable = true;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            if reloaded_at.is_none_or(|at| at.elapsed() > RELOAD_INTERVAL) {
                cursor = None;
            }
            let Some(applied) =
                stop.run_until_cancelled(self.apply_revocations(&*store, cursor)).await
            else {
                return;
            };
            match applied {
                Ok(next) => {
                    if cursor.is_none() {
                        reloaded_at = Some(Instant::now());
                    }
                    cursor = Some(next);
                    reachable = true;
                }
                Err(error) => {
                    // One warning per outage.
                    if reachable {
                        let error = &error as &dyn Error;
                        let retry_in = POLL_INTERVAL;
                        warn!(error, ?retry_in, "cannot poll token revocations; retrying");
                    }
                    reachable = false;
                }
            }
        }
    }

    /// Waits until the revocations have been read once.
    pub async fn revocations_loaded(&self) {
        self.sign_in.revoked().loaded().await;
    }

    /// Reads the revocations since `cursor`, or all of them for `None`, and applies them. Returns the next
    /// cursor.
    async fn apply_revocations(
        &self,
        store: &dyn Revocations,
        cursor: Option<RevocationCursor>,
    ) -> Result<RevocationCursor, PortError> {
        let revoked = self.sign_in.revoked();
        if cursor.is_none() {
            revoked.begin_reload();
        }
        let (read, next) = store.since(cursor).await?;
        let to_apply: Vec<_> = if cursor.is_none() {
            // For revocations that were applied before, no session is left to end.
            revoked.replace_all(read.iter().cloned());
            read
        } else {
            // The store may return a revocation repeatedly.
            read.into_iter().filter(|revocation| revoked.add(revocation)).collect()
        };
        for revocation in &to_apply {
            self.disconnect_revoked(&revocation.owner).await;
        }
        Ok(next)
    }

    async fn disconnect_revoked(&self, owner: &TokenOwner) {
        let mut sessions = match owner {
            TokenOwner::User(user) => self.rooms.sessions_in(&UserRoom::of(user.clone())),
            TokenOwner::Everyone => self.rooms.all_sessions(),
        };
        sessions.retain(|session| session.is_revoked(self.sign_in.revoked()));
        if !sessions.is_empty() {
            let (user, count) = (owner.user().map(UserId::as_str), sessions.len());
            info!(user, sessions = count, "tokens revoked; disconnecting devices");
        }
        self.disconnect_all(&sessions, CloseReason::TokenRevoked, &AuthError::TokenRevoked).await;
    }
}

#[async_trait]
impl<D: Device> ApplyRevocation for Sessions<D> {
    async fn apply(&self, revocation: &Revocation) {
        self.sign_in.revoked().add(revocation);
        self.disconnect_revoked(&revocation.owner).await;
    }
}
