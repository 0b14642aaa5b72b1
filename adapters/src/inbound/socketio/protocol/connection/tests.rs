//! The packets in these tests are Socket.IO's: `0` is a CONNECT, `1` a DISCONNECT, `2` an event, `3` an
//! acknowledgement, `4` a connect error, and `5` an event with attachments. A number after the type is the id of an
//! acknowledgement: `27["hello"]` is an event whose acknowledgement has the id 7. A packet of the server follows the
//! `4` of Engine.IO's message packet.

use std::collections::HashMap;

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::super::handler::{ConnectError, ConnectRequest};
use super::super::shared_socket::{MAX_BYTES_IN_FLIGHT, MAX_IN_FLIGHT};
use super::*;
use crate::outbound::socketio::{NamespaceSocket, PollResponse, Refusal};
use crate::transport::SendLimits;

const LIMITS: SendLimits = SendLimits { frames: 1_000, bytes: usize::MAX };
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Decides a connect only when the test calls [`Client::decide`], and records all calls.
#[derive(Default)]
struct FakeHandler(Mutex<Connects>);

#[derive(Default)]
struct Connects {
    /// By the client's name.
    pending: HashMap<String, oneshot::Sender<Result<(), ConnectError>>>,
    connected: Vec<String>,
    received: Vec<String>,
    disconnected: Vec<String>,
}

struct FakeSession {
    name: String,
    socket: NamespaceSocket,
}

impl NamespaceHandler for FakeHandler {
    type Request = ();
    type Session = FakeSession;

    fn read_request(&self, _: &Request<Body>) {}

    async fn connect(
        &self,
        ConnectRequest { auth, socket, .. }: ConnectRequest<'_, ()>,
    ) -> Result<Arc<FakeSession>, ConnectError> {
        let name: String = serde_json::from_str(auth.get()).unwrap_or_default();
        let (decide, decision) = oneshot::channel();
        self.0.lock().pending.insert(name.clone(), decide);
        decision.await.expect("the test decides")?;
        Ok(Arc::new(FakeSession { name, socket }))
    }

    async fn connected(&self, session: Arc<FakeSession>) {
        self.0.lock().connected.push(session.name.clone());
    }

    async fn receive(&self, session: Arc<FakeSession>, event: ClientEvent) {
        self.0.lock().received.push(format!("{}:{}", session.name, event.name));
        if let Some(id) = event.ack {
            let arguments =
                Arguments { json: format!("[\"{}\"]", session.name), ..Default::default() };
            let _ = session.socket.acknowledge(id, &arguments);
        }
    }

    fn acknowledged(&self, _: &Arc<FakeSession>, _: u64, _: Arguments) {}

    fn disconnected(&self, session: &FakeSession) {
        self.0.lock().disconnected.push(session.name.clone());
    }

    fn too_slow(&self, _: &FakeSession) {}
}

/// A client's transport without a network.
struct Client {
    handler: Arc<FakeHandler>,
    sender: Arc<PacketSender>,
    connection: SocketIoConnection<FakeHandler>,
}

impl Client {
    fn new() -> Self {
        Self::refused_by(Refusal::ConnectError)
    }

    fn refused_by(refusal: Refusal) -> Self {
        let (handler, sender) = (Arc::<FakeHandler>::default(), PacketSender::polling(LIMITS));
        let settings = ProtocolSettings {
            connect_timeout: CONNECT_TIMEOUT,
            refusal,
            ..ProtocolSettings::default()
        };
        let connection = SocketIo::new(handler.clone(), settings).open((), sender.clone());
        Self { handler, sender, connection }
    }

    fn try_send(&mut self, packet: &str) -> Result<Received, Violation> {
        self.connection.receive(EngineMessage::Text(packet.to_owned()))
    }

    /// Whether the connection may receive another packet.
    fn is_ready(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.connection.poll_ready(&mut cx).is_ready()
    }

    async fn send(&mut self, packet: &str) {
        self.try_send(packet).expect("the packet is allowed");
        settle().await;
    }

    async fn decide(&self, name: &str, decision: Result<(), ConnectError>) {
        let decide = self.handler.0.lock().pending.remove(name).expect("it is connecting");
        let _ = decide.send(decision);
        settle().await;
    }

    /// The packets since the last call, without the ids in them. `None` once the transport is closed.
    fn fetch(&self) -> Option<Vec<String>> {
        let body = match self.sender.poll(None)? {
            PollResponse::Ready(body) => String::from_utf8(body.to_vec()).unwrap(),
            PollResponse::Wait { .. } => return Some(Vec::new()),
            PollResponse::Overlap => panic!("one poll at a time"),
        };
        let without_id = |packet: &str| match packet.split_once("{\"sid\"") {
            Some((kind, _)) => kind.to_owned(),
            None => packet.to_owned(),
        };
        Some(body.split('\u{1e}').map(without_id).collect())
    }

    /// One of the lists of names that the handler has recorded.
    fn names(&self, list: impl Fn(&Connects) -> &Vec<String>) -> Vec<String> {
        list(&self.handler.0.lock()).clone()
    }
}

/// Lets all tasks run until they wait.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn connect_is_answered_after_the_decision_and_events_reach_the_session() {
    let mut client = Client::new();
    client.send("0\"ada\"").await;
    assert_eq!(client.fetch().unwrap(), [""; 0]);
    client.decide("ada", Ok(())).await;
    client.send("27[\"hello\"]").await;
    assert_eq!(client.fetch().unwrap(), ["40", "437[\"ada\"]"]);
    assert_eq!(client.names(|its| &its.received), ["ada:hello"]);
    client.send("1").await;
    assert_eq!(client.names(|its| &its.disconnected), ["ada"]);
}

#[tokio::test]
async fn connect_during_another_one_supersedes_it_completely() {
    let mut client = Client::new();
    client.send("0\"bob\"").await;
    client.send("0\"cy\"").await;
    client.decide("cy", Ok(())).await;
    client.decide("bob", Ok(())).await;
    assert_eq!(client.fetch().unwrap(), ["40"]);
    client.send("21[\"hello\"]").await;
    assert_eq!(client.fetch().unwrap(), ["431[\"cy\"]"]);
    assert_eq!(client.names(|its| &its.connected), ["cy"]);
    assert_eq!(client.names(|its| &its.disconnected), ["bob"]);
}

#[tokio::test(start_paused = true)]
async fn rejection_in_the_last_namespace_closes_the_transport_and_in_another_does_not() {
    let mut client = Client::new();
    client.send("0\"ada\"").await;
    client.decide("ada", Ok(())).await;
    client.send("0/notifications,\"bad\"").await;
    client.decide("bad", Err(ConnectError::Rejected("token_invalid"))).await;
    let rejection = "44/notifications,{\"message\":\"token_invalid\"}";
    assert_eq!(client.fetch().unwrap(), ["40", rejection]);
    // Events for the namespace that rejected the client are ignored.
    client.send("2/notifications,[\"hello\"]").await;
    client.send("21[\"hello\"]").await;
    assert_eq!(client.fetch().unwrap(), ["431[\"ada\"]"]);
    // A second connect is rejected and replaces the successful one.
    client.send("0\"worse\"").await;
    client.decide("worse", Err(ConnectError::Rejected("token_invalid"))).await;
    assert_eq!(client.fetch().unwrap(), ["44{\"message\":\"token_invalid\"}"]);
    // The client connects to another namespace within the grace period.
    client.send("0/notifications,\"bob\"").await;
    client.decide("bob", Ok(())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(client.fetch().unwrap(), ["40/notifications,"]);
    client.send("0/notifications,\"no\"").await;
    client.decide("no", Err(ConnectError::Rejected("token_invalid"))).await;
    assert_eq!(client.fetch().unwrap(), [rejection]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(client.fetch(), None);
}

#[tokio::test(start_paused = true)]
async fn refusal_by_disconnect_connects_first_and_leaves_other_namespaces() {
    let mut client = Client::refused_by(Refusal::Disconnect);
    client.send("0\"ada\"").await;
    client.decide("ada", Ok(())).await;
    client.send("0/notifications,\"bad\"").await;
    client.decide("bad", Err(ConnectError::Rejected("token_invalid"))).await;
    let refusal = ["40/notifications,", "41/notifications,"];
    assert_eq!(client.fetch().unwrap(), [&["40"], &refusal[..]].concat());
    client.send("2/notifications,[\"hello\"]").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    client.send("21[\"hello\"]").await;
    assert_eq!(client.fetch().unwrap(), ["431[\"ada\"]"], "it stays in the other namespace");
    assert_eq!(client.names(|its| &its.received), ["ada:hello"]);

    let mut client = Client::refused_by(Refusal::Disconnect);
    client.send("0\"no\"").await;
    client.decide("no", Err(ConnectError::RejectedBecause("token_invalid", "x".into()))).await;
    assert_eq!(client.fetch().unwrap(), ["40", "41"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(client.fetch(), None, "it was in no other namespace");
}

#[tokio::test]
async fn reason_is_in_the_data_of_the_connect_error() {
    let mut client = Client::new();
    client.send("0\"ada\"").await;
    let why = "the token has no claim exp".to_owned();
    client.decide("ada", Err(ConnectError::RejectedBecause("token_invalid", why))).await;
    let [packet] = &*client.fetch().unwrap() else { panic!("one packet") };
    let error: serde_json::Value = serde_json::from_str(&packet[2..]).unwrap();
    let data =
        serde_json::json!({ "code": "token_invalid", "message": "the token has no claim exp" });
    assert_eq!(error, serde_json::json!({ "message": "token_invalid", "data": data }));
}

#[tokio::test]
async fn event_after_a_second_connect_waits_for_its_outcome() {
    let mut client = Client::new();
    client.send("0\"ada\"").await;
    client.decide("ada", Ok(())).await;
    client.send("0\"ada again\"").await;
    client.send("21[\"hello\"]").await;
    assert!(!client.is_ready(), "no packet may overtake the event");
    client.decide("ada again", Ok(())).await;
    assert!(client.is_ready());
    settle().await;
    assert_eq!(client.fetch().unwrap(), ["40", "40", "431[\"ada again\"]"]);
}

#[tokio::test]
async fn transport_is_aborted_without_a_packet_if_authentication_is_unavailable() {
    let mut client = Client::new();
    client.send("0\"ada\"").await;
    client.decide("ada", Err(ConnectError::Unavailable)).await;
    assert_eq!(client.fetch(), None);
}

#[tokio::test]
async fn packet_before_a_connect_is_a_violation() {
    for packet in ["2[\"a\"]", "2/notifications,[\"a\"]", "1", "31[]", "9", "2{}", "2abc[\"a\"]"] {
        assert_eq!(Client::new().try_send(packet), Err(Violation), "{packet}");
    }
    let mut client = Client::new();
    client.send("0/nowhere,{}").await;
    assert_eq!(client.fetch().unwrap(), ["44/nowhere,{\"message\":\"Invalid namespace\"}"]);
    assert_eq!(client.connection.on_deadline(), Err(Violation));
}

#[tokio::test]
async fn packet_between_a_packet_and_its_attachments_is_a_violation() {
    let mut client = Client::new();
    client.send("0\"ada\"").await;
    client.decide("ada", Ok(())).await;
    assert_eq!(client.try_send("52-[\"a\",{}]"), Ok(Received::Control));
    let attachment = || EngineMessage::Binary(vec![1]);
    assert_eq!(client.connection.receive(attachment()), Ok(Received::Control));
    assert_eq!(client.connection.receive(attachment()), Ok(Received::Event));
    assert_eq!(client.connection.receive(attachment()), Err(Violation));
    client.try_send("51-[\"a\",{}]").unwrap();
    assert_eq!(client.try_send("2[\"a\"]"), Err(Violation));
}

#[tokio::test]
async fn packet_with_too_many_attachments_is_a_violation() {
    for (packet, expected) in
        [("516-[\"a\"]", Ok(Received::Control)), ("517-[\"a\"]", Err(Violation))]
    {
        let mut client = Client::new();
        client.send("0\"ada\"").await;
        client.decide("ada", Ok(())).await;
        assert_eq!(client.try_send(packet), expected, "{packet}");
    }
}

#[tokio::test]
async fn connection_is_not_ready_while_too_many_packets_are_in_flight() {
    let mut client = Client::new();
    let mut names: Vec<_> = (0..MAX_IN_FLIGHT).map(|n| format!("n{n}")).collect();
    for name in &names {
        assert!(client.is_ready());
        client.send(&format!("0\"{name}\"")).await;
    }
    assert!(!client.is_ready());
    let last = names.pop().unwrap();
    client.decide(&names[0], Ok(())).await;
    assert!(client.is_ready());
    client.decide(&last, Ok(())).await;
    assert_eq!(client.fetch().unwrap(), ["40"]);
}

#[tokio::test]
async fn connection_is_not_ready_while_large_packets_are_in_flight() {
    let mut client = Client::new();
    let name = "n".repeat(MAX_BYTES_IN_FLIGHT / 2);
    for n in 0..2 {
        assert!(client.is_ready(), "{n} in flight");
        client.send(&format!("0\"{name}{n}\"")).await;
    }
    assert!(!client.is_ready());
    client.decide(&format!("{name}0"), Ok(())).await;
    assert!(client.is_ready());
}

/// One step of a client, its server, or the authentication.
#[derive(Debug, Clone)]
enum Step {
    Connect,
    Leave,
    /// Decides the connect that was sent this many connects ago; `true` admits the client.
    Decide(usize, bool),
    /// The server disconnects the client's current session.
    Disconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Connect),
        Just(Step::Leave),
        (0..3_usize, prop::bool::weighted(0.8)).prop_map(|(ago, admit)| Step::Decide(ago, admit)),
        Just(Step::Disconnect),
    ]
}

proptest! {
    /// Steps act on the root namespace. The client stays in `/notifications`, which keeps the transport open.
    #[test]
    fn client_is_in_a_namespace_by_its_latest_connect_or_not_at_all(steps in prop::collection::vec(step(), 0..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut client = Client::new();
            client.send("0/notifications,\"other\"").await;
            client.decide("other", Ok(())).await;
            client.fetch();
            let mut connects = 0_usize;
            // The numbers of the connect that is not answered yet, and of the one that the client is connected by.
            let (mut awaited, mut current) = (None, None);
            let mut admitted = 0;
            for step in steps {
                match step {
                    Step::Connect => {
                        client.send(&format!("0\"n{connects}\"")).await;
                        (awaited, current) = (Some(connects), None);
                        connects += 1;
                    }
                    Step::Leave => {
                        client.send("1").await;
                        (awaited, current) = (None, None);
                    }
                    Step::Decide(ago, admit) => {
                        let Some(number) = connects.checked_sub(1 + ago) else { continue };
                        let name = format!("n{number}");
                        if !client.handler.0.lock().pending.contains_key(&name) {
                            continue;
                        }
                        let decision = if admit { Ok(()) } else { Err(ConnectError::Rejected("no")) };
                        client.decide(&name, decision).await;
                        admitted += usize::from(admit);
                        let packets = client.fetch().unwrap();
                        if awaited == Some(number) {
                            awaited = None;
                            if admit {
                                current = Some(number);
                            }
                            let expected = if admit { "40" } else { "44{\"message\":\"no\"}" };
                            assert_eq!(packets, [expected]);
                        } else {
                            assert_eq!(packets, [""; 0]);
                        }
                    }
                    Step::Disconnect => {
                        let session = client.connection.socket.member(Namespace::ROOT);
                        let Some(session) = session else { continue };
                        session.socket.disconnect("out");
                        let packets = client.fetch().unwrap();
                        assert_eq!(packets.len(), usize::from(current.take().is_some()), "{packets:?}");
                    }
                }
                let received = client.names(|its| &its.received).len();
                if awaited.is_some() {
                    continue;
                }
                client.send("27[\"who\"]").await;
                let is_received = client.names(|its| &its.received).len() > received;
                assert_eq!(is_received, current.is_some());
                let packets = client.fetch().unwrap();
                let expected = current.map(|number| format!("437[\"n{number}\"]"));
                assert_eq!(packets, expected.into_iter().collect::<Vec<_>>());
            }
            let Client { handler, connection, .. } = client;
            drop(connection);
            let Connects { pending, mut disconnected, .. } = std::mem::take(&mut *handler.0.lock());
            // The client has left before these connects are decided.
            admitted += pending.len();
            for decide in pending.into_values() {
                decide.send(Ok(())).unwrap();
            }
            settle().await;
            disconnected.append(&mut handler.0.lock().disconnected);
            // One more is the session in `/notifications`.
            assert_eq!(disconnected.len(), admitted + 1, "each admitted session has ended once");
            disconnected.sort_unstable();
            disconnected.dedup();
            assert_eq!(disconnected.len(), admitted + 1, "no session has ended twice");
        });
    }
}
