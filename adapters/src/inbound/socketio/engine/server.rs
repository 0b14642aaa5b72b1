use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use engineioxide_core::TransportType;
use http::{Request, StatusCode, header};
use tracing::info;

use super::handler::EngineService;
use super::heartbeat::HeartbeatSchedule;
use super::polling::{PollingSession, PollingSessions, packets_response};
use super::receiver::Receiver;
use super::request::{RequestError, Target, older_version};
use super::session::EngineSession;
use super::session_id::SessionId;
use super::settings::EngineSettings;
use super::{packet, upgrade};
use crate::limits::{Limit, ThrottledLog};
use crate::outbound::socketio::PacketSender;
use crate::transport::{OpeningHandshake, SendLimits, text_frame};

/// The `Retry-After` of a request above the limit of polling sessions, in seconds.
const RETRY_AFTER_SECONDS: &str = "5";

/// An Engine.IO server: it responds to the requests for one path of a [`Server`](crate::transport::Server).
pub struct EngineServer<S> {
    service: S,
    settings: EngineSettings,
    heartbeats: Arc<HeartbeatSchedule>,
    polling: Arc<PollingSessions>,
}

impl<S: EngineService> EngineServer<S> {
    /// A server for that service.
    pub fn new(service: S, settings: EngineSettings) -> Arc<Self> {
        let heartbeats = HeartbeatSchedule::new(settings.ping_interval, settings.ping_timeout);
        Arc::new(Self { service, settings, heartbeats, polling: Arc::default() })
    }

    /// Responds to a request.
    pub async fn respond(self: Arc<Self>, request: Request<Body>) -> Response {
        let older_version = older_version(request.uri());
        self.try_respond(request).await.unwrap_or_else(|error| {
            if let (RequestError::UnsupportedVersion, Some(version)) = (error, older_version) {
                log_older_client(version);
            }
            error.into_response()
        })
    }

    async fn try_respond(
        self: Arc<Self>,
        request: Request<Body>,
    ) -> Result<Response, RequestError> {
        match Target::parse(request.method(), request.uri())? {
            Target::Open(TransportType::Websocket) => self.open_websocket(request),
            Target::Open(TransportType::Polling) => Ok(self.open_polling(&request)),
            Target::Upgrade(sid) => self.upgrade(sid, request),
            Target::Poll(sid, tag) => self.polling.find(sid)?.poll(tag),
            Target::Post(sid, tag) => {
                self.polling.find(sid)?.post(tag, request.into_body(), &self.settings).await
            }
        }
    }

    fn send_limits(&self) -> SendLimits {
        SendLimits { frames: self.settings.queue, bytes: self.settings.queue_bytes }
    }

    fn open_websocket(
        self: Arc<Self>,
        mut request: Request<Body>,
    ) -> Result<Response, RequestError> {
        let opening = OpeningHandshake::take(&mut request)?;
        let response = opening.response();
        let request = self.service.read_request(&request);
        tokio::spawn(async move {
            let accepted = opening.accept(self.settings.first_payload()).await;
            let Some((writer, reader)) = accepted else { return };
            let sender = PacketSender::websocket(writer, self.send_limits());
            // The id is not kept: only the requests of polling clients refer to their session by it.
            let open = packet::open(SessionId::random(), &[], &self.settings);
            if sender.send(&text_frame(&[&open])).is_err() {
                return;
            }
            let handler = self.service.open(request, sender.clone());
            let receiver = Receiver::WebSocket(reader);
            let heartbeats = self.heartbeats.clone();
            let max_payload = self.settings.max_payload;
            let session =
                EngineSession::new(receiver, sender, handler, heartbeats, max_payload, None);
            // A separate task, because the memory of this one also has room for the handshake.
            tokio::spawn(session.run());
        });
        Ok(response)
    }

    fn open_polling(&self, request: &Request<Body>) -> Response {
        let (sid, sender) = (SessionId::random(), PacketSender::polling(self.send_limits()));
        let polling = PollingSession::new(sender.clone());
        let registration = self.polling.add(sid, polling.clone(), self.settings.polling_sessions);
        let Some(registration) = registration else {
            Limit::PollingSessions.record_exceeded();
            let retry_after = [(header::RETRY_AFTER, RETRY_AFTER_SECONDS)];
            return (StatusCode::SERVICE_UNAVAILABLE, retry_after).into_response();
        };
        let handler = self.service.open(self.service.read_request(request), sender.clone());
        let receiver = Receiver::polling(polling);
        let (heartbeats, registration) = (self.heartbeats.clone(), Some(registration));
        let max_payload = self.settings.max_payload;
        let session =
            EngineSession::new(receiver, sender, handler, heartbeats, max_payload, registration);
        tokio::spawn(session.run());
        packets_response(packet::open(sid, &[TransportType::Websocket], &self.settings))
    }

    fn upgrade(
        &self,
        sid: SessionId,
        mut request: Request<Body>,
    ) -> Result<Response, RequestError> {
        let session = self.polling.find(sid)?;
        let opening = OpeningHandshake::take(&mut request)?;
        let (response, settings) = (opening.response(), self.settings);
        tokio::spawn(async move { upgrade::serve(session, opening, &settings).await });
        Ok(response)
    }
}

fn log_older_client(version: u8) {
    static LOG: ThrottledLog = ThrottledLog::new();
    if let Some(times) = LOG.record() {
        info!(version, times, "connection rejected: the client is too old (Engine.IO version)");
    }
}
