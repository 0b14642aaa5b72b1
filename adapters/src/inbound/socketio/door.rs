use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::response::{IntoResponse, Response};
use belfry_application::ports::{BearerToken, Claims, CloseReason, TokenTooLong};
use belfry_application::session::{Admission, Session, TooManySessions};
use belfry_application::use_cases::{
    CountUnread, DeleteNotification, ListInbox, MarkAllRead, MarkRead, Refusal, Seen,
};
use engineioxide::service::NotFoundService;
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;
use socketioxide::extract::{Event, SocketRef, State, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::service::SocketIoService;
use socketioxide::socket::{DisconnectReason, Sid};
use socketioxide::{ParserConfig, SocketIo};
use tokio::sync::SetOnce;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};
use tracing::debug;

use super::admission::{Handshakes, TOO_MANY_HANDSHAKES, cover, refusal};
use super::answer::{Answer, Failure, Payload};
use super::handshake::Handshake;
use super::inflow::{Excess, Inflow};
use super::messages;
use crate::limits::{Limit, PerSecond};
use crate::outbound::socketio::{Namespace, SocketIoDevice, SocketIoSessions};
use crate::transport::{
    ClientAddress, EngineService, LastWord, Opening, Transports, is_for_websocket, lean, leanest,
    polled_session, posting_session, upgraded_session,
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

/// What every handler needs.
pub(super) struct Door {
    pub(super) sessions: Arc<SocketIoSessions>,
    pub(super) stories: InboxStories,
    transports: Arc<Transports>,
    handshakes: Arc<Handshakes>,
    settings: SocketIoSettings,
}

/// The Socket.IO server: a service for the path `/socket.io/`, to be served with
/// [`Peer`](crate::transport::Peer) as connect info.
#[derive(Clone)]
pub struct SocketIoDoor {
    engine: EngineService,
    /// The same for connections that are WebSockets already.
    websockets: SocketIoService<NotFoundService>,
    transports: Arc<Transports>,
    handshakes: Arc<Handshakes>,
    queue: usize,
    max_payload: usize,
    body_timeout: Duration,
}

impl SocketIoDoor {
    /// How many attachments a packet may announce. They are held until the last one is there. No event
    /// of ours has any; a client that sends a few hears that they are not what was asked for.
    const ATTACHMENTS: usize = 16;

    /// Opens the door.
    pub fn open(parts: SocketIoParts) -> Self {
        let SocketIoParts { sessions, stories, settings } = parts;
        let transports = Arc::new(Transports::default());
        let handshakes =
            Arc::new(Handshakes::new(settings.handshakes, settings.handshakes_per_address));
        let door = Door {
            sessions,
            stories,
            transports: transports.clone(),
            handshakes: handshakes.clone(),
            settings,
        };
        let (service, io) = SocketIo::builder()
            .ping_interval(settings.ping_interval)
            .ping_timeout(settings.ping_timeout)
            .connect_timeout(settings.connect_timeout)
            .max_buffer_size(settings.queue)
            .max_payload(settings.max_payload as u64)
            .ws_max_message_size(settings.max_payload)
            .ws_max_frame_size(settings.max_payload)
            .ws_read_buffer_size(128)
            .with_parser(
                ParserConfig::common()
                    .max_incoming_binaries(Self::ATTACHMENTS)
                    .max_incoming_binary_buf_size(settings.max_payload),
            )
            .with_state(Arc::new(door))
            .build_svc();
        for namespace in Namespace::ALL {
            io.ns(namespace.path(), on_connect.with(authenticate));
        }
        let websockets = service.clone();
        let engine = BoxCloneSyncService::new(ServiceExt::<Request<Body>>::map_response(
            service,
            IntoResponse::into_response,
        ));
        transports.serve_by(engine.clone());
        let SocketIoSettings { queue, max_payload, body_timeout, .. } = settings;
        Self { engine, websockets, transports, handshakes, queue, max_payload, body_timeout }
    }

    /// Hands the connection over as soon as it is a WebSocket. By the library's own way there it would
    /// stay wrapped into what HTTP needed, and nothing but the library could write to it.
    fn open_websocket(&self, opening: Opening, mut request: Request<()>) -> Response {
        let (mut websockets, transports) = (self.websockets.clone(), self.transports.clone());
        let queue = self.queue;
        let answer = opening.answer();
        tokio::spawn(async move {
            let Some(mut connection) = opening.connection(queue).await else { return };
            // Dropped, and so closed: the session has one already.
            if !transports.note(&mut request, connection.outlet()) {
                return;
            }
            if let Some(sid) = upgraded_session(request.uri()).map(str::to_owned) {
                // Should it not get through its upgrade, the session hangs between its transports: the
                // library would keep it for ever.
                connection.when_dropped(move || transports.give_up(sid));
            }
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Err(limit) = self.handshakes.admit(&request) {
            limit.hit();
            count_refused(TOO_MANY_HANDSHAKES);
            return Box::pin(std::future::ready(Ok(refusal(limit))));
        }
        if request.method() == Method::POST {
            let door = self.clone();
            return Box::pin(async move { Ok(door.take_body(lean(request)).await) });
        }
        if is_for_websocket(request.uri())
            && let Some(opening) = Opening::take(&mut request)
        {
            let mut request = leanest(request);
            cover(&mut request, Namespace::COUNT);
            return Box::pin(std::future::ready(Ok(self.open_websocket(opening, request))));
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

/// Weak, as the socket's own handlers hold it: they would keep the socket alive for ever otherwise.
type WeakSession = Weak<Session<SocketIoDevice>>;

/// A device on its way in: signed in, and soon in its room.
#[derive(Clone)]
struct Arrival {
    /// Shared by nobody; a socket's extensions want to be able to.
    admission: Arc<Admission<SocketIoDevice>>,
    seen: Option<Seen>,
    session: Arc<SetOnce<WeakSession>>,
}

/// Before a socket is in the namespace: who is it? The code of a refusal is the `connect_error`'s
/// message, and the transport is closed right after it; without a word where nobody can tell now.
async fn authenticate(
    socket: SocketRef,
    TryData(auth): TryData<Value>,
    State(door): State<Arc<Door>>,
) -> Result<(), &'static str> {
    // First, as it costs next to nothing.
    door.handshakes.admit_to_namespace(&socket.req_parts().extensions).map_err(|limit| {
        limit.hit();
        door.refuse(&socket, TOO_MANY_HANDSHAKES)
    })?;
    let auth = auth.unwrap_or(Value::Null);
    let Handshake { token, seen } =
        Handshake::read(&auth, socket.req_parts(), door.settings.token_in_query);
    let claims = match door.sign_in(token).await {
        Ok(claims) => claims,
        Err(refusal @ Refusal::Unavailable(_)) => {
            return Err(door.put_off(&socket, refusal.code()).await);
        }
        Err(refusal) => return Err(door.refuse(&socket, refusal.code())),
    };
    let admission = door.sessions.admit(claims).map_err(|TooManySessions| {
        Limit::SessionsPerUser.hit();
        door.refuse(&socket, TooManySessions::CODE)
    })?;
    let session = Arc::new(SetOnce::new());
    // Attached before the device learns that it is in: what it says at once must not go unheard.
    listen(&socket, door, session.clone());
    socket.extensions.insert(Arrival { admission: Arc::new(admission), seen, session });
    Ok(())
}

async fn on_connect(socket: SocketRef, State(door): State<Arc<Door>>) {
    let Some(Arrival { admission, seen, session: arrived }) = socket.extensions.remove() else {
        return;
    };
    let Some(admission) = Arc::into_inner(admission) else { return };
    let device = SocketIoDevice::new(socket.clone(), door.transports.clone());
    let session = door.sessions.join(admission, device);
    let sessions = door.sessions.clone();
    // No await before this: a device that left meanwhile would never be noticed.
    socket.on_disconnect({
        let (session, transports) = (session.clone(), door.transports.clone());
        let patience = door.settings.connect_timeout;
        async move |socket: SocketRef, io: SocketIo, why: DisconnectReason| {
            sessions.leave(&session);
            // The socket is in its namespace for as long as this handler runs.
            match why {
                DisconnectReason::ClientNSDisconnect => {
                    let (id, route) = (socket.id, transports.route_of(&socket));
                    tokio::spawn(async move {
                        if !comes_back(&io, id, patience).await {
                            transports.cut(route).await;
                        }
                    });
                }
                // The library closes the transport at once when it gets a message for a namespace that
                // the device is not in. One that is still sending would find its connection reset, and
                // not hear the last word that is on its way.
                DisconnectReason::ServerNSDisconnect => {
                    tokio::time::sleep(Transports::PATIENCE).await;
                }
                _ => {}
            }
        }
    });
    // Set once, here; even for a device that left, so that nothing waits for it in vain.
    let _ = arrived.set(Arc::downgrade(&session));
    if !socket.connected() {
        return door.sessions.leave(&session);
    }
    debug!(user = %session.user(), namespace = socket.ns(), "device connected");
    door.sessions.welcome(&session, seen).await;
}

/// A device that has left a namespace may come to another, or again, by the same transport. It has as
/// long for that as in the beginning; the library itself looks no further than the first sign-in, and
/// would let a transport stay that nobody is signed in by.
async fn comes_back(io: &SocketIo, id: Sid, patience: Duration) -> bool {
    tokio::time::sleep(patience).await;
    let is_in = |namespace: Namespace| {
        io.of(namespace.path()).is_some_and(|all| all.get_socket(id).is_some())
    };
    Namespace::ALL.into_iter().any(is_in)
}

fn count_refused(code: &'static str) {
    metrics::counter!("belfry_handshakes_refused_total", "code" => code).increment(1);
}

/// Answers each message of the device, after the guard.
fn listen(socket: &SocketRef, door: Arc<Door>, session: Arc<SetOnce<WeakSession>>) {
    let inflow = Arc::new(Inflow::new(door.settings.messages));
    socket.on_fallback(async move |Event(event): Event, payload: Payload, answer: Answer| {
        let outcome = match inflow.enter() {
            Ok(_under_way) => {
                door.take(session.wait().await.upgrade(), &event, payload.read()).await
            }
            Err(Excess::UnderWay) => Err(Failure::TooManyUnderWay),
            Err(excess) => {
                Limit::Messages.hit();
                if excess == Excess::Flood
                    && let Some(session) = session.get().and_then(Weak::upgrade)
                {
                    let why = CloseReason::TooManyMessages;
                    return door.sessions.end(&session, why, &Failure::TooManyMessages);
                }
                Err(Failure::TooManyMessages)
            }
        };
        answer.give(&event, outcome);
    });
}

impl Door {
    /// Closes the transport once the device was told this code, and gives the code.
    fn refuse(&self, socket: &SocketRef, code: &'static str) -> &'static str {
        let client = ClientAddress::of(&socket.req_parts().extensions);
        debug!(code, ?client, "device refused");
        count_refused(code);
        self.transports.close_after(LastWord::ConnectError, socket);
        code
    }

    /// Cuts the transport, so that the device comes back by itself after a while. Told that it is not let
    /// in, client libraries would stay away.
    async fn put_off(&self, socket: &SocketRef, code: &'static str) -> &'static str {
        let client = ClientAddress::of(&socket.req_parts().extensions);
        debug!(code, ?client, "device put off");
        count_refused(code);
        self.transports.cut(self.transports.route_of(socket)).await;
        code
    }

    async fn sign_in(
        &self,
        token: Result<Option<BearerToken>, TokenTooLong>,
    ) -> Result<Claims, Refusal> {
        self.sessions.sign_in(token?).await
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
