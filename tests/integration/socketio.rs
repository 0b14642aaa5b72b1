//! The Socket.IO server on a real listener, tested with raw packets: details that a client library hides,
//! above all how and when a transport closes.
//!
//! A packet such as `421["notification:unread_count"]` is an Engine.IO message (`4`) with a Socket.IO event
//! (`2`) that requests the acknowledgement 1; `431[…]` is this acknowledgement. `40` connects, `41`
//! disconnects, `44` rejects a connect. Single digits are Engine.IO packets: `1` close, `2` ping, `3` pong.

mod authentication;
mod connections;
mod delivery;
mod forward;
mod frames;
mod messages;
mod polling;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use belfry_adapters::inbound::socketio::{
    InboxUseCases, SocketIoParts, SocketIoServer, SocketIoSettings, SocketUseCases,
};
use belfry_adapters::limits::UserWork;
use belfry_adapters::outbound::socketio::SocketIoSessions;
use belfry_adapters::transport::{ListenAddress, Listener, Server, ServerSettings, TcpSettings};
use belfry_application::access::Access;
use belfry_application::ports::InboxRepository;
use belfry_application::push::PushBatch;
use belfry_application::revoked_tokens::RevokedTokens;
use belfry_application::session::{SessionSettings, Sessions};
use belfry_application::testing::{
    FakeTokenVerifier, InMemoryStore, ManualClock, UnlimitedWork, a_draft, epoch, user,
};
use belfry_application::use_cases::{
    CatchUp, CountUnread, DeleteNotification, ListInbox, MarkAllRead, MarkRead, SignIn,
};
use belfry_domain::{Receipt, UserRoom};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

/// How long a test waits for a packet. The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than [`PATIENCE`], so that a test fails if only this timeout closes a transport.
const CONNECT_TIMEOUT: Duration = Duration::from_mins(2);

struct Node {
    address: SocketAddr,
    sessions: Arc<SocketIoSessions>,
    store: Arc<InMemoryStore>,
    clock: Arc<ManualClock>,
}

async fn node() -> Node {
    let settings =
        SocketIoSettings { connect_timeout: CONNECT_TIMEOUT, ..SocketIoSettings::default() };
    node_with(settings).await
}

async fn node_with(settings: SocketIoSettings) -> Node {
    let store = Arc::new(InMemoryStore::new(epoch("e1")));
    let clock = Arc::new(ManualClock::at(0));
    let inboxes: Arc<dyn InboxRepository> = store.clone();
    let catch_up = CatchUp::new(inboxes.clone(), 1_000);
    let use_cases = SocketUseCases::Store(InboxUseCases {
        mark_read: MarkRead::new(inboxes.clone(), clock.clone()),
        mark_all_read: MarkAllRead::new(inboxes.clone(), clock.clone()),
        delete: DeleteNotification::new(inboxes.clone(), clock.clone()),
        list: ListInbox::new(inboxes.clone()),
        count_unread: CountUnread::new(inboxes),
    });
    node_of(settings, store, clock, catch_up, use_cases).await
}

async fn node_of(
    settings: SocketIoSettings,
    store: Arc<InMemoryStore>,
    clock: Arc<ManualClock>,
    catch_up: CatchUp,
    use_cases: SocketUseCases,
) -> Node {
    let sessions = Arc::new(Sessions::new(
        SignIn::new(
            Arc::new(FakeTokenVerifier),
            clock.clone(),
            Arc::new(RevokedTokens::empty()),
            Access::default(),
        ),
        catch_up,
        Arc::new(UnlimitedWork),
        clock.clone(),
        SessionSettings::default(),
    ));
    let work = UserWork::new(None, 8);
    let parts = SocketIoParts { sessions: sessions.clone(), use_cases, work, settings };
    let any_port: ListenAddress = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(any_port, TcpSettings::default()).await.unwrap();
    let server = Server::new(listener, ServerSettings::default()).unwrap();
    let ListenAddress::Tcp(address) = server.address().unwrap() else { panic!("not TCP") };
    let app = Router::new().fallback_service(SocketIoServer::new(parts));
    tokio::spawn(server.serve(app, CancellationToken::new()));
    Node { address, sessions, store, clock }
}

impl Node {
    /// Creates a notification and delivers it.
    async fn notify(&self, name: &str, id: &str) {
        let receipts = self.store.create(vec![a_draft(name, id)]).await.unwrap();
        let Some(Receipt::Created(event)) = receipts.into_iter().next() else {
            panic!("not created")
        };
        self.sessions.deliver(&UserRoom::of(user(name)), &PushBatch::of(event));
    }
}

/// A WebSocket on which the test sends and receives Engine.IO packets itself.
struct RawSocket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// A packet with this many bytes, padded between its start and its end.
fn padded(start: &str, end: &str, bytes: usize) -> String {
    let padding = "x".repeat(bytes - start.len() - end.len());
    format!("{start}{padding}{end}")
}

impl RawSocket {
    async fn open(node: &Node) -> Self {
        let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", node.address);
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut raw = Self(socket);
        assert!(raw.frame().await.unwrap().starts_with('0'), "the open packet is first");
        raw
    }

    /// Connects to the default namespace. Returns the payload of `notification:sync`, which comes first, and
    /// skips the unread count after it.
    async fn signed_in(node: &Node, auth: Value) -> (Self, Value) {
        let mut raw = Self::open(node).await;
        raw.send(&format!("40{auth}")).await;
        let connected = raw.frame().await.unwrap();
        assert!(connected.starts_with("40{"), "{connected}");
        let (event, sync) = raw.event().await;
        assert_eq!(event, "notification:sync");
        if sync["missed"] == 0 {
            assert_eq!(raw.event().await.0, "notification:unread_count");
        }
        (raw, sync)
    }

    async fn send(&mut self, frame: &str) {
        self.0.send(Message::text(frame)).await.unwrap();
    }

    /// The next packet; `None` when the transport has closed. Pings are answered and not returned.
    async fn frame(&mut self) -> Option<String> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.0.next());
            let next = next.await.expect("the next packet arrives in time");
            match next {
                Some(Ok(Message::Text(text))) if text.as_str() == "2" => self.send("3").await,
                Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The name and the payload of the next packet, which must be an event.
    async fn event(&mut self) -> (String, Value) {
        let frame = self.frame().await.expect("an event, not the end");
        let json = frame.trim_start_matches(|c: char| c.is_ascii_digit());
        let (name, payload): (String, Value) = serde_json::from_str(json).expect(&frame);
        (name, payload)
    }

    /// The payload of the next packet, which must be the acknowledgement with this id.
    async fn ack(&mut self, id: u32) -> Value {
        let frame = self.frame().await.expect("an ack, not the end");
        let json = frame.strip_prefix(&format!("43{id}")).expect(&frame);
        let (reply,): (Value,) = serde_json::from_str(json).unwrap();
        reply
    }

    async fn is_closed(&mut self) -> bool {
        self.frame().await.is_none()
    }
}
