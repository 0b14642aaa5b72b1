use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Request;
use tower::Service;

use super::connect_handler::ConnectHandler;
use super::engine::EngineServer;
use super::handshake_limits::rejection;
use super::parts::SocketIoParts;
use super::protocol::{ProtocolSettings, SocketIo};
use super::settings::SocketIoSettings;

/// The Socket.IO server: a service for the path `/socket.io/` of a [`Server`](crate::transport::Server).
#[derive(Clone)]
pub struct SocketIoServer {
    handler: Arc<ConnectHandler>,
    engine: Arc<EngineServer<SocketIo<ConnectHandler>>>,
}

impl SocketIoServer {
    /// A server without connected devices.
    pub fn new(parts: SocketIoParts) -> Self {
        let settings = parts.settings.clone();
        let handler = Arc::new(ConnectHandler::new(parts));
        let SocketIoSettings { namespaces, refusal, connect_timeout, .. } = settings;
        let protocol = ProtocolSettings { namespaces, refusal, connect_timeout };
        let socket_io = SocketIo::new(handler.clone(), protocol);
        Self { handler, engine: EngineServer::new(socket_io, settings.engine) }
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
        if let Err(limit) = self.handler.check_handshake_limits(&request) {
            return rejection(limit).map(Ok).boxed();
        }
        if let Err(unavailable) = self.handler.check_outage(&request) {
            return std::future::ready(Ok(unavailable.into())).boxed();
        }
        self.engine.clone().respond(request).map(Ok).boxed()
    }
}
