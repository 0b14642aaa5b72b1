//! The reference server: the libraries engineioxide and socketioxide, without any code of Belfry.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use bytes::Bytes;
use engineioxide::config::EngineIoConfig;
use engineioxide::handler::EngineIoHandler;
use engineioxide::service::EngineIoService;
use engineioxide::{DisconnectReason, Socket as EngineSocket, Str};
use serde::ser::{SerializeMap, SerializeSeq, SerializeTuple};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use socketioxide::adapter::LocalAdapter;
use socketioxide::extract::{AckSender, SocketRef, TryData};
use socketioxide::handler::{ConnectHandler, FromMessageParts, Value as Packet};
use socketioxide::socket::Socket;
use socketioxide::{ParserConfig, SocketIo};
use tokio::net::TcpListener;

use super::peer::{Difference, Fails, MAX_PAYLOAD, Peer, Timers};

/// The cases in which engineioxide differs from the protocol.
pub(super) const ENGINE_IO_DIFFERENCES: &[Difference] = &[
    always("rejected_request_is_answered_with_numeric_code", "the code is a string"),
    always(
        "post_while_another_is_active_is_rejected_and_closes_session",
        "the server reads several bodies at once",
    ),
    always("second_websocket_during_a_probe_is_closed", "the second one waits for the first"),
    always("polls_during_a_probe_are_throttled", "each poll is answered at once"),
    always("websocket_that_does_not_probe_is_closed_and_polling_continues", FAILED_UPGRADE),
    always("websocket_closed_after_the_probe_leaves_the_session_polling", FAILED_UPGRADE),
    always("upgrade_succeeds_after_an_aborted_one", FAILED_UPGRADE),
    always("upgrade_that_is_never_completed_leaves_the_session_polling", FAILED_UPGRADE),
];

const FAILED_UPGRADE: &str = "an upgrade that fails ends the session";

/// The cases in which socketioxide differs from the protocol. Its transport is engineioxide, and is not
/// checked again.
pub(super) const SOCKET_IO_DIFFERENCES: &[Difference] = &[
    always("sid_differs_from_that_of_the_transport_and_between_namespaces", ONE_SID),
    always("second_connect_to_a_namespace_replaces_the_first", "a second CONNECT is ignored"),
    Difference {
        case: "connect_disconnect_connect_in_one_go_ends_connected",
        reason: "a DISCONNECT that is processed before the CONNECT closes the session",
        fails: Fails::Sometimes,
    },
];

/// The scenarios of the JavaScript client that fail on every transport.
pub(super) const SCENARIO_DIFFERENCES: &[Difference] =
    &[always("the id differs from the transport's", ONE_SID)];

const ONE_SID: &str = "all namespaces use the transport's sid";

const fn always(case: &'static str, reason: &'static str) -> Difference {
    Difference { case, reason, fails: Fails::Always }
}

/// An Engine.IO server that returns every message.
pub(super) async fn engine_io(timers: Timers) -> Peer {
    let config = EngineIoConfig::builder()
        .ping_interval(timers.ping_interval)
        .ping_timeout(timers.ping_timeout)
        .upgrade_timeout(timers.upgrade_timeout)
        .max_payload(MAX_PAYLOAD as u64)
        .ws_max_message_size(MAX_PAYLOAD)
        .ws_max_frame_size(MAX_PAYLOAD)
        .build();
    let service = EngineIoService::with_config(Arc::new(Echo), config);
    let address = serve(Router::new().fallback_service(service)).await;
    Peer { address, path: "/engine.io/", namespace: "", timers }
}

#[derive(Debug)]
struct Echo;

impl EngineIoHandler for Echo {
    type Data = ();

    fn on_connect(self: Arc<Self>, _: Arc<EngineSocket<()>>) {}

    fn on_disconnect(&self, _: Arc<EngineSocket<()>>, _: DisconnectReason) {}

    fn on_message(self: &Arc<Self>, message: Str, socket: Arc<EngineSocket<()>>) {
        let _ = socket.emit(message);
    }

    fn on_binary(self: &Arc<Self>, message: Bytes, socket: Arc<EngineSocket<()>>) {
        let _ = socket.emit_binary(message);
    }
}

/// A Socket.IO server whose two namespaces answer the events of [`listen`].
pub(super) async fn socket_io(timers: Timers) -> Peer {
    let (service, io) = SocketIo::builder()
        .ping_interval(timers.ping_interval)
        .ping_timeout(timers.ping_timeout)
        .upgrade_timeout(timers.upgrade_timeout)
        .connect_timeout(timers.connect_timeout)
        .max_payload(MAX_PAYLOAD as u64)
        .ws_max_message_size(MAX_PAYLOAD)
        .ws_max_frame_size(MAX_PAYLOAD)
        .with_parser(ParserConfig::common())
        .build_svc();
    let namespace = "/custom";
    for path in ["/", namespace] {
        io.ns(path, on_connect.with(authenticate));
    }
    let address = serve(Router::new().fallback_service(service)).await;
    Peer { address, path: "/socket.io/", namespace, timers }
}

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Rejects a client whose handshake asks for it: `{"reject":"with this message"}`.
async fn authenticate(socket: SocketRef, TryData(auth): TryData<Value>) -> Result<(), String> {
    let rejection = auth.ok().and_then(|auth| Some(auth.get("reject")?.as_str()?.to_owned()));
    if let Some(message) = rejection {
        return Err(message);
    }
    // The handlers must exist before the CONNECT is answered. Otherwise the client's first event might be lost.
    listen(&socket);
    Ok(())
}

async fn on_connect(socket: SocketRef, TryData(auth): TryData<Value>) {
    let _ = socket.emit("auth", &auth.unwrap_or_else(|_| json!({})));
}

/// Answers these events. On connect, the server has emitted the event `auth` with the handshake's auth.
///
/// | event | answer |
/// |---|---|
/// | `message` | event `message-back` with the same arguments |
/// | `message-with-ack` | an ack with the same arguments |
/// | `id` | an ack with the id of the namespace's session |
/// | `ask` | event `question` with an ack; the ack's two arguments are returned as event `answer` |
/// | `ask-binary` | the same; the ack has one binary argument |
/// | `leave` | the server disconnects the namespace |
pub(super) fn listen(socket: &SocketRef) {
    socket.on("message", async |socket: SocketRef, arguments: Arguments| {
        let _ = socket.emit("message-back", &arguments);
    });
    socket.on("message-with-ack", async |arguments: Arguments, ack: AckSender| {
        let _ = ack.send(&arguments);
    });
    socket.on("id", async |socket: SocketRef, ack: AckSender| {
        let _ = ack.send(&socket.id);
    });
    socket.on("ask", async |socket: SocketRef| {
        let Ok(answer) = socket.emit_with_ack::<_, (Value, Value)>("question", &Arguments::NONE)
        else {
            return;
        };
        if let Ok(answer) = answer.await {
            let _ = socket.emit("answer", &answer);
        }
    });
    socket.on("ask-binary", async |socket: SocketRef| {
        let Ok(answer) = socket.emit_with_ack::<_, Bytes>("question", &Arguments::NONE) else {
            return;
        };
        if let Ok(answer) = answer.await {
            let _ = socket.emit("answer", &answer);
        }
    });
    socket.on("leave", async |socket: SocketRef| {
        let _ = socket.disconnect();
    });
}

/// The arguments of an event, with their attachments.
struct Arguments {
    values: Vec<Value>,
    attachments: VecDeque<Bytes>,
}

impl Arguments {
    const NONE: Self = Self { values: Vec::new(), attachments: VecDeque::new() };
}

impl FromMessageParts<LocalAdapter> for Arguments {
    type Error = Infallible;

    fn from_message_parts(
        _: &Arc<Socket<LocalAdapter>>,
        packet: &mut Packet,
        _: &Option<i64>,
    ) -> Result<Self, Infallible> {
        let Packet::Str(text, attachments) = packet else { unreachable!("not the common parser") };
        let event: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
        Ok(Self {
            values: event.into_iter().skip(1).collect(),
            attachments: attachments.take().unwrap_or_default(),
        })
    }
}

impl Serialize for Arguments {
    /// Serializes a tuple, which the library sends as several arguments.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.values.len())?;
        for value in &self.values {
            tuple.serialize_element(&Argument { value, attachments: &self.attachments })?;
        }
        tuple.end()
    }
}

/// A value with placeholders for the attachments.
struct Argument<'a> {
    value: &'a Value,
    attachments: &'a VecDeque<Bytes>,
}

impl<'a> Argument<'a> {
    fn inner(&self, value: &'a Value) -> Self {
        Self { value, attachments: self.attachments }
    }

    fn attachment(&self) -> Option<&'a Bytes> {
        let _ = self.value.get("_placeholder")?;
        self.attachments.get(usize::try_from(self.value.get("num")?.as_u64()?).ok()?)
    }
}

impl Serialize for Argument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(bytes) = self.attachment() {
            return bytes.serialize(serializer);
        }
        match self.value {
            Value::Array(values) => {
                let mut sequence = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    sequence.serialize_element(&self.inner(value))?;
                }
                sequence.end()
            }
            Value::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, &self.inner(value))?;
                }
                map.end()
            }
            value => value.serialize(serializer),
        }
    }
}
