use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::response::{IntoResponse, Response};
use belfry_application::ports::{BearerToken, Claims};
use belfry_application::session::Session;
use belfry_application::use_cases::{
    CountUnread, DeleteNotification, ListInbox, MarkAllRead, MarkRead, Refusal, Seen,
};
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;
use socketioxide::SocketIo;
use socketioxide::extract::{Event, SocketRef, State, TryData};
use socketioxide::handler::ConnectHandler;
use tokio::sync::SetOnce;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};
use tracing::debug;

use super::answer::{Answer, Failure};
use super::handshake::Handshake;
use super::messages;
use crate::outbound::socketio::{SocketIoDevice, SocketIoSessions};
use crate::transport::{
    ClientAddress, EngineService, LastWord, Transports, lean, polled_session, posting_session,
};

/// The namespaces that devices connect to. Both are the same to Belfry: clients in the field use one
/// or the other.
const NAMESPACES: [&str; 2] = ["/", "/notifications"];

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

/// What every handler needs.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) sessions: Arc<SocketIoSessions>,
    pub(super) stories: InboxStories,
    transports: Arc<Transports>,
    settings: SocketIoSettings,
}

/// The Socket.IO server: a service for the path `/socket.io/`, to be served with
/// [`Peer`](crate::transport::Peer) as connect info.
#[derive(Clone)]
pub struct SocketIoDoor {
    engine: EngineService,
    transports: Arc<Transports>,
    max_payload: usize,
    body_timeout: Duration,
}

impl SocketIoDoor {
    /// Opens the door.
    pub fn open(parts: SocketIoParts) -> Self {
        let SocketIoParts { sessions, stories, settings } = parts;
        let transports = Arc::new(Transports::default());
        let door = Door { sessions, stories, transports: transports.clone(), settings };
        let (service, io) = SocketIo::builder()
            .ping_interval(settings.ping_interval)
            .ping_timeout(settings.ping_timeout)
            .connect_timeout(settings.connect_timeout)
            .max_buffer_size(settings.queue)
            .max_payload(settings.max_payload as u64)
            .ws_max_message_size(settings.max_payload)
            .ws_max_frame_size(settings.max_payload)
            .ws_read_buffer_size(512)
            .with_state(door)
            .build_svc();
        for namespace in NAMESPACES {
            io.ns(namespace, on_connect.with(authenticate));
        }
        let engine = BoxCloneSyncService::new(ServiceExt::<Request<Body>>::map_response(
            service,
            IntoResponse::into_response,
        ));
        transports.serve_by(engine.clone());
        let SocketIoSettings { max_payload, body_timeout, .. } = settings;
        Self { engine, transports, max_payload, body_timeout }
    }

    /// What a device sends by polling, handed over once it is there as a whole: the library would wait
    /// for it without end.
    async fn take_body(self, request: Request<Body>) -> Response {
        let sid = posting_session(&request).map(str::to_owned);
        let (parts, body) = request.into_parts();
        let body = self.whole(body);
        let refusal = match tokio::time::timeout(self.body_timeout, body).await {
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

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.transports.note(&request);
        if request.method() == Method::POST {
            let door = self.clone();
            return Box::pin(async move { Ok(door.take_body(lean(request)).await) });
        }
        let polled = polled_session(&request).map(str::to_owned);
        let answer = self.engine.call(lean(request));
        let Some(sid) = polled else { return answer };
        let transports = self.transports.clone();
        Box::pin(async move { Ok(transports.fetched(&sid, answer.await?).await) })
    }
}

/// Weak, as the socket's own handlers hold it: they would keep the socket alive for ever otherwise.
type WeakSession = Weak<Session<SocketIoDevice>>;

/// A device on its way in: signed in, and soon in its room.
#[derive(Clone)]
struct Arrival {
    claims: Claims,
    seen: Option<Seen>,
    session: Arc<SetOnce<WeakSession>>,
}

/// Before a socket is in the namespace: who is it? The code of a refusal is the `connect_error`'s
/// message, and the transport is closed right after it.
async fn authenticate(
    socket: SocketRef,
    TryData(auth): TryData<Value>,
    State(door): State<Door>,
) -> Result<(), &'static str> {
    let auth = auth.unwrap_or(Value::Null);
    let Handshake { token, seen } =
        Handshake::read(&auth, socket.req_parts(), door.settings.token_in_query);
    let claims = door.sign_in(token).await.map_err(|refusal| {
        let client = socket.req_parts().extensions.get::<ClientAddress>().map(|it| it.0);
        debug!(code = refusal.code(), ?client, "device refused");
        metrics::counter!("belfry_handshakes_refused_total", "code" => refusal.code()).increment(1);
        door.transports.close_after(LastWord::ConnectError, &socket);
        refusal.code()
    })?;
    let session = Arc::new(SetOnce::new());
    // Attached before the device learns that it is in: what it says at once must not go unheard.
    listen(&socket, door, session.clone());
    socket.extensions.insert(Arrival { claims, seen, session });
    Ok(())
}

async fn on_connect(socket: SocketRef, State(door): State<Door>) {
    let Some(arrival) = socket.extensions.remove::<Arrival>() else {
        return;
    };
    let device = SocketIoDevice::new(socket.clone(), door.transports.clone());
    let session = door.sessions.join(arrival.claims, device);
    let sessions = door.sessions.clone();
    // No await before this: a device that left meanwhile would never be noticed.
    socket.on_disconnect({
        let session = session.clone();
        async move || sessions.leave(&session)
    });
    // Set once, here; even for a device that left, so that nothing waits for it in vain.
    let _ = arrival.session.set(Arc::downgrade(&session));
    if !socket.connected() {
        return door.sessions.leave(&session);
    }
    debug!(user = %session.user(), namespace = socket.ns(), "device connected");
    door.sessions.welcome(&session, arrival.seen).await;
}

/// How many messages of one device may be under way at once.
const UNDER_WAY_AT_MOST: usize = 32;

/// Answers each message of the device, after the guard.
fn listen(socket: &SocketRef, door: Door, session: Arc<SetOnce<WeakSession>>) {
    let under_way = Arc::new(AtomicUsize::new(0));
    socket.on_fallback(
        async move |Event(event): Event, TryData(payload): TryData<Value>, answer: Answer| {
            let outcome = match UnderWay::enter(&under_way) {
                // A message without a payload is as good as one with null.
                Some(_entered) => {
                    let payload = payload.unwrap_or(Value::Null);
                    door.take(session.wait().await.upgrade(), &event, payload).await
                }
                None => Err(Failure::TooMany),
            };
            answer.give(&event, outcome);
        },
    );
}

impl Door {
    async fn sign_in(&self, token: Option<BearerToken>) -> Result<Claims, Refusal> {
        self.sessions.sign_in(token).await
    }

    async fn take(
        &self,
        session: Option<Arc<Session<SocketIoDevice>>>,
        event: &str,
        payload: Value,
    ) -> Result<Value, Failure> {
        let session = session.ok_or(Failure::SessionEnded)?;
        messages::handle(self, &session, event, payload).await
    }
}

/// A message under way; counts itself out when it is done.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let entered = Self(count);
        (count.fetch_add(1, Ordering::AcqRel) < UNDER_WAY_AT_MOST).then_some(entered)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
