use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belfry_domain::{Revision, Timestamp, UserId};
use parking_lot::{Mutex, RwLock};

use super::gate::{Gate, Passage, Position, Release};
use crate::access::{Access, Action, AuthError};
use crate::ports::{Claims, Device, KeyFingerprint, SendError};
use crate::push::Push;
use crate::revoked_tokens::RevokedTokens;

/// Identifies a session on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(super) u64);

/// The result of delivering a batch to a session.
pub(super) enum DeliveryOutcome {
    /// The batch was queued, is held until the replay ends, or was delivered before.
    Delivered,
    /// The device did not accept it.
    Failed(SendError),
    /// An event after this revision was lost. The device must catch up from there.
    Lagging(Revision),
}

/// The signed-in state of one device.
pub struct Session<D: Device> {
    id: SessionId,
    user: UserId,
    claims: RwLock<Claims>,
    device: D,
    gate: Mutex<Gate<Arc<[D::Frame]>>>,
    /// Whether the device was warned that its current token expires.
    warned: AtomicBool,
    /// The instant of the session's entry in the expiry schedule; `None` without an entry.
    next_check: Mutex<Option<Timestamp>>,
}

impl<D: Device> Session<D> {
    pub(super) fn new(id: SessionId, claims: Claims, device: D, max_held: usize) -> Self {
        Self {
            id,
            user: claims.user.clone(),
            claims: RwLock::new(claims),
            device,
            gate: Mutex::new(Gate::closed(max_held)),
            warned: AtomicBool::new(false),
            next_check: Mutex::new(None),
        }
    }

    /// Unique on this node.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The signed-in user; never changes.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The connection.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// When the current token expires.
    pub fn expires_at(&self) -> Timestamp {
        self.claims.read().expires_at
    }

    /// Whether the current token is known to be revoked. `false` while the revocations are not loaded.
    pub(super) fn is_revoked(&self, revoked: &RevokedTokens) -> bool {
        revoked.is_revoked(&self.claims.read()).unwrap_or(false)
    }

    /// The key that verified the current token.
    pub(super) fn key(&self) -> KeyFingerprint {
        self.claims.read().key
    }

    /// Checks that the token is valid at `now` and permits the action.
    pub fn authorize(
        &self,
        now: Timestamp,
        access: &Access,
        action: Action,
    ) -> Result<(), AuthError> {
        let claims = self.claims.read();
        if claims.expires_at <= now {
            return Err(AuthError::TokenExpired);
        }
        access.check(&claims, action)
    }

    /// Replaces the token by another one of the same user. Returns the new expiry.
    pub(super) fn renew(&self, claims: Claims) -> Result<Timestamp, AuthError> {
        if claims.user != self.user {
            return Err(AuthError::OtherUser);
        }
        let expires_at = claims.expires_at;
        *self.claims.write() = claims;
        self.warned.store(false, Ordering::Relaxed);
        Ok(expires_at)
    }

    /// Marks the device as warned. Returns `true` on the first call for each token.
    pub(super) fn warn_once(&self) -> bool {
        !self.warned.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_warned(&self) -> bool {
        self.warned.load(Ordering::Relaxed)
    }

    /// Stores the instant of the next expiry check and returns the previous one.
    pub(super) fn replace_next_check(&self, at: Option<Timestamp>) -> Option<Timestamp> {
        std::mem::replace(&mut *self.next_check.lock(), at)
    }

    /// Sends a push that concerns only this session. Bypasses the gate.
    pub fn send(&self, push: &Push) -> Result<(), SendError> {
        self.device.send(&D::frame(push))
    }

    /// Sends a batch, holds it back, or drops it as delivered before. The gate stays locked while the
    /// frames are queued, so that no other batch comes between them.
    pub(super) fn deliver(&self, position: Position, frames: &Arc<[D::Frame]>) -> DeliveryOutcome {
        let mut gate = self.gate.lock();
        match gate.offer(position, frames.clone()) {
            Passage::Pass(frames) => match self.device.send_all(&frames) {
                Ok(()) => DeliveryOutcome::Delivered,
                Err(error) => DeliveryOutcome::Failed(error),
            },
            Passage::Held | Passage::Stale => DeliveryOutcome::Delivered,
            Passage::Gap(last_delivered) => DeliveryOutcome::Lagging(last_delivered),
        }
    }

    /// See [`Gate::release`].
    pub(super) fn release_gate(&self, last_delivered: Revision) -> Release<Arc<[D::Frame]>> {
        self.gate.lock().release(last_delivered)
    }

    /// See [`Gate::close`].
    pub(super) fn close_gate(&self) -> Option<Revision> {
        self.gate.lock().close()
    }

    /// See [`Gate::report_loss`].
    pub(super) fn report_loss(&self) -> Option<Revision> {
        self.gate.lock().report_loss()
    }

    /// Queues a frame. If the queue is full, retries for at most `timeout`.
    pub(super) async fn send_with_timeout(
        &self,
        frame: &D::Frame,
        timeout: Duration,
    ) -> Result<(), SendError> {
        const RETRY_INTERVAL: Duration = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        loop {
            match self.device.send(frame) {
                Err(SendError::Full) if waited < timeout => {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                    waited += RETRY_INTERVAL;
                }
                result => return result,
            }
        }
    }
}

impl<D: Device> fmt::Debug for Session<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
