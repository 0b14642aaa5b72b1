use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use engineioxide_core::TransportType;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode, header};

use super::polling::{PollingSession, PollingSessions, packets_response};
use super::request::{RequestError, Target};
use super::session::{Receiver, Session};
use super::session_id::SessionId;
use super::{EngineSettings, Service, packet, upgrade};
use crate::limits::Limit;
use crate::outbound::socketio::PacketSender;
use crate::transport::{InvalidOpening, Opening, SendLimits, text_frame};

/// An Engine.IO server: a service for one path, whose requests come from a
/// [`Server`](crate::transport::Server).
pub struct EngineServer<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    service: S,
    settings: EngineSettings,
    polling: Arc<PollingSessions>,
}

impl<S> Clone for EngineServer<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S: Service> EngineServer<S> {
    /// A server for that service.
    pub fn new(service: S, settings: EngineSettings) -> Self {
        Self { shared: Arc::new(Shared { service, settings, polling: Arc::default() }) }
    }

    /// The service.
    pub(in crate::inbound::socketio) fn service(&self) -> &S {
        &self.shared.service
    }
}

impl<S: Service> tower::Service<Request<Body>> for EngineServer<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move { Ok(shared.respond(request).await) })
    }
}

impl<S: Service> Shared<S> {
    async fn respond(self: Arc<Self>, request: Request<Body>) -> Response {
        let response = match Target::read(request.method(), request.uri()) {
            Ok(Target::Open(TransportType::Websocket)) => return self.open_websocket(request),
            Ok(Target::Open(TransportType::Polling)) => return self.open_polling(&request),
            Ok(Target::Upgrade(sid)) => self.upgrade(sid, request),
            Ok(Target::Poll(sid, tag)) => match self.polling.find(sid) {
                Ok(session) => {
                    // Nothing of the request is kept while the poll waits.
                    drop(request);
                    session.poll(tag).await
                }
                Err(error) => Err(error),
            },
            Ok(Target::Post(sid, tag)) => match self.polling.find(sid) {
                Ok(session) => session.post(tag, request.into_body(), &self.settings).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        response.unwrap_or_else(RequestError::into_response)
    }

    fn send_limits(&self) -> SendLimits {
        SendLimits { frames: self.settings.queue, bytes: self.settings.queue_bytes }
    }

    fn open_websocket(self: Arc<Self>, mut request: Request<Body>) -> Response {
        let opening = match Opening::take(&mut request) {
            Ok(opening) => opening,
            Err(invalid) => return not_a_websocket(invalid),
        };
        let response = opening.response();
        let request = self.service.read_request(&request);
        tokio::spawn(async move {
            let accepted = opening.accept(self.settings.max_payload).await;
            let Some((writer, reader)) = accepted else { return };
            let sender = PacketSender::websocket(writer, self.send_limits());
            let open = packet::open(SessionId::random(), &[], &self.settings);
            if sender.send(&text_frame(&[&open])).is_err() {
                return;
            }
            let handler = self.service.open(request, sender.clone());
            let receiver = Receiver::WebSocket(reader);
            let session = Session::new(receiver, sender, handler, &self.settings, None);
            drop(self);
            session.run().await;
        });
        response
    }

    fn open_polling(&self, request: &Request<Body>) -> Response {
        let (sid, sender) = (SessionId::random(), PacketSender::polling(self.send_limits()));
        let polling = PollingSession::new(sender.clone());
        let registration = self.polling.add(sid, polling.clone(), self.settings.polling_sessions);
        let Some(registration) = registration else {
            Limit::PollingSessions.record_exceeded();
            let head = [(header::RETRY_AFTER, "5")];
            return (StatusCode::SERVICE_UNAVAILABLE, head).into_response();
        };
        let handler = self.service.open(self.service.read_request(request), sender.clone());
        let receiver = Receiver::polling(polling);
        let session = Session::new(receiver, sender, handler, &self.settings, Some(registration));
        tokio::spawn(session.run());
        packets_response(packet::open(sid, &[TransportType::Websocket], &self.settings))
    }

    fn upgrade(
        &self,
        sid: SessionId,
        mut request: Request<Body>,
    ) -> Result<Response, RequestError> {
        let session = self.polling.find(sid)?;
        let opening = match Opening::take(&mut request) {
            Ok(opening) => opening,
            Err(invalid) => return Ok(not_a_websocket(invalid)),
        };
        let (response, settings) = (opening.response(), self.settings);
        tokio::spawn(async move { upgrade::serve(session, opening, &settings).await });
        Ok(response)
    }
}

fn not_a_websocket(invalid: InvalidOpening) -> Response {
    match invalid.required_version() {
        Some(version) => (StatusCode::UPGRADE_REQUIRED, [version]).into_response(),
        None => RequestError::BadRequest.into_response(),
    }
}
