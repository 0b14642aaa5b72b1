use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belfry_domain::{Revision, Timestamp, UserId};
use parking_lot::{Mutex, RwLock};

use super::gate::{Gate, Passage, Release};
use crate::access::{Access, Action};
use crate::ports::{Claims, Device, SendError};
use crate::push::Push;
use crate::revoked_tokens::RevokedTokens;
use crate::use_cases::Refusal;

/// Names a session on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(super) u64);

/// What became of an announcement to a session.
pub(super) enum DeliveryOutcome {
    /// The device hears it, now or after its replay, or has heard it.
    Delivered,
    /// Its queue did not take it.
    Failed(SendError),
    /// The device has missed something after this revision; it has to catch up.
    Missed(Revision),
}

/// One device, signed in.
pub struct Session<D: Device> {
    id: SessionId,
    user: UserId,
    claims: RwLock<Claims>,
    device: D,
    gate: Mutex<Gate<Arc<[D::Frame]>>>,
    warned: AtomicBool,
    next_check: Mutex<Option<Timestamp>>,
}

impl<D: Device> Session<D> {
    pub(super) fn new(id: SessionId, claims: Claims, device: D, max_held: usize) -> Self {
        Self {
            id,
            user: claims.user.clone(),
            claims: RwLock::new(claims),
            device,
            gate: Mutex::new(Gate::holding(max_held)),
            warned: AtomicBool::new(false),
            next_check: Mutex::new(None),
        }
    }

    /// Its name on this node.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Who is signed in; never changes.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The connection.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Until when its token holds.
    pub fn expires_at(&self) -> Timestamp {
        self.claims.read().expires_at
    }

    /// Whether its token was revoked, as far as is known.
    pub(super) fn is_revoked(&self, revoked: &RevokedTokens) -> bool {
        revoked.have(&self.claims.read()).unwrap_or(false)
    }

    /// The guard before each message: the claims must hold at this moment, and allow the action.
    pub fn authorize(
        &self,
        now: Timestamp,
        access: &Access,
        action: Action,
    ) -> Result<(), Refusal> {
        let claims = self.claims.read();
        if claims.expires_at <= now {
            return Err(Refusal::TokenExpired);
        }
        access.check(&claims, action)
    }

    /// Goes on with another token of the same user.
    pub(super) fn renew(&self, claims: Claims) -> Result<Timestamp, Refusal> {
        if claims.user != self.user {
            return Err(Refusal::OtherUser);
        }
        let expires_at = claims.expires_at;
        *self.claims.write() = claims;
        self.warned.store(false, Ordering::Relaxed);
        Ok(expires_at)
    }

    /// `true` once for each token.
    pub(super) fn warn_once(&self) -> bool {
        !self.warned.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_warned(&self) -> bool {
        self.warned.load(Ordering::Relaxed)
    }

    /// Remembers when it is to be looked at, and answers what it remembered.
    pub(super) fn next_check(&self, at: Option<Timestamp>) -> Option<Timestamp> {
        std::mem::replace(&mut *self.next_check.lock(), at)
    }

    /// Says something that belongs to this session alone, past the gate.
    pub fn say(&self, push: &Push) -> Result<(), SendError> {
        self.device.send(&D::frame(push))
    }

    /// Tells an announcement, or holds it back, or drops it as heard before. The gate's lock is
    /// kept while frames are queued, so that no other announcement comes between.
    pub(super) fn deliver(
        &self,
        revision: Option<Revision>,
        frames: &Arc<[D::Frame]>,
    ) -> DeliveryOutcome {
        let mut gate = self.gate.lock();
        match gate.offer(revision, frames.clone()) {
            Passage::Pass(frames) => match self.device.send_all(&frames) {
                Ok(()) => DeliveryOutcome::Delivered,
                Err(unsent) => DeliveryOutcome::Failed(unsent),
            },
            Passage::Held | Passage::Stale => DeliveryOutcome::Delivered,
            Passage::Gap(told) => DeliveryOutcome::Missed(told),
        }
    }

    pub(super) fn release(&self, told: Revision) -> Release<Arc<[D::Frame]>> {
        self.gate.lock().release(told)
    }

    pub(super) fn hold(&self) -> Option<Revision> {
        self.gate.lock().hold()
    }

    pub(super) fn distrust(&self) -> Option<Revision> {
        self.gate.lock().distrust()
    }

    /// Queues a frame, waiting for room for as long as the device goes on reading.
    pub(super) async fn send_patiently(
        &self,
        frame: &D::Frame,
        patience: Duration,
    ) -> Result<(), SendError> {
        const STEP: Duration = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        loop {
            match self.device.send(frame) {
                Err(SendError::Full) if waited < patience => {
                    tokio::time::sleep(STEP).await;
                    waited += STEP;
                }
                done => return done,
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
