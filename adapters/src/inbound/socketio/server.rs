use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::Request;
use tower::Service;

use super::connect_handler::{ConnectHandler, count_rejected, reject_during_outage};
use super::engine::{EngineServer, is_valid_opening};
use super::handshake_limits::{HandshakeLimits, TOO_MANY_HANDSHAKES, rejection};
use super::outage::OutageGate;
use super::protocol::SocketIo;
use super::settings::SocketIoSettings;
use super::use_cases::SocketUseCases;
use crate::limits::UserWork;
use crate::outbound::socketio::SocketIoSessions;

/// What the server is made of.
pub struct SocketIoParts {
    /// The sessions of the devices that connect.
    pub sessions: Arc<SocketIoSessions>,
    /// What devices can ask for.
    pub use_cases: SocketUseCases,
    /// What all devices and requests of a user may ask for together.
    pub work: UserWork,
    /// How the server is run.
    pub settings: SocketIoSettings,
}

/// The Socket.IO server: a service for the path `/socket.io/` of a [`Server`](crate::transport::Server).
#[derive(Clone)]
pub struct SocketIoServer(EngineServer<SocketIo<ConnectHandler>>);

impl SocketIoServer {
    /// A server without devices.
    pub fn new(parts: SocketIoParts) -> Self {
        let SocketIoParts { sessions, use_cases, work, settings } = parts;
        let handler = Arc::new(ConnectHandler {
            sessions,
            use_cases,
            work,
            handshakes: HandshakeLimits::new(settings.handshakes, settings.handshakes_per_address),
            outage: OutageGate::default(),
            settings,
        });
        let socket_io = SocketIo::new(handler, settings.connect_timeout);
        Self(EngineServer::new(socket_io, settings.engine()))
    }

    fn handler(&self) -> &ConnectHandler {
        self.0.service().handler()
    }
}

impl Service<Request<Body>> for SocketIoServer {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Err(limit) = self.handler().handshakes.check_request(&request) {
            limit.record_exceeded();
            count_rejected(TOO_MANY_HANDSHAKES);
            return Box::pin(async move { Ok(rejection(limit).await) });
        }
        if is_valid_opening(request.method(), request.uri())
            && let Err(unavailable) = reject_during_outage(&self.handler().outage)
        {
            return Box::pin(std::future::ready(Ok(unavailable.into())));
        }
        self.0.call(request)
    }
}
