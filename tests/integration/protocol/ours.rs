//! Belfry's own server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use belfry_adapters::inbound::socketio::engine::{
    EngineHandler, EngineMessage, EngineServer, EngineService, EngineSettings, Received, Violation,
};
use belfry_adapters::inbound::socketio::protocol::{
    ClientEvent, ConnectError, ConnectRequest, NamespaceHandler, ProtocolSettings, SocketIo,
};
use belfry_adapters::outbound::socketio::{Arguments, NamespaceSocket, PacketSender};
use belfry_adapters::transport::{ListenAddress, Listener, Server, ServerSettings, TcpSettings};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::peer::{Difference, MAX_PAYLOAD, Peer, Timers};

/// The Engine.IO cases that the echo server fails by design.
pub(super) const ENGINE_IO_DIFFERENCES: &[Difference] = &[];

/// The Engine.IO and Socket.IO cases that the Socket.IO server fails by design.
pub(super) const SOCKET_IO_DIFFERENCES: &[Difference] = &[];

/// The scenarios of the JavaScript client that fail by design.
pub(super) const SCENARIO_DIFFERENCES: &[Difference] = &[];

/// Belfry's Engine.IO server with a handler that returns every message.
pub(super) async fn engine_io(timers: Timers) -> Peer {
    let server = EngineServer::new(EngineEcho, settings(&timers));
    let address = serve(server).await;
    Peer { address, path: "/engine.io/", namespace: "", timers }
}

/// Belfry's Socket.IO server with a handler that answers the events of [`listen`](super::reference::listen).
pub(super) async fn socket_io(timers: Timers) -> Peer {
    let socket_io = SocketIo::new(
        Arc::new(SocketEcho),
        ProtocolSettings { connect_timeout: timers.connect_timeout, ..ProtocolSettings::default() },
    );
    let server = EngineServer::new(socket_io, settings(&timers));
    let address = serve(server).await;
    Peer { address, path: "/socket.io/", namespace: "/notifications", timers }
}

fn settings(timers: &Timers) -> EngineSettings {
    EngineSettings {
        ping_interval: timers.ping_interval,
        ping_timeout: timers.ping_timeout,
        upgrade_timeout: timers.upgrade_timeout,
        max_payload: MAX_PAYLOAD,
        // The limit for clients in no namespace. The Engine.IO cases never connect to one.
        max_first_payload: MAX_PAYLOAD,
        ..EngineSettings::default()
    }
}

async fn serve(engine: Arc<EngineServer<impl EngineService>>) -> SocketAddr {
    let app = Router::new().fallback(move |request: Request<Body>| engine.clone().respond(request));
    let any_port: ListenAddress = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(any_port, TcpSettings::default()).await.unwrap();
    let server = Server::new(listener, ServerSettings::default()).unwrap();
    let ListenAddress::Tcp(address) = server.address().unwrap() else { panic!("not TCP") };
    tokio::spawn(server.serve(app, CancellationToken::new()));
    address
}

struct EngineEcho;

struct EngineEchoSession(Arc<PacketSender>);

impl EngineService for EngineEcho {
    type Request = ();
    type Handler = EngineEchoSession;

    fn read_request(&self, _: &Request<Body>) {}

    fn open(&self, (): (), sender: Arc<PacketSender>) -> EngineEchoSession {
        EngineEchoSession(sender)
    }
}

impl EngineHandler for EngineEchoSession {
    fn receive(&mut self, message: EngineMessage) -> Result<Received, Violation> {
        let _ = match message {
            EngineMessage::Text(text) => self.0.send_text(&text),
            EngineMessage::Binary(bytes) => self.0.send_binary(&bytes),
        };
        Ok(Received::Event)
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn on_deadline(&mut self) -> Result<(), Violation> {
        Ok(())
    }

    fn on_ping_timeout(&self, _: bool) {}
}

struct SocketEcho;

struct SocketEchoSession {
    socket: NamespaceSocket,
    auth: Value,
}

/// The id of every acknowledgement that the server requests.
const QUESTION: u64 = 7;

impl NamespaceHandler for SocketEcho {
    type Request = ();
    type Session = SocketEchoSession;

    fn read_request(&self, _: &Request<Body>) {}

    async fn connect(
        &self,
        ConnectRequest { auth, socket, .. }: ConnectRequest<'_, ()>,
    ) -> Result<Arc<SocketEchoSession>, ConnectError> {
        let auth: Value = serde_json::from_str(auth.get()).unwrap();
        if let Some(message) = auth.get("reject").and_then(Value::as_str) {
            // The message is leaked because the type expects a constant, such as the codes of the product.
            return Err(ConnectError::Rejected(Box::leak(message.into())));
        }
        let auth = if auth.is_null() { json!({}) } else { auth };
        Ok(Arc::new(SocketEchoSession { socket, auth }))
    }

    async fn connected(&self, session: Arc<SocketEchoSession>) {
        let _ = session.socket.emit(&text_only(&json!(["auth", session.auth])));
    }

    async fn receive(&self, session: Arc<SocketEchoSession>, event: ClientEvent) {
        let socket = &session.socket;
        let arguments: Vec<_> = event.arguments.iter().map(|argument| argument.get()).collect();
        let arguments = arguments.join(",");
        let attachments = event.attachments;
        let _ = match (&*event.name, event.ack) {
            ("message", _) => {
                let separator = if arguments.is_empty() { "" } else { "," };
                let json = format!(r#"["message-back"{separator}{arguments}]"#);
                socket.emit(&Arguments { json, attachments })
            }
            ("message-with-ack", Some(id)) => {
                socket.acknowledge(id, &Arguments { json: format!("[{arguments}]"), attachments })
            }
            ("id", Some(id)) => socket.acknowledge(id, &text_only(&json!([socket.id()]))),
            ("ask" | "ask-binary", _) => {
                socket.emit_with_ack(QUESTION, &text_only(&json!(["question"])))
            }
            ("leave", _) => {
                socket.disconnect("left");
                Ok(())
            }
            _ => Ok(()),
        };
    }

    fn acknowledged(&self, session: &Arc<SocketEchoSession>, id: u64, arguments: Arguments) {
        if id == QUESTION {
            let json = arguments.json.replacen('[', r#"["answer","#, 1);
            let _ = session.socket.emit(&Arguments { json, ..arguments });
        }
    }

    fn disconnected(&self, _: &SocketEchoSession) {}

    fn too_slow(&self, _: &SocketEchoSession) {}
}

fn text_only(array: &Value) -> Arguments {
    Arguments { json: array.to_string(), attachments: Vec::new() }
}
