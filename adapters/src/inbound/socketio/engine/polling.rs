use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;
use tracing::debug;

use super::request::RequestError;
use super::session_id::SessionId;
use super::settings::EngineSettings;
use crate::limits::Limit;
use crate::outbound::socketio::{PacketSender, PollResponse, RequestTag};
use crate::transport::{DeferredBody, FrameWriter, WebSocketReader};

/// The sessions that were opened by polling, upgraded ones included, by their secret id.
#[derive(Default)]
pub(super) struct PollingSessions(Mutex<HashMap<SessionId, Arc<PollingSession>>>);

/// The entry of a session. Dropping it closes the session and removes the entry.
pub(super) struct Registration {
    sessions: Arc<PollingSessions>,
    id: SessionId,
    session: Arc<PollingSession>,
}

impl PollingSessions {
    /// Adds a session. `None` if there are `limit` sessions already.
    pub(super) fn add(
        self: &Arc<Self>,
        id: SessionId,
        session: Arc<PollingSession>,
        limit: usize,
    ) -> Option<Registration> {
        let mut sessions = self.0.lock();
        if sessions.len() >= limit {
            return None;
        }
        sessions.insert(id, session.clone());
        Some(Registration { sessions: self.clone(), id, session })
    }

    pub(super) fn find(&self, id: SessionId) -> Result<Arc<PollingSession>, RequestError> {
        self.0.lock().get(&id).cloned().ok_or(RequestError::UnknownSession)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.session.close();
        let mut sessions = self.sessions.0.lock();
        sessions.remove(&self.id);
        // Frees memory after a burst of sessions.
        if sessions.capacity() > 1_024 && sessions.capacity() / 8 > sessions.len() {
            sessions.shrink_to_fit();
        }
    }
}

/// The part of a session that the requests of a polling client use. The requests leave their input here for the
/// session's task.
pub(super) struct PollingSession {
    sender: Arc<PacketSender>,
    state: Mutex<PollingState>,
}

#[derive(Default)]
struct PollingState {
    transport: ClientTransport,
    /// A POST request is in flight.
    is_posting: bool,
    /// The tag of the last POST request whose body has arrived.
    last_post: RequestTag,
    /// The packets of a POST request, until the session's task takes them.
    posted: Option<PostedPackets>,
    /// The WebSocket after an upgrade, until the session's task takes it.
    websocket: Option<WebSocketReader>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ClientTransport {
    #[default]
    Polling,
    /// A WebSocket is open and may replace polling.
    Probing,
    WebSocket,
    /// The session has ended.
    Closed,
}

impl PollingState {
    /// Whether POST requests are still accepted.
    fn is_polling(&self) -> bool {
        matches!(self.transport, ClientTransport::Polling | ClientTransport::Probing)
    }

    /// Sets the transport. If the session has ended, changes nothing and returns `false`.
    fn change_transport(&mut self, transport: ClientTransport) -> bool {
        let is_open = self.transport != ClientTransport::Closed;
        if is_open {
            self.transport = transport;
        }
        is_open
    }
}

/// The input from a client's requests.
pub(super) enum PollingInput {
    Packets(PostedPackets),
    WebSocket(WebSocketReader),
}

/// The packets in the body of one POST request. If this is dropped unfinished, the request is rejected.
pub(super) struct PostedPackets {
    body: String,
    /// The index of the next packet's first byte; greater than the length of the body after the last packet.
    next_start: usize,
    response: oneshot::Sender<()>,
}

impl PostedPackets {
    pub(super) fn new(body: String, response: oneshot::Sender<()>) -> Self {
        Self { body, next_start: 0, response }
    }

    /// The next packet; `None` after the last one.
    pub(super) fn next(&mut self) -> Option<&str> {
        const SEPARATOR: char = '\u{1e}';
        let remaining = self.body.get(self.next_start..)?;
        let packet = remaining.split(SEPARATOR).next()?;
        self.next_start += packet.len() + SEPARATOR.len_utf8();
        Some(packet)
    }

    /// Whether `next` has returned every packet.
    pub(super) fn is_exhausted(&self) -> bool {
        self.next_start > self.body.len()
    }

    /// Accepts the request.
    pub(super) fn finish(self) {
        // An error means that the client is gone.
        let _ = self.response.send(());
    }
}

impl PollingSession {
    pub(super) fn new(sender: Arc<PacketSender>) -> Arc<Self> {
        Arc::new(Self { sender, state: Mutex::default() })
    }

    /// The next input for the session's task, if there is any.
    pub(super) fn take_input(&self) -> Option<PollingInput> {
        let mut state = self.state.lock();
        // Posted packets first, because they were sent before the upgrade.
        let packets = state.posted.take().map(PollingInput::Packets);
        packets.or_else(|| state.websocket.take().map(PollingInput::WebSocket))
    }

    /// Answers a poll as soon as a packet is pending. If the client repeats the poll before that, the earlier request
    /// is rejected.
    pub(super) fn poll(self: Arc<Self>, tag: RequestTag) -> Result<Response, RequestError> {
        match self.sender.poll(tag).ok_or(RequestError::BadRequest)? {
            PollResponse::Ready(body) => Ok(packets_response(body)),
            PollResponse::Overlap => Err(RequestError::BadRequest),
            PollResponse::Wait { body, noop_after: None } => {
                Ok(DeferredBody::attach(packets_response(Body::empty()), body.map(Result::ok)))
            }
            PollResponse::Wait { body, noop_after: Some(delay) } => {
                let body = async move { self.wait_or_noop(body, delay).await.ok() };
                Ok(DeferredBody::attach(packets_response(Body::empty()), body))
            }
        }
    }

    /// Waits for the body of the response: packets or, after `delay`, a `noop`.
    async fn wait_or_noop(
        &self,
        mut body: oneshot::Receiver<Bytes>,
        delay: Duration,
    ) -> Result<Bytes, RecvError> {
        if let Ok(body) = tokio::time::timeout(delay, &mut body).await {
            return body;
        }
        self.sender.end_waiting_poll();
        body.await
    }

    /// Reads the body of a POST request, passes its packets to the session's task, and responds when the task has
    /// received them all.
    pub(super) async fn post(
        self: Arc<Self>,
        tag: RequestTag,
        body: Body,
        settings: &EngineSettings,
    ) -> Result<Response, RequestError> {
        let _posting = match self.begin_post(&tag) {
            PostStart::Begun(posting) => posting,
            // The browser repeats a request whose response was lost.
            PostStart::Repeated => return Ok(accepted()),
            PostStart::Rejected => return Err(RequestError::BadRequest),
            PostStart::Overlap => {
                self.sender.abort();
                return Err(RequestError::BadRequest);
            }
        };
        let is_connected = self.sender.is_connected_to_any();
        let limit = if is_connected { settings.max_payload } else { settings.first_payload() };
        let body = tokio::time::timeout(settings.body_timeout, read(body, limit));
        let body = match body.await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT)) {
            Ok(body) => body,
            Err(status) => {
                debug!(status = status.as_u16(), "posted packets rejected");
                if status == StatusCode::PAYLOAD_TOO_LARGE {
                    Limit::Payload.record_exceeded();
                }
                // A message is lost now, so the session cannot continue; the client opens a new one.
                self.sender.abort();
                return Ok((status, [(header::CONNECTION, "close")]).into_response());
            }
        };
        let (response, received) = oneshot::channel();
        {
            let mut state = self.state.lock();
            // The session ended or was upgraded while the body arrived: the packets are too late.
            if !state.is_polling() {
                self.sender.abort();
                return Err(RequestError::BadRequest);
            }
            state.last_post = tag;
            state.posted = Some(PostedPackets::new(body, response));
        }
        self.sender.wake_task();
        received.await.map(|()| accepted()).map_err(|_| RequestError::BadRequest)
    }

    /// Begins a POST request, unless it repeats the last one or may not begin now.
    fn begin_post(self: &Arc<Self>, tag: &RequestTag) -> PostStart {
        let mut state = self.state.lock();
        if tag.is_some() && state.last_post == *tag {
            return PostStart::Repeated;
        }
        if !state.is_polling() {
            return PostStart::Rejected;
        }
        if state.is_posting || state.posted.is_some() {
            return PostStart::Overlap;
        }
        state.is_posting = true;
        PostStart::Begun(PostGuard(self.clone()))
    }

    /// Begins an upgrade, because the client opens a WebSocket for this session. `false` if the session has a WebSocket
    /// already, is being upgraded, or has ended.
    pub(super) fn begin_upgrade(&self) -> bool {
        let mut state = self.state.lock();
        let can_begin = state.transport == ClientTransport::Polling;
        if can_begin {
            state.transport = ClientTransport::Probing;
        }
        can_begin
    }

    /// Ends the waiting poll, because the client's probe has arrived over the WebSocket.
    pub(super) fn probed(&self) {
        self.sender.begin_probe();
    }

    /// Continues polling, because the upgrade failed.
    pub(super) fn cancel_upgrade(&self) {
        self.state.lock().change_transport(ClientTransport::Polling);
        self.sender.end_probe();
    }

    /// Marks the session as ended. POST requests in flight and later ones are rejected.
    fn close(&self) {
        let closed = PollingState { transport: ClientTransport::Closed, ..Default::default() };
        *self.state.lock() = closed;
    }

    /// Continues the session on this WebSocket.
    pub(super) fn finish_upgrade(&self, writer: &FrameWriter, reader: WebSocketReader) {
        if !self.state.lock().change_transport(ClientTransport::WebSocket) {
            return;
        }
        self.sender.upgrade(writer);
        self.state.lock().websocket = Some(reader);
        self.sender.wake_task();
    }
}

enum PostStart {
    Begun(PostGuard),
    /// The client repeats its last request, which was received.
    Repeated,
    /// The session does not use polling any more.
    Rejected,
    /// Another POST request is in flight, which violates the protocol.
    Overlap,
}

/// A POST request in flight.
struct PostGuard(Arc<PollingSession>);

impl Drop for PostGuard {
    fn drop(&mut self) {
        self.0.state.lock().is_posting = false;
    }
}

/// The response to a poll or to the request that opens a session: packets, which caches must not store.
pub(super) fn packets_response(body: impl Into<Body>) -> Response {
    let head =
        [(header::CONTENT_TYPE, "text/plain; charset=UTF-8"), (header::CACHE_CONTROL, "no-store")];
    (head, body.into()).into_response()
}

/// The response to a POST request whose packets were received, as from the reference server.
fn accepted() -> Response {
    ([(header::CONTENT_TYPE, "text/html")], "ok").into_response()
}

/// Reads a body of at most `limit` bytes. The error is the status of the response.
async fn read(body: Body, limit: usize) -> Result<String, StatusCode> {
    // A body whose `Content-Length` is too large is not read at all.
    if body.size_hint().lower() > limit as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let bytes = match Limited::new(body, limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(StatusCode::PAYLOAD_TOO_LARGE),
        // The client is gone, or the body is malformed.
        Err(_) => return Err(StatusCode::BAD_REQUEST),
    };
    String::from_utf8(bytes.into()).map_err(|_| StatusCode::BAD_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(body: &str) -> Vec<String> {
        let (response, _) = oneshot::channel();
        let mut posted = PostedPackets::new(body.to_owned(), response);
        std::iter::from_fn(|| posted.next().map(str::to_owned)).collect()
    }

    #[test]
    fn body_is_split_into_its_packets() {
        assert_eq!(packets("40"), ["40"]);
        assert_eq!(packets("42[\"ü\"]\u{1e}3\u{1e}bAQ=="), ["42[\"ü\"]", "3", "bAQ=="]);
        assert_eq!(packets(""), [""]);
        assert_eq!(packets("3\u{1e}"), ["3", ""]);
    }
}
