use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use belfry_application::access::AuthError;
use belfry_application::ports::{BearerToken, Claims, CloseReason, TokenTooLong};
use belfry_application::session::{Session, TooManySessions};
use belfry_application::use_cases::CatchUpPlan;
use http::Request;
use parking_lot::Mutex;
use tracing::debug;

use super::credentials::{ConnectCredentials, RequestCredentials};
use super::handshake_limits::{HandshakeLimits, PrepaidHandshake, TOO_MANY_HANDSHAKES};
use super::message_limiter::{LimitExceeded, MessageLimiter};
use super::messages::{self, Message};
use super::outage::{OutageGate, Unavailable};
use super::packet::Event;
use super::protocol::{ConnectError, ConnectRequest, NamespaceHandler};
use super::reply::{MessageError, Reply};
use super::settings::SocketIoSettings;
use super::use_cases::SocketUseCases;
use crate::limits::{Cost, Limit, UserWork};
use crate::outbound::socketio::{Arguments, Namespace, SocketIoDevice, SocketIoSessions};
use crate::transport::{ClientAddress, NotSent};

/// Authenticates devices, and does what their messages ask for.
pub(super) struct ConnectHandler {
    pub(super) sessions: Arc<SocketIoSessions>,
    pub(super) use_cases: SocketUseCases,
    /// What all devices and requests of a user may ask for together.
    pub(super) work: UserWork,
    pub(super) handshakes: HandshakeLimits,
    pub(super) outage: OutageGate,
    pub(super) settings: SocketIoSettings,
}

/// What is kept of the request that opened a transport.
pub(super) struct OpeningRequest {
    from: Option<IpAddr>,
    credentials: RequestCredentials,
    prepaid: PrepaidHandshake,
}

/// A device in one namespace.
pub(super) struct DeviceSession {
    pub(super) session: Arc<Session<SocketIoDevice>>,
    limiter: MessageLimiter,
    /// What to replay after the connect; taken when the replay starts.
    plan: Mutex<Option<Box<CatchUpPlan>>>,
    /// Held by the message that reads a page or a replay.
    pub(super) page_turn: tokio::sync::Mutex<()>,
}

impl ConnectHandler {
    /// [`ConnectFailure::Outage`] if the token cannot be verified at the moment: the device must not be rejected for that.
    async fn authenticate(
        &self,
        token: Result<Option<BearerToken>, TokenTooLong>,
    ) -> Result<Claims, ConnectFailure> {
        let claims = match token {
            Ok(token) => self.sessions.sign_in(token).await,
            Err(too_long) => Err(too_long.into()),
        };
        claims.map_err(|refusal| match refusal {
            AuthError::Unavailable(_) => ConnectFailure::Outage,
            refusal => ConnectFailure::Rejected(refusal.code()),
        })
    }

    async fn connect_device(
        &self,
        connect: ConnectRequest<'_, OpeningRequest>,
    ) -> Result<Arc<DeviceSession>, ConnectFailure> {
        let ConnectRequest { request, auth, socket } = connect;
        // First, as it costs next to nothing.
        self.handshakes.check_connect(&request.prepaid, request.from).map_err(|limit| {
            limit.record_exceeded();
            ConnectFailure::Rejected(TOO_MANY_HANDSHAKES)
        })?;
        let ConnectCredentials { token, resume_from } =
            ConnectCredentials::read(&auth, &request.credentials);
        let claims = self.authenticate(token).await?;
        let admission = self.sessions.admit(claims).map_err(|TooManySessions| {
            Limit::SessionsPerUser.record_exceeded();
            ConnectFailure::Rejected(TooManySessions::CODE)
        })?;
        let session = self.sessions.join(admission, SocketIoDevice::new(socket));
        // Before the device is told that it is connected: every later change reaches it as an event.
        let plan = self.sessions.prepare(&session, resume_from).await.map_err(|error| {
            self.sessions.leave(&session);
            // What fails for one user is no outage.
            if error.is_transient() { ConnectFailure::Outage } else { ConnectFailure::Failed }
        })?;
        Ok(Arc::new(DeviceSession {
            session,
            limiter: MessageLimiter::new(self.settings.messages),
            plan: Mutex::new(Some(Box::new(plan))),
            page_turn: tokio::sync::Mutex::default(),
        }))
    }

    /// The error for a message above a limit; `None` if the device is disconnected instead.
    fn limit_exceeded(
        &self,
        device: &DeviceSession,
        exceeded: LimitExceeded,
    ) -> Option<MessageError> {
        Limit::Messages.record_exceeded();
        if exceeded == LimitExceeded::Rate {
            return Some(MessageError::TooManyMessages);
        }
        let why = CloseReason::TooManyMessages;
        self.sessions.disconnect(&device.session, why, &MessageError::TooManyMessages);
        None
    }
}

/// Why a device is not connected.
enum ConnectFailure {
    /// With this code.
    Rejected(&'static str),
    /// Something that every connect needs is down.
    Outage,
    /// The device's inbox cannot be read.
    Failed,
}

impl NamespaceHandler for ConnectHandler {
    type Request = OpeningRequest;
    type Session = DeviceSession;

    fn read_request(&self, request: &Request<Body>) -> OpeningRequest {
        let token_in_query = self.settings.token_in_query;
        OpeningRequest {
            from: ClientAddress::of(request.extensions()),
            credentials: RequestCredentials::read(request.headers(), request.uri(), token_in_query),
            prepaid: PrepaidHandshake::new(Namespace::ALL.len()),
        }
    }

    async fn connect(
        &self,
        connect: ConnectRequest<'_, OpeningRequest>,
    ) -> Result<Arc<DeviceSession>, ConnectError> {
        let (namespace, client) = (connect.socket.namespace().path(), connect.request.from);
        match self.connect_device(connect).await {
            Ok(device) => {
                self.outage.succeeded();
                debug!(user = %device.session.user(), namespace, "device connected");
                Ok(device)
            }
            Err(ConnectFailure::Rejected(code)) => {
                debug!(code, ?client, namespace, "device rejected");
                count_rejected(code);
                Err(ConnectError::Rejected(code))
            }
            Err(ConnectFailure::Outage) => {
                self.outage.failed();
                debug!(?client, namespace, "device cannot be authenticated");
                count_rejected(Unavailable::CODE);
                Err(ConnectError::Unavailable)
            }
            Err(ConnectFailure::Failed) => {
                count_rejected(Unavailable::CODE);
                Err(ConnectError::Unavailable)
            }
        }
    }

    async fn connected(&self, device: Arc<DeviceSession>) {
        let Some(plan) = device.plan.lock().take() else { return };
        let replayed = Cost::of_notifications(plan.sync.missed);
        self.sessions.start(&device.session, *plan).await;
        self.work.charge(device.session.user(), replayed);
    }

    async fn receive(&self, device: Arc<DeviceSession>, event: Event) {
        // Kept until the reply is sent.
        let _turn;
        let outcome = match device.limiter.check() {
            Ok(()) => {
                let message = Message::named(&event.name);
                _turn = messages::turn(&device, message).await;
                messages::handle(self, &device, message, event.payload()).await
            }
            Err(exceeded) => match self.limit_exceeded(&device, exceeded) {
                Some(error) => Err(error),
                None => return,
            },
        };
        let reply = Reply::to(&event.name, outcome);
        if reply.send(device.session.device().socket(), event.ack) == Err(NotSent::Full) {
            self.too_slow(&device);
        }
    }

    /// Belfry asks for no acknowledgements: a device says by its position what it has received.
    fn acknowledged(&self, _: &Arc<DeviceSession>, _: u64, _: Arguments) {}

    fn disconnected(&self, device: &DeviceSession) {
        self.sessions.leave(&device.session);
    }

    fn too_slow(&self, device: &DeviceSession) {
        SocketIoSessions::disconnect_slow_consumer(&device.session);
    }
}

pub(super) fn count_rejected(code: &'static str) {
    metrics::counter!("belfry_handshakes_refused_total", "code" => code).increment(1);
}

/// Rejects a request that opens a transport during an outage.
pub(super) fn reject_during_outage(gate: &OutageGate) -> Result<(), Unavailable> {
    gate.check().inspect_err(|_| count_rejected(Unavailable::CODE))
}
