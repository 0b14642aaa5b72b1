use std::net::IpAddr;
use std::sync::{Arc, Weak};

use belfry_application::ports::{BearerToken, Claims, CloseReason, Device as _, TokenTooLong};
use belfry_application::session::{Admission, Session, TooManySessions};
use belfry_application::use_cases::{Refusal, ResumePoint};
use serde_json::Value;
use tokio::sync::SetOnce;
use tracing::debug;

use super::admission::{Covered, Handshakes, TOO_MANY_HANDSHAKES};
use super::answer::Failure;
use super::handshake::{Handshake, Shown};
use super::inflow::{Excess, Inflow, UnderWay};
use super::messages;
use super::service::{InboxStories, SocketIoParts, SocketIoSettings};
use crate::limits::{Limit, PerSecond};
use crate::outbound::socketio::{SocketIoDevice, SocketIoSessions};

/// Who is let in and what is done for them, whether the library speaks with them or we do.
pub(super) struct Door {
    pub(super) sessions: Arc<SocketIoSessions>,
    pub(super) stories: InboxStories,
    pub(super) handshakes: Handshakes,
    pub(super) settings: SocketIoSettings,
}

/// A device at a namespace's door.
pub(super) struct Knock<'a> {
    /// Where it comes from.
    pub(super) from: Option<IpAddr>,
    /// What the handshake of its transport was let pass for.
    pub(super) covered: Option<&'a Covered>,
    /// What the request showed by which its transport was opened.
    pub(super) shown: &'a Shown,
    /// What it shows now.
    pub(super) auth: &'a Value,
}

/// A device on its way in: signed in, and soon in its room.
pub(super) struct Arrival {
    pub(super) admission: Admission<SocketIoDevice>,
    pub(super) seen: Option<ResumePoint>,
}

/// Why a device is not let in, and so how its transport is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnedAway {
    /// It is told this code, and closed.
    Refused(&'static str),
    /// It is cut without a word, so that it comes back by itself after a while. Told that it is not let
    /// in, client libraries would stay away.
    PutOff(&'static str),
}

/// Weak, as the connection holds it: the session, which holds the device, is kept by its room.
type WeakSession = Weak<Session<SocketIoDevice>>;

/// A device in its namespace, up from when it is told that it is in: what it says at once must not go
/// unheard.
pub(super) struct Seat {
    session: SetOnce<WeakSession>,
    inflow: Arc<Inflow>,
}

impl Seat {
    pub(super) fn new(rate: Option<PerSecond>) -> Self {
        Self { session: SetOnce::new(), inflow: Arc::new(Inflow::new(rate)) }
    }

    /// Has what the device says be heard from now on, also if it has left: nothing waits in vain.
    pub(super) fn take(&self, session: &Arc<Session<SocketIoDevice>>) {
        // Once for each seat.
        let _ = self.session.set(Arc::downgrade(session));
    }

    pub(super) fn session(&self) -> Option<Arc<Session<SocketIoDevice>>> {
        self.session.get()?.upgrade()
    }

    /// One more message of the device.
    pub(super) fn enter(&self) -> Result<UnderWay, Excess> {
        self.inflow.enter()
    }
}

impl Door {
    pub(super) fn new(parts: SocketIoParts) -> Self {
        let SocketIoParts { sessions, stories, settings } = parts;
        let handshakes = Handshakes::new(settings.handshakes, settings.handshakes_per_address);
        Self { sessions, stories, handshakes, settings }
    }

    /// Before a device is in a namespace: who is it?
    pub(super) async fn let_in(&self, knock: Knock<'_>) -> Result<Arrival, TurnedAway> {
        let Knock { from, covered, shown, auth } = knock;
        let refused = |code| {
            debug!(code, client = ?from, "device refused");
            count_refused(code);
            TurnedAway::Refused(code)
        };
        let put_off = |code| {
            debug!(code, client = ?from, "device put off");
            count_refused(code);
            TurnedAway::PutOff(code)
        };
        // First, as it costs next to nothing.
        self.handshakes.admit_to_namespace(covered, from).map_err(|limit| {
            limit.hit();
            refused(TOO_MANY_HANDSHAKES)
        })?;
        let Handshake { token, seen } = Handshake::read(auth, shown);
        let claims = self.sign_in(token).await.map_err(|refusal| match refusal {
            Refusal::Unavailable(_) => put_off(refusal.code()),
            refusal => refused(refusal.code()),
        })?;
        let admission = self.sessions.admit(claims).map_err(|TooManySessions| {
            Limit::SessionsPerUser.hit();
            refused(TooManySessions::CODE)
        })?;
        Ok(Arrival { admission, seen })
    }

    async fn sign_in(
        &self,
        token: Result<Option<BearerToken>, TokenTooLong>,
    ) -> Result<Claims, Refusal> {
        self.sessions.sign_in(token?).await
    }

    /// Brings a device that has joined up to date.
    pub(super) async fn start(
        &self,
        session: &Arc<Session<SocketIoDevice>>,
        seen: Option<ResumePoint>,
    ) {
        match self.sessions.prepare(session, seen).await {
            Ok(plan) => self.sessions.start(session, plan).await,
            Err(_) => session.device().close(CloseReason::NotCaughtUp),
        }
    }

    /// Does what a message asks for, after the guard.
    pub(super) async fn answer(
        &self,
        seat: &Seat,
        event: &str,
        payload: Value,
    ) -> Result<Value, Failure> {
        let session = seat.session.wait().await.upgrade().ok_or(Failure::SessionEnded)?;
        messages::handle(self, &session, event, payload).await
    }

    /// What a device is told whose message is one too many; nothing if it is sent away for it.
    pub(super) fn exceeded(&self, seat: &Seat, excess: Excess) -> Option<Failure> {
        if excess == Excess::UnderWay {
            return Some(Failure::TooManyUnderWay);
        }
        Limit::Messages.hit();
        if excess == Excess::Flood
            && let Some(session) = seat.session()
        {
            let why = CloseReason::TooManyMessages;
            self.sessions.end(&session, why, &Failure::TooManyMessages);
            return None;
        }
        Some(Failure::TooManyMessages)
    }
}

pub(super) fn count_refused(code: &'static str) {
    metrics::counter!("belfry_handshakes_refused_total", "code" => code).increment(1);
}
