use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;
use tracing::debug;

use super::EngineSettings;
use super::request::RequestError;
use super::session_id::SessionId;
use crate::limits::Limit;
use crate::outbound::socketio::{PacketSender, PollResponse, RequestTag};
use crate::transport::{FrameWriter, WebSocketReader};

/// The sessions that were opened by polling, upgraded ones included, by their secret id.
#[derive(Default)]
pub(super) struct PollingSessions(Mutex<HashMap<SessionId, Arc<PollingSession>>>);

/// A session's place among them. The session is closed and forgotten when this is dropped.
pub(super) struct Registration {
    sessions: Arc<PollingSessions>,
    id: SessionId,
    session: Arc<PollingSession>,
}

impl PollingSessions {
    /// Adds a session, unless there are `limit` already.
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
        // After a burst of sessions.
        if sessions.capacity() > 1_024 && sessions.capacity() / 8 > sessions.len() {
            sessions.shrink_to_fit();
        }
    }
}

/// A session as the requests of a polling client see it. Its own task takes out what they bring.
pub(super) struct PollingSession {
    sender: Arc<PacketSender>,
    inbox: Mutex<Inbox>,
}

#[derive(Default)]
struct Inbox {
    transport: ClientTransport,
    /// A request with packets is under way.
    is_posting: bool,
    /// The last request with packets that was accepted.
    last_post: RequestTag,
    posted: Option<PostedPackets>,
    websocket: Option<WebSocketReader>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ClientTransport {
    #[default]
    Polling,
    /// A WebSocket is open and may replace polling.
    Probing,
    WebSocket,
    /// The session is over.
    Closed,
}

impl Inbox {
    /// Whether packets may still arrive by requests.
    fn is_polling(&self) -> bool {
        matches!(self.transport, ClientTransport::Polling | ClientTransport::Probing)
    }

    /// `false` if the session is over.
    fn change_transport(&mut self, transport: ClientTransport) -> bool {
        let is_open = self.transport != ClientTransport::Closed;
        if is_open {
            self.transport = transport;
        }
        is_open
    }
}

/// What the requests of a client have brought.
pub(super) enum Delivery {
    Packets(PostedPackets),
    WebSocket(WebSocketReader),
}

/// The packets of one request's body. Dropped unfinished, the request is refused.
pub(super) struct PostedPackets {
    body: String,
    at: usize,
    response: oneshot::Sender<()>,
}

impl PostedPackets {
    pub(super) fn new(body: String, response: oneshot::Sender<()>) -> Self {
        Self { body, at: 0, response }
    }

    /// The next packet.
    pub(super) fn next(&mut self) -> Option<&str> {
        const SEPARATOR: char = '\u{1e}';
        let rest = self.body.get(self.at..)?;
        let packet = rest.split(SEPARATOR).next()?;
        // Past the separator; past the end, where there is none.
        self.at += packet.len() + SEPARATOR.len_utf8();
        Some(packet)
    }

    /// Whether every packet was taken.
    pub(super) fn is_exhausted(&self) -> bool {
        self.at > self.body.len()
    }

    /// All packets were received.
    pub(super) fn finish(self) {
        // A client that is gone needs no response.
        let _ = self.response.send(());
    }
}

impl PollingSession {
    pub(super) fn new(sender: Arc<PacketSender>) -> Arc<Self> {
        Arc::new(Self { sender, inbox: Mutex::default() })
    }

    /// What a request has brought for the session's task, if anything.
    pub(super) fn take_delivery(&self) -> Option<Delivery> {
        let mut inbox = self.inbox.lock();
        // Packets first: those sent before the upgrade come before those after it.
        let packets = inbox.posted.take().map(Delivery::Packets);
        packets.or_else(|| inbox.websocket.take().map(Delivery::WebSocket))
    }

    /// Answers a poll, as soon as there is something to send.
    pub(super) async fn poll(&self, tag: RequestTag) -> Result<Response, RequestError> {
        let body = match self.sender.poll(tag).ok_or(RequestError::BadRequest)? {
            PollResponse::Ready(body) => body,
            PollResponse::Overlap => return Err(RequestError::BadRequest),
            // Fails where a repeated request has taken its place.
            PollResponse::Wait { body, noop_after } => {
                self.wait(body, noop_after).await.map_err(|_| RequestError::BadRequest)?
            }
        };
        Ok(packets_response(body))
    }

    async fn wait(
        &self,
        mut body: oneshot::Receiver<Bytes>,
        noop_after: Option<Duration>,
    ) -> Result<Bytes, RecvError> {
        if let Some(delay) = noop_after {
            if let Ok(body) = tokio::time::timeout(delay, &mut body).await {
                return body;
            }
            self.sender.end_waiting_poll();
        }
        body.await
    }

    /// Takes the packets in a request's body, once all of it is there. The response waits until the session's
    /// task has received them.
    pub(super) async fn post(
        self: Arc<Self>,
        tag: RequestTag,
        body: Body,
        settings: &EngineSettings,
    ) -> Result<Response, RequestError> {
        let _posting = match self.begin_post(&tag) {
            PostStart::Begun(posting) => posting,
            // Its response was lost on the way, and the browser repeats it.
            PostStart::Repeated => return Ok(accepted()),
            PostStart::Refused => return Err(RequestError::BadRequest),
            PostStart::Overlap => {
                self.sender.abort();
                return Err(RequestError::BadRequest);
            }
        };
        let body = tokio::time::timeout(settings.body_timeout, read(body, settings.max_payload));
        let body = match body.await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT)) {
            Ok(body) => body,
            Err(status) => {
                debug!(status = status.as_u16(), "posted packets rejected");
                if status == StatusCode::PAYLOAD_TOO_LARGE {
                    Limit::Payload.record_exceeded();
                }
                // A message is missing now, so the session cannot go on; the client opens a new one.
                self.sender.abort();
                return Ok((status, [(header::CONNECTION, "close")]).into_response());
            }
        };
        let (response, received) = oneshot::channel();
        {
            let mut inbox = self.inbox.lock();
            // The session has ended, or gone on over a WebSocket, while the body arrived: the packets come too late.
            if !inbox.is_polling() {
                self.sender.abort();
                return Err(RequestError::BadRequest);
            }
            inbox.last_post = tag;
            inbox.posted = Some(PostedPackets::new(body, response));
        }
        self.sender.wake_task();
        received.await.map(|()| accepted()).map_err(|_| RequestError::BadRequest)
    }

    fn begin_post(self: &Arc<Self>, tag: &RequestTag) -> PostStart {
        let mut inbox = self.inbox.lock();
        if tag.is_some() && inbox.last_post == *tag {
            return PostStart::Repeated;
        }
        if !inbox.is_polling() {
            return PostStart::Refused;
        }
        if inbox.is_posting || inbox.posted.is_some() {
            return PostStart::Overlap;
        }
        inbox.is_posting = true;
        PostStart::Begun(Posting(self.clone()))
    }

    /// The client opens a WebSocket for this session. `false` if it already has one, or another upgrade is in
    /// progress.
    pub(super) fn begin_upgrade(&self) -> bool {
        let mut inbox = self.inbox.lock();
        let may = inbox.transport == ClientTransport::Polling;
        if may {
            inbox.transport = ClientTransport::Probing;
        }
        may
    }

    /// The client's probe has arrived over the WebSocket.
    pub(super) fn probed(&self) {
        self.sender.begin_probe();
    }

    /// The upgrade failed: the session goes on by polling, as if nothing had happened.
    pub(super) fn cancel_upgrade(&self) {
        self.inbox.lock().change_transport(ClientTransport::Polling);
        self.sender.end_probe();
    }

    /// The session is over: POST requests in progress and later ones are rejected.
    fn close(&self) {
        *self.inbox.lock() = Inbox { transport: ClientTransport::Closed, ..Inbox::default() };
    }

    /// The session goes on over this WebSocket.
    pub(super) fn finish_upgrade(&self, writer: &FrameWriter, reader: WebSocketReader) {
        if !self.inbox.lock().change_transport(ClientTransport::WebSocket) {
            return;
        }
        self.sender.upgrade(writer);
        self.inbox.lock().websocket = Some(reader);
        self.sender.wake_task();
    }
}

enum PostStart {
    Begun(Posting),
    Repeated,
    Refused,
    Overlap,
}

/// A request with packets, under way until this is dropped.
struct Posting(Arc<PollingSession>);

impl Drop for Posting {
    fn drop(&mut self) {
        self.0.inbox.lock().is_posting = false;
    }
}

/// The response to a poll, or to the request that opens a session: packets, for no cache to keep.
pub(super) fn packets_response(body: impl Into<Body>) -> Response {
    let head =
        [(header::CONTENT_TYPE, "text/plain; charset=UTF-8"), (header::CACHE_CONTROL, "no-store")];
    (head, body.into()).into_response()
}

fn accepted() -> Response {
    ([(header::CONTENT_TYPE, "text/html")], "ok").into_response()
}

async fn read(body: Body, limit: usize) -> Result<String, StatusCode> {
    // One that announces too much is not read up to the limit.
    if body.size_hint().lower() > limit as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let bytes = match Limited::new(body, limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(StatusCode::PAYLOAD_TOO_LARGE),
        // The client is gone, or what it sends is no HTTP.
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
