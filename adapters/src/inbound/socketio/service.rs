use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::response::{IntoResponse, Response};
use belfry_application::use_cases::{
    CountUnread, DeleteNotification, ListInbox, MarkAllRead, MarkRead,
};
use engineioxide::service::NotFoundService;
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use socketioxide::service::SocketIoService;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};
use tracing::debug;

use super::admission::{TOO_MANY_HANDSHAKES, cover, refusal};
use super::door::{Door, count_refused};
use super::inflow::{OTHER_PACKETS, PolledPackets};
use super::library;
use super::websocket;
use crate::limits::PerSecond;
use crate::outbound::socketio::{Namespace, SocketIoSessions};
use crate::transport::{
    EngineService, Opening, Paced, Transports, is_for_websocket, lean, leanest, named_session,
    polled_session, posting_session,
};

/// How the Socket.IO server is run.
#[derive(Debug, Clone, Copy)]
pub struct SocketIoSettings {
    /// How often a device is pinged.
    pub ping_interval: Duration,
    /// How long a device may take to answer.
    pub ping_timeout: Duration,
    /// How long a transport may be open without a namespace.
    pub connect_timeout: Duration,
    /// How many packets are queued for a device that does not read.
    pub queue: usize,
    /// The largest message that a device may send, in bytes; by polling, all that it sends at once.
    pub max_payload: usize,
    /// How long that may take to arrive by polling.
    pub body_timeout: Duration,
    /// Whether a token may stand in the query (`?token=`).
    pub token_in_query: bool,
    /// How many handshakes are let pass.
    pub handshakes: Option<PerSecond>,
    /// How many of them from one address.
    pub handshakes_per_address: Option<PerSecond>,
    /// How many messages each device may send.
    pub messages: Option<PerSecond>,
}

impl Default for SocketIoSettings {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(5),
            queue: 512,
            max_payload: 100_000,
            body_timeout: Duration::from_secs(10),
            token_in_query: false,
            handshakes: None,
            handshakes_per_address: None,
            messages: None,
        }
    }
}

/// What devices can ask for.
#[derive(Clone)]
#[expect(missing_docs, reason = "each is the story that it is named after")]
pub struct InboxStories {
    pub mark_read: MarkRead,
    pub mark_all_read: MarkAllRead,
    pub delete: DeleteNotification,
    pub list: ListInbox,
    pub count_unread: CountUnread,
}

/// What the door is made of.
pub struct SocketIoParts {
    /// Who is signed in.
    pub sessions: Arc<SocketIoSessions>,
    /// What devices can ask for.
    pub stories: InboxStories,
    /// How it is run.
    pub settings: SocketIoSettings,
}

/// The Socket.IO server: a service for the path `/socket.io/`, to be served with
/// [`Peer`](crate::transport::Peer) as connect info.
#[derive(Clone)]
pub struct SocketIoDoor {
    engine: EngineService,
    /// The same for sessions that go on by a WebSocket.
    websockets: SocketIoService<NotFoundService>,
    door: Arc<Door>,
    transports: Arc<Transports>,
    polled: Arc<PolledPackets>,
    queue: usize,
    max_payload: usize,
    body_timeout: Duration,
}

impl SocketIoDoor {
    /// Opens the door.
    pub fn open(parts: SocketIoParts) -> Self {
        let settings = parts.settings;
        let door = Arc::new(Door::new(parts));
        let transports = Arc::new(Transports::default());
        let websockets = library::serve(&door, &transports);
        let engine = BoxCloneSyncService::new(ServiceExt::<Request<Body>>::map_response(
            websockets.clone(),
            IntoResponse::into_response,
        ));
        transports.serve_by(engine.clone());
        let SocketIoSettings { queue, max_payload, body_timeout, .. } = settings;
        let polled = Arc::new(PolledPackets::new());
        Self { engine, websockets, door, transports, polled, queue, max_payload, body_timeout }
    }

    /// A device that comes by a WebSocket is served by us, in one task.
    fn serve_websocket(&self, opening: Opening, request: &Request<Body>) -> Response {
        let session = websocket::Session::opened_by(request, self.door.clone());
        let (queue, answer) = (self.queue, opening.answer());
        tokio::spawn(async move {
            if let Some(connection) = opening.connection(queue).await {
                session.run(connection).await;
            }
        });
        answer
    }

    /// One that goes on by a WebSocket is handed over to the library as soon as it is one. By the
    /// library's own way there it would stay wrapped into what HTTP needed, and nothing but the library
    /// could write to it.
    fn upgrade(&self, sid: String, opening: Opening, request: Request<()>) -> Response {
        let (mut websockets, transports) = (self.websockets.clone(), self.transports.clone());
        let (queue, answer) = (self.queue, opening.answer());
        tokio::spawn(async move {
            let Some(mut connection) = opening.connection(queue).await else { return };
            // Dropped, and so closed: the session has one already.
            if !transports.note(&sid, connection.outlet()) {
                return;
            }
            // Should it not get through its upgrade, the session hangs between its transports: the
            // library would keep it for ever.
            connection.when_dropped(move || transports.give_up(sid));
            let connection = Paced::new(connection, OTHER_PACKETS.into());
            if let Err(error) = websockets.call((connection, request)).await {
                debug!(%error, "a WebSocket was not taken");
            }
        });
        answer
    }

    /// What a device sends by polling, handed over once it is there as a whole: the library would wait
    /// for it without end.
    async fn take_body(self, request: Request<Body>) -> Response {
        let sid = posting_session(&request).map(str::to_owned);
        let (parts, body) = request.into_parts();
        let body = self.whole(body);
        let refusal = match tokio::time::timeout(self.body_timeout, body).await {
            Ok(Ok(body)) if !self.may_say(sid.as_deref(), &body) => StatusCode::TOO_MANY_REQUESTS,
            Ok(Ok(body)) => {
                let request = Request::from_parts(parts, Body::from(body));
                return self.engine.oneshot(request).await.unwrap_or_else(|never| match never {});
            }
            Ok(Err(refusal)) => refusal,
            Err(_) => StatusCode::REQUEST_TIMEOUT,
        };
        debug!(status = refusal.as_u16(), "what a device sent by polling was not taken");
        // A message is missing now, so the session cannot go on; the client makes a new one.
        if let Some(sid) = sid {
            self.transports.close_polling(&sid).await;
        }
        (refusal, [(header::CONNECTION, "close")]).into_response()
    }

    /// Whether a session may send these packets now.
    fn may_say(&self, sid: Option<&str>, body: &[u8]) -> bool {
        sid.is_none_or(|sid| self.polled.take(sid, body).is_ok())
    }

    async fn whole(&self, body: Body) -> Result<Bytes, StatusCode> {
        // What says itself that it is too large is not read up to the bound.
        if body.size_hint().lower() > self.max_payload as u64 {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        match Limited::new(body, self.max_payload).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
            // The client is gone, or what it sends is no HTTP.
            Err(_) => Err(StatusCode::BAD_REQUEST),
        }
    }
}

impl Service<Request<Body>> for SocketIoDoor {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.engine.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Err(limit) = self.door.handshakes.admit(&request) {
            limit.hit();
            count_refused(TOO_MANY_HANDSHAKES);
            return Box::pin(async move { Ok(refusal(limit).await) });
        }
        if request.method() == Method::POST {
            let door = self.clone();
            return Box::pin(async move { Ok(door.take_body(lean(request)).await) });
        }
        if is_for_websocket(request.uri())
            && let Some(opening) = Opening::take(&mut request)
        {
            let response = match named_session(request.uri()).map(str::to_owned) {
                None => self.serve_websocket(opening, &request),
                Some(sid) => self.upgrade(sid, opening, leanest(request)),
            };
            return Box::pin(std::future::ready(Ok(response)));
        }
        let polled = polled_session(&request).map(str::to_owned);
        let mut request = lean(request);
        cover(&mut request, Namespace::COUNT);
        let answer = self.engine.call(request);
        let Some(sid) = polled else { return answer };
        let transports = self.transports.clone();
        Box::pin(async move { Ok(transports.fetched(&sid, answer.await?).await) })
    }
}
