use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use belfry_application::access::AuthError;
use belfry_application::ports::{BearerToken, Claims, CloseReason, TokenTooLong};
use belfry_application::session::TooManySessions;
use http::Request;
use tracing::debug;

use super::credentials::{ConnectCredentials, RequestCredentials};
use super::device_session::DeviceSession;
use super::engine::is_valid_opening;
use super::handshake_limits::{HandshakeLimits, PrepaidHandshake, TOO_MANY_HANDSHAKES};
use super::message_limiter::LimitExceeded;
use super::messages;
use super::outage::{OutageGate, Unavailable};
use super::parts::SocketIoParts;
use super::protocol::{ClientEvent, ConnectError, ConnectRequest, NamespaceHandler};
use super::reply::{MessageError, Reply};
use crate::inbound::rest::CookieToken;
use crate::limits::Limit;
use crate::outbound::socketio::{Arguments, SocketIoDevice, SocketIoSessions};
use crate::transport::{ClientAddress, EnqueueError};
use crate::wire::socket::{AckShape, EventTable};

/// Authenticates devices and processes their messages.
pub(super) struct ConnectHandler {
    parts: SocketIoParts,
    handshakes: HandshakeLimits,
    outage_gate: OutageGate,
    /// The names and shapes of events. All devices share them.
    events: Arc<EventTable>,
}

/// Data from the request that opened a transport.
pub(super) struct OpeningRequest {
    /// The client's address; `None` only in tests.
    client: Option<IpAddr>,
    credentials: RequestCredentials,
    /// The connects to namespaces that do not count as further handshakes.
    prepaid: PrepaidHandshake,
}

impl ConnectHandler {
    pub(super) fn new(parts: SocketIoParts) -> Self {
        let settings = &parts.settings;
        let handshakes = HandshakeLimits::new(settings.handshakes, settings.handshakes_per_address);
        let events = Arc::new(settings.names.events.clone());
        Self { parts, handshakes, outage_gate: OutageGate::default(), events }
    }

    /// Counts a request that opens a transport, and rejects it above a limit.
    pub(super) fn check_handshake_limits(&self, request: &Request<Body>) -> Result<(), Limit> {
        self.handshakes.check_request(request).inspect_err(|limit| {
            limit.record_exceeded();
            count_rejected(TOO_MANY_HANDSHAKES);
        })
    }

    /// Rejects a request that opens a transport during an outage.
    pub(super) fn check_outage(&self, request: &Request<Body>) -> Result<(), Unavailable> {
        if !is_valid_opening(request.method(), request.uri()) {
            return Ok(());
        }
        self.outage_gate.check().inspect_err(|_| count_rejected(Unavailable::CODE))
    }

    async fn authenticate(
        &self,
        token: Result<Option<BearerToken>, TokenTooLong>,
    ) -> Result<Claims, ConnectError> {
        let claims = match token {
            Ok(token) => self.parts.sessions.sign_in(token).await,
            Err(too_long) => Err(too_long.into()),
        };
        claims.map_err(|refusal| match refusal {
            // The token cannot be verified now, which is no reason to reject the device.
            AuthError::Unavailable(_) => self.record_outage(),
            AuthError::ClaimInvalid(_) => {
                ConnectError::RejectedBecause(refusal.code(), refusal.to_string())
            }
            refusal => ConnectError::Rejected(refusal.code()),
        })
    }

    async fn connect_device(
        &self,
        connect: ConnectRequest<'_, OpeningRequest>,
    ) -> Result<Arc<DeviceSession>, ConnectError> {
        let ConnectRequest { request, auth, socket } = connect;
        let SocketIoParts { sessions, settings, .. } = &self.parts;
        // The cheapest check comes first.
        self.handshakes.check_connect(&request.prepaid, request.client).map_err(|limit| {
            limit.record_exceeded();
            ConnectError::Rejected(TOO_MANY_HANDSHAKES)
        })?;
        let ConnectCredentials { token, resume_from } =
            ConnectCredentials::read(&auth, &request.credentials);
        // The payload can be large, so it is freed before the waits below.
        drop(auth);
        let claims = self.authenticate(token).await?;
        self.handshakes.remember(request.client);
        let user = claims.user.clone();
        let admission = sessions.admit(claims).map_err(|TooManySessions| {
            Limit::SessionsPerUser.record_exceeded_by_user(&user);
            ConnectError::Rejected(TooManySessions::CODE)
        })?;
        let session = sessions.join(admission, SocketIoDevice::new(socket, self.events.clone()));
        // Plan before the connect is confirmed, so that the device receives every later change as an event.
        let plan = sessions.prepare(&session, resume_from).await.map_err(|error| {
            sessions.leave(&session);
            // A permanent error concerns only this user and is no outage.
            if error.is_transient() { self.record_outage() } else { ConnectError::Unavailable }
        })?;
        Ok(DeviceSession::new(session, plan, settings.messages))
    }

    /// Records that a connect failed because a dependency is down, and returns the error for the device.
    fn record_outage(&self) -> ConnectError {
        self.outage_gate.connect_failed();
        ConnectError::Unavailable
    }
}

impl NamespaceHandler for ConnectHandler {
    type Request = OpeningRequest;
    type Session = DeviceSession;

    fn read_request(&self, request: &Request<Body>) -> OpeningRequest {
        let token_in_query = self.parts.settings.token_in_query;
        OpeningRequest {
            client: ClientAddress::of(request.extensions()),
            credentials: RequestCredentials::read(
                request.headers(),
                request.uri(),
                request.extensions().get::<CookieToken>(),
                token_in_query,
            ),
            prepaid: PrepaidHandshake::new(self.parts.settings.namespaces.len()),
        }
    }

    async fn connect(
        &self,
        connect: ConnectRequest<'_, OpeningRequest>,
    ) -> Result<Arc<DeviceSession>, ConnectError> {
        let (namespace, client) = (connect.socket.namespace().path(), connect.request.client);
        let result = self.connect_device(connect).await;
        match &result {
            Ok(device) => {
                self.outage_gate.connect_succeeded();
                debug!(user = %device.session.user(), namespace, "device connected");
            }
            Err(error) => {
                let code = match error {
                    ConnectError::Rejected(code) | ConnectError::RejectedBecause(code, _) => *code,
                    ConnectError::Unavailable => Unavailable::CODE,
                };
                debug!(code, ?client, namespace, "device rejected");
                count_rejected(code);
            }
        }
        result
    }

    async fn connected(&self, device: Arc<DeviceSession>) {
        let Some(plan) = device.take_plan() else { return };
        self.parts.sessions.start(&device.session, *plan).await;
    }

    async fn receive(&self, device: Arc<DeviceSession>, event: ClientEvent) {
        let rule = self.parts.settings.names.messages.find(&event.name);
        // Declared here so that the turn lasts until the reply is sent.
        let _large_reply_turn;
        let result = match device.limiter.check() {
            Ok(()) => {
                if rule.is_some_and(|rule| rule.message.has_large_reply()) {
                    _large_reply_turn = device.large_reply_turn().await;
                }
                messages::process(&self.parts, &device, rule, &event).await
            }
            Err(exceeded) => {
                Limit::Messages.record_exceeded_by_user(device.session.user());
                let (reason, error) = (CloseReason::TooManyMessages, MessageError::TooManyMessages);
                if exceeded == LimitExceeded::Flood {
                    return self.parts.sessions.disconnect(&device.session, reason, &error);
                }
                Err(error)
            }
        };
        let shape = rule.map_or(AckShape::Belfry, |rule| rule.ack);
        let reply = Reply::to(&event.name, result, shape);
        if reply.send(device.session.device().socket(), event.ack) == Err(EnqueueError::Full) {
            self.too_slow(&device);
        }
    }

    /// Does nothing: Belfry requests no acknowledgements from devices. The resume point that a device sends when it
    /// connects shows which changes it has received.
    fn acknowledged(&self, _: &Arc<DeviceSession>, _: u64, _: Arguments) {}

    fn disconnected(&self, device: &DeviceSession) {
        self.parts.sessions.leave(&device.session);
    }

    fn too_slow(&self, device: &DeviceSession) {
        SocketIoSessions::disconnect_slow_consumer(&device.session);
    }
}

const REJECTED: &str = "belfry_handshakes_refused_total";

/// See [`crate::telemetry::describe_metrics`].
pub(crate) fn describe_metrics() {
    metrics::describe_counter!(
        REJECTED,
        "Rejected connects, by the code that the device received."
    );
}

fn count_rejected(code: &'static str) {
    metrics::counter!(REJECTED, "code" => code).increment(1);
}
