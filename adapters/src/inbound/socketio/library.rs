//! Devices that poll, and those that go on by a WebSocket after that: the library speaks with them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use engineioxide::service::NotFoundService;
use serde_json::Value;
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::{AckSender, Event, SocketRef, State, TryData};
use socketioxide::handler::{ConnectHandler, FromMessageParts, Value as Packet};
use socketioxide::service::SocketIoService;
use socketioxide::socket::{DisconnectReason, Sid, Socket};
use socketioxide::{ParserConfig, SocketIo};
use tracing::debug;

use super::admission::Covered;
use super::answer::{Failure, Reply};
use super::door::{Arrival, Door, Knock, Seat, TurnedAway};
use super::handshake::Shown;
use super::websocket::ATTACHMENTS;
use crate::outbound::socketio::{Namespace, SocketIoDevice};
use crate::transport::{ClientAddress, LastWord, Outlet, Transports};

/// What every handler needs.
#[derive(Clone)]
struct Server {
    door: Arc<Door>,
    transports: Arc<Transports>,
}

/// The library's server, for that door.
pub(super) fn serve(
    door: &Arc<Door>,
    transports: &Arc<Transports>,
) -> SocketIoService<NotFoundService> {
    let settings = &door.settings;
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
                .max_incoming_binaries(ATTACHMENTS)
                .max_incoming_binary_buf_size(settings.max_payload),
        )
        .with_state(Server { door: door.clone(), transports: transports.clone() })
        .build_svc();
    for namespace in Namespace::ALL {
        io.ns(namespace.path(), on_connect.with(authenticate));
    }
    service
}

/// A device between the sign-in and its namespace.
#[derive(Clone)]
struct Admitted {
    /// Shared by nobody; a socket's extensions want to be able to.
    arrival: Arc<Arrival>,
    seat: Arc<Seat>,
}

/// Before a socket is in the namespace: who is it? The code of a refusal is the `connect_error`'s
/// message, and the transport is closed right after it.
async fn authenticate(
    socket: SocketRef,
    TryData(auth): TryData<Value>,
    State(Server { door, transports }): State<Server>,
) -> Result<(), &'static str> {
    let request = socket.req_parts();
    let knock = Knock {
        from: ClientAddress::of(&request.extensions),
        covered: request.extensions.get::<Arc<Covered>>().map(AsRef::as_ref),
        shown: &Shown::by(&request.headers, &request.uri, door.settings.token_in_query),
        auth: &auth.unwrap_or(Value::Null),
    };
    match door.let_in(knock).await {
        Ok(arrival) => {
            let seat = Arc::new(Seat::new(door.settings.messages));
            // Attached before the device learns that it is in.
            listen(&socket, door, seat.clone());
            socket.extensions.insert(Admitted { arrival: Arc::new(arrival), seat });
            Ok(())
        }
        Err(TurnedAway::Refused(code)) => {
            transports.close_after(LastWord::ConnectError, &socket);
            Err(code)
        }
        Err(TurnedAway::PutOff(code)) => {
            transports.cut(transports.route_of(&socket)).await;
            Err(code)
        }
    }
}

async fn on_connect(socket: SocketRef, State(Server { door, transports }): State<Server>) {
    let Some(Admitted { arrival, seat }) = socket.extensions.remove() else { return };
    let Some(Arrival { admission, seen }) = Arc::into_inner(arrival) else { return };
    let device = SocketIoDevice::by_library(socket.clone(), transports.clone());
    let session = door.sessions.join(admission, device);
    let sessions = door.sessions.clone();
    // No await before this: a device that left meanwhile would never be noticed.
    socket.on_disconnect({
        let session = session.clone();
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
                    tokio::time::sleep(Outlet::PATIENCE).await;
                }
                _ => {}
            }
        }
    });
    seat.take(&session);
    if !socket.connected() {
        return door.sessions.leave(&session);
    }
    debug!(user = %session.user(), namespace = socket.ns(), "device connected");
    door.start(&session, seen).await;
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

/// Answers each message of the device.
fn listen(socket: &SocketRef, door: Arc<Door>, seat: Arc<Seat>) {
    socket.on_fallback(
        async move |Event(event): Event, payload: Payload, answer: Answer| match seat.enter() {
            Ok(_under_way) => {
                let outcome = door.answer(&seat, &event, payload.read()).await;
                answer.give(&event, outcome);
            }
            Err(excess) => {
                if let Some(failure) = door.exceeded(&seat, excess) {
                    answer.give(&event, Err(failure));
                }
            }
        },
    );
}

/// The way back to a device that sent a message.
struct Answer {
    socket: SocketRef,
    ack: AckSender,
    asked_for: bool,
}

impl FromMessageParts<LocalAdapter> for Answer {
    type Error = Infallible;

    fn from_message_parts(
        socket: &Arc<Socket<LocalAdapter>>,
        packet: &mut Packet,
        ack_id: &Option<i64>,
    ) -> Result<Self, Infallible> {
        Ok(Self {
            socket: SocketRef::from_message_parts(socket, packet, ack_id)?,
            ack: AckSender::from_message_parts(socket, packet, ack_id)?,
            asked_for: ack_id.is_some(),
        })
    }
}

impl Answer {
    fn give(self, event: &str, outcome: Result<Value, Failure>) {
        let sent = match (Reply::to(event, outcome), self.asked_for) {
            (reply, true) => self.ack.send(&reply),
            (reply @ Reply::Failed { .. }, false) => self.socket.emit(Reply::EXCEPTION, &reply),
            (Reply::Done { .. }, false) => Ok(()),
        };
        // A device that is gone or does not read needs no answer.
        drop(sent);
    }
}

/// What came with a message, unread: one that is refused is not worth the reading.
struct Payload {
    socket: Arc<Socket<LocalAdapter>>,
    packet: Packet,
}

impl FromMessageParts<LocalAdapter> for Payload {
    type Error = Infallible;

    fn from_message_parts(
        socket: &Arc<Socket<LocalAdapter>>,
        packet: &mut Packet,
        _ack_id: &Option<i64>,
    ) -> Result<Self, Infallible> {
        Ok(Self { socket: socket.clone(), packet: packet.clone() })
    }
}

impl Payload {
    /// A message without a payload is as good as one with null.
    fn read(mut self) -> Value {
        let Ok(TryData(payload)) =
            TryData::from_message_parts(&self.socket, &mut self.packet, &None);
        payload.unwrap_or(Value::Null)
    }
}
