//! The Socket.IO door on a real listener, spoken to in raw Engine.IO frames: what a client library
//! would hide, most of all how and when a transport ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use belfry_adapters::inbound::socketio::{
    SocketIoParts, SocketIoServer, SocketIoSettings, SocketUseCases,
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
    FakeTokenVerifier, InMemoryStore, ManualClock, a_draft, epoch, user,
};
use belfry_application::use_cases::{
    CatchUp, CountUnread, DeleteNotification, ListInbox, MarkAllRead, MarkRead, SignIn,
};
use belfry_domain::{Receipt, UserRoom};
use belfry_tests::wait::until_true;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

/// Generous: a closed transport is waited for, never timed tightly, on a machine that others share.
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough that a transport which is closed by a timer is told from one closed at once.
const TIMERS: Duration = Duration::from_mins(2);

struct Node {
    address: SocketAddr,
    sessions: Arc<SocketIoSessions>,
    store: Arc<InMemoryStore>,
    clock: Arc<ManualClock>,
}

async fn node() -> Node {
    let settings = SocketIoSettings { connect_timeout: TIMERS, ..SocketIoSettings::default() };
    node_with(settings).await
}

async fn node_with(settings: SocketIoSettings) -> Node {
    let store = Arc::new(InMemoryStore::new(epoch("e1")));
    let clock = Arc::new(ManualClock::at(0));
    let inboxes: Arc<dyn InboxRepository> = store.clone();
    let sessions = Arc::new(Sessions::new(
        SignIn::new(
            Arc::new(FakeTokenVerifier),
            clock.clone(),
            Arc::new(RevokedTokens::empty()),
            Access::default(),
        ),
        CatchUp::new(inboxes.clone(), 1_000),
        clock.clone(),
        SessionSettings::default(),
    ));
    let use_cases = SocketUseCases {
        mark_read: MarkRead::new(inboxes.clone(), clock.clone()),
        mark_all_read: MarkAllRead::new(inboxes.clone(), clock.clone()),
        delete: DeleteNotification::new(inboxes.clone(), clock.clone()),
        list: ListInbox::new(inboxes.clone()),
        count_unread: CountUnread::new(inboxes),
    };
    let work = UserWork::new(None, 8);
    let parts = SocketIoParts { sessions: sessions.clone(), use_cases, work, settings };
    let free: ListenAddress = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(free, TcpSettings::default()).await.unwrap();
    let server = Server::new(listener, ServerSettings::default()).unwrap();
    let ListenAddress::Tcp(address) = server.address().unwrap() else { panic!("by TCP") };
    let app = Router::new().fallback_service(SocketIoServer::new(parts));
    tokio::spawn(server.serve(app, CancellationToken::new()));
    Node { address, sessions, store, clock }
}

impl Node {
    async fn happens(&self, name: &str, id: &str) {
        let receipts = self.store.create(vec![a_draft(name, id)]).await.unwrap();
        let Some(Receipt::Created(event)) = receipts.into_iter().next() else { panic!("taken") };
        self.sessions.deliver(&UserRoom::of(user(name)), &PushBatch::of(event));
    }
}

/// A WebSocket that speaks Engine.IO by hand.
struct Raw(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Raw {
    async fn open(node: &Node) -> Self {
        let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", node.address);
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut raw = Self(socket);
        assert!(raw.frame().await.unwrap().starts_with('0'), "the open packet comes first");
        raw
    }

    /// Signed in to the default namespace, and told where the inbox stands.
    async fn signed_in(node: &Node, auth: Value) -> (Self, Value) {
        let mut raw = Self::open(node).await;
        raw.send(&format!("40{auth}")).await;
        let answer = raw.frame().await.unwrap();
        assert!(answer.starts_with("40{"), "{answer}");
        let (event, sync) = raw.event().await;
        assert_eq!(event, "notification:sync");
        (raw, sync)
    }

    async fn send(&mut self, frame: &str) {
        self.0.send(Message::text(frame)).await.unwrap();
    }

    /// The next frame that is not a ping; `None` when the transport has ended.
    async fn frame(&mut self) -> Option<String> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("in time");
            match next {
                Some(Ok(Message::Text(text))) if text.as_str() == "2" => self.send("3").await,
                Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    async fn event(&mut self) -> (String, Value) {
        let frame = self.frame().await.expect("an event, not the end");
        let json = frame.trim_start_matches(|c: char| c.is_ascii_digit());
        let (name, payload): (String, Value) = serde_json::from_str(json).expect(&frame);
        (name, payload)
    }

    async fn ack(&mut self, id: u32) -> Value {
        let frame = self.frame().await.expect("an ack, not the end");
        let json = frame.strip_prefix(&format!("43{id}")).expect(&frame);
        let (answer,): (Value,) = serde_json::from_str(json).unwrap();
        answer
    }

    async fn ended(&mut self) -> bool {
        self.frame().await.is_none()
    }
}

#[tokio::test]
async fn a_refused_device_is_told_why_and_its_websocket_is_closed_at_once() {
    let node = node().await;
    node.clock.set(1_000);
    for (namespace, auth, code) in [
        ("", String::new(), "token_missing"),
        ("", "{}".to_owned(), "token_missing"),
        ("", json!({ "token": "" }).to_string(), "token_missing"),
        ("", json!({ "token": "forged" }).to_string(), "token_invalid"),
        ("/notifications,", json!({ "token": "ada:1000" }).to_string(), "token_expired"),
        ("/notifications,", "[1]".to_owned(), "token_missing"),
    ] {
        let mut raw = Raw::open(&node).await;
        raw.send(&format!("40{namespace}{auth}")).await;
        let answer = raw.frame().await.unwrap();
        let told = Instant::now();
        assert_eq!(answer, format!("44{namespace}{{\"message\":\"{code}\"}}"));
        assert!(raw.ended().await);
        println!("{code}: closed {:?} after the refusal", told.elapsed());
    }
    assert_eq!(node.sessions.count(), 0);
}

#[tokio::test]
async fn a_refused_device_that_polls_loses_its_session_at_once() {
    let node = node().await;
    let http = reqwest::Client::new();
    let base = format!("http://{}/socket.io/?EIO=4&transport=polling", node.address);
    let open = http.get(&base).send().await.unwrap().text().await.unwrap();
    let open: Value = serde_json::from_str(&open[1..]).unwrap();
    let session = format!("{base}&sid={}", open["sid"].as_str().unwrap());

    let auth = json!({ "token": "forged" });
    http.post(&session).body(format!("40{auth}")).send().await.unwrap();
    let told = Instant::now();
    let mut heard = String::new();
    while !heard.contains("44") {
        let answer = http.get(&session).send().await.unwrap();
        assert_eq!(answer.status(), 200, "heard before the end: {heard}");
        heard = answer.text().await.unwrap();
    }
    assert!(heard.contains(r#"44{"message":"token_invalid"}"#), "{heard}");
    until_true("the session is gone", async || {
        http.get(&session).send().await.unwrap().status() == 400
    })
    .await;
    println!("polling session gone {:?} after the refused sign-in", told.elapsed());
}

#[tokio::test]
async fn a_device_hears_the_sync_first_and_then_its_users_events_only() {
    let node = node().await;
    let (mut ada, sync) = Raw::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    assert_eq!(
        sync,
        json!({ "epoch": "e1", "revision": 0, "unreadCount": 0, "recovered": false, "missed": 0 })
    );
    let (mut bob, _) = Raw::signed_in(&node, json!({ "token": "Bearer bob:9999999" })).await;

    node.happens("ada", "n1").await;
    node.happens("bob", "n2").await;

    let (event, new) = ada.event().await;
    assert_eq!((event.as_str(), &new["id"]), ("notification:new", &json!("n1")));
    let (event, count) = ada.event().await;
    assert_eq!(event, "notification:unread_count");
    assert_eq!(count, json!({ "count": 1, "revision": 1 }));
    let (_, new) = bob.event().await;
    assert_eq!(new["id"], "n2");
}

#[tokio::test]
async fn a_device_gets_what_it_missed_before_what_happens() {
    let node = node().await;
    for n in 0..300 {
        node.happens("ada", &format!("n{n}")).await;
    }
    let auth = json!({ "token": "ada:9999999", "since": 100, "epoch": "e1" });
    let (mut ada, sync) = Raw::signed_in(&node, auth).await;
    assert_eq!((&sync["recovered"], &sync["missed"]), (&json!(true), &json!(200)));
    node.happens("ada", "live").await;
    let mut ids = Vec::new();
    while ids.last().is_none_or(|id| id != "live") {
        let (event, payload) = ada.event().await;
        if event == "notification:new" {
            ids.push(payload["id"].as_str().unwrap().to_owned());
        }
    }
    let expected: Vec<_> = (100..300).map(|n| format!("n{n}")).chain(["live".to_owned()]).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn what_a_device_says_at_once_is_heard() {
    let node = node().await;
    let mut raw = Raw::open(&node).await;
    raw.send(&format!("40{}", json!({ "token": "ada:9999999" }))).await;
    // Together with the answer to CONNECT there is nothing to wait for.
    let connected = raw.frame().await.unwrap();
    assert!(connected.starts_with("40"));
    raw.send(r#"421["notification:unread_count"]"#).await;
    let mut frames = [raw.frame().await.unwrap(), raw.frame().await.unwrap()];
    frames.sort();
    assert_eq!(frames[1], r#"431[{"data":{"count":0,"revision":0},"status":"ok"}]"#);
}

#[tokio::test]
async fn a_device_reads_marks_lists_and_deletes_and_each_is_acknowledged() {
    let node = node().await;
    for id in ["n1", "n2", "n3"] {
        node.store.create(vec![a_draft("ada", id)]).await.unwrap();
    }
    let (mut ada, _) = Raw::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    for (n, (event, payload, data)) in (1..).zip([
        ("notification:mark_read", json!({ "id": "n1" }), json!({ "count": 2, "revision": 4 })),
        (
            "notification:read",
            json!({ "notificationId": "n1" }),
            json!({ "count": 2, "revision": 4 }),
        ),
        ("markAsRead", json!("n2"), json!({ "count": 1, "revision": 5 })),
        ("notification:unread_count", json!(null), json!({ "count": 1, "revision": 5 })),
        ("notification:delete", json!({ "id": "n1" }), json!({ "count": 1, "revision": 6 })),
        ("notification:mark_all_read", json!({}), json!({ "count": 0, "revision": 7 })),
    ]) {
        ada.send(&format!("42{n}{}", json!([event, payload]))).await;
        assert_eq!(ada.ack(n).await, json!({ "status": "ok", "data": data }), "{event}");
    }
    ada.send(&format!("429{}", json!(["notification:list", { "limit": 1 }]))).await;
    let page = ada.ack(9).await["data"].clone();
    assert_eq!(page["items"][0]["id"], "n3");
    assert_eq!(page["items"][0]["isRead"], true);
    ada.send(&format!("4210{}", json!(["notification:list", { "cursor": page["nextCursor"] }])))
        .await;
    let rest = ada.ack(10).await;
    assert_eq!(rest["data"]["items"][0]["id"], "n2");
    assert_eq!(rest["data"]["nextCursor"], Value::Null);
}

#[tokio::test]
async fn a_message_that_cannot_be_done_is_answered_with_a_code() {
    let node = node().await;
    node.store.create(vec![a_draft("bob", "n1")]).await.unwrap();
    let (mut ada, _) = Raw::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    for (n, (message, code)) in (1..).zip([
        (json!(["notification:delete", { "id": "n1" }]), "not_found"),
        (json!(["notification:delete", { "id": {} }]), "payload_invalid"),
        (json!(["notification:mark_read"]), "payload_invalid"),
        (json!(["notification:list", { "cursor": "x" }]), "payload_invalid"),
        (json!(["notification:nonsense", {}]), "event_unknown"),
        (json!(["auth:refresh", {}]), "token_missing"),
        (json!(["auth:refresh", { "token": "bob:9999999" }]), "token_of_other_user"),
    ]) {
        ada.send(&format!("42{n}{message}")).await;
        let answer = ada.ack(n).await;
        assert_eq!(
            (&answer["status"], &answer["code"]),
            (&json!("error"), &json!(code)),
            "{message}"
        );
    }
    // Without an acknowledgement to answer with, a failure is an event; a success is nothing.
    ada.send(r#"42["notification:nonsense"]"#).await;
    let (event, payload) = ada.event().await;
    assert_eq!((event.as_str(), &payload["code"]), ("exception", &json!("event_unknown")));
    let state = node.store.state(&user("bob")).await.unwrap();
    assert_eq!(state.unread.get(), 1, "another user's inbox is untouched");
}

#[tokio::test]
async fn a_device_catches_up_whenever_it_asks() {
    let node = node().await;
    let (mut ada, _) = Raw::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    node.store.create(vec![a_draft("ada", "n1")]).await.unwrap();
    ada.send(&format!("421{}", json!(["notification:sync", { "since": 0, "epoch": "e1" }]))).await;
    let mut events = Vec::new();
    for _ in 0..3 {
        events.push(ada.event().await.0);
    }
    assert_eq!(events, ["notification:sync", "notification:new", "notification:unread_count"]);
    assert_eq!(ada.ack(1).await["data"]["missed"], 1);
}

#[tokio::test]
async fn a_session_ends_with_its_token_transport_and_all() {
    let node = node().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let sessions = node.sessions.clone();
    tokio::spawn({
        let stop = stop.clone();
        async move { sessions.run_expiry(stop).await }
    });
    let (mut ada, _) = Raw::signed_in(&node, json!({ "token": "ada:100000" })).await;
    node.clock.set(50_000);
    let (event, expiring) = ada.event().await;
    assert_eq!(event, "auth:expiring");
    assert_eq!(expiring, json!({ "expiresAt": "1970-01-01T00:01:40.000Z" }));

    ada.send(&format!("421{}", json!(["auth:refresh", { "token": "ada:200000" }]))).await;
    assert_eq!(ada.ack(1).await["data"]["expiresAt"], "1970-01-01T00:03:20.000Z");
    node.clock.set(100_000);
    ada.send(r#"422["notification:unread_count"]"#).await;
    assert_eq!(ada.ack(2).await["status"], "ok");

    node.clock.set(200_000);
    let (mut event, mut payload) = ada.event().await;
    if event == "auth:expiring" {
        (event, payload) = ada.event().await;
    }
    assert_eq!((event.as_str(), &payload["code"]), ("exception", &json!("token_expired")));
    assert_eq!(ada.frame().await.as_deref(), Some("41"));
    assert!(ada.ended().await);
    stop.cancel();
}

#[tokio::test]
async fn a_device_that_leaves_leaves_nothing_behind() {
    let node = node().await;
    // Each socket's handlers hold the sessions, so a socket that is kept somewhere shows here.
    let held_by_the_door = Arc::strong_count(&node.sessions);
    for goodbye in ["41", "1"] {
        let (mut ada, _) = Raw::signed_in(&node, json!({ "token": "ada:9999999" })).await;
        assert_eq!(node.sessions.count(), 1);
        ada.send(goodbye).await;
        until_true("the session is gone", async || node.sessions.count() == 0).await;
    }
    let (ada, _) = Raw::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    drop(ada);
    until_true("the session is gone", async || node.sessions.count() == 0).await;
    until_true("the sockets are gone", async || {
        Arc::strong_count(&node.sessions) == held_by_the_door
    })
    .await;
}

#[tokio::test]
async fn a_device_that_does_not_read_is_cut_off_and_others_are_told() {
    let node = node_with(SocketIoSettings { queue: 16, ..SocketIoSettings::default() }).await;
    let (mut reads, _) = Raw::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    let (stuck, _) = Raw::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    assert_eq!(node.sessions.count(), 2);
    let mut n = 0;
    while node.sessions.count() > 1 {
        assert!(n < 100_000, "cut off long before this");
        for _ in 0..4 {
            node.happens("ada", &format!("n{n}")).await;
            n += 1;
        }
        for _ in 0..8 {
            reads.event().await;
        }
    }
    println!("cut off after {n} notifications that it did not read");
    drop(stuck);
}

#[tokio::test]
async fn devices_that_are_dismissed_find_their_transport_gone() {
    let node = node().await;
    let mut devices = Vec::new();
    for name in ["ada", "ada", "bob"] {
        let token = json!({ "token": format!("{name}:9999999") });
        devices.push(Raw::signed_in(&node, token).await.0);
    }
    node.sessions.drain(Duration::from_millis(50)).await;
    for device in &mut devices {
        // No Socket.IO disconnect: a client library would not come back after one.
        assert_eq!(device.frame().await, None);
    }
}

#[tokio::test]
async fn a_device_is_in_each_namespace_by_itself() {
    let node = node().await;
    let auth = json!({ "token": "ada:9999999" });
    let (mut ada, _) = Raw::signed_in(&node, auth.clone()).await;
    ada.send(&format!("40/notifications,{auth}")).await;
    assert!(ada.frame().await.unwrap().starts_with("40/notifications,{\"sid\":"));
    assert!(ada.frame().await.unwrap().starts_with("42/notifications,[\"notification:sync\","));
    assert_eq!(node.sessions.count(), 2);
    // A second sign-in in the same namespace takes the place of the first.
    ada.send(&format!("40{auth}")).await;
    assert!(ada.frame().await.unwrap().starts_with("40{\"sid\":"));
    assert!(ada.frame().await.unwrap().starts_with("42[\"notification:sync\","));
    assert_eq!(node.sessions.count(), 2);
    node.happens("ada", "n1").await;
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(ada.frame().await.unwrap());
    }
    let of = |begin: &str| told.iter().filter(|frame| frame.starts_with(begin)).count();
    assert_eq!((of("42["), of("42/notifications,[")), (2, 2), "{told:?}");

    ada.send("41").await;
    until_true("one session is left", async || node.sessions.count() == 1).await;
    ada.send("42/notifications,7[\"notification:unread_count\"]").await;
    let answer = ada.frame().await.unwrap();
    assert_eq!(answer, r#"43/notifications,7[{"data":{"count":1,"revision":1},"status":"ok"}]"#);
    ada.send(&format!("40{auth}")).await;
    assert!(ada.frame().await.unwrap().starts_with("40{"), "it comes back");
    assert!(ada.frame().await.unwrap().starts_with("42[\"notification:sync\","));
    // What it sends to a namespace that it has left is ignored.
    ada.send("41/notifications,").await;
    ada.send("42/notifications,1[\"notification:unread_count\"]").await;
    ada.send("422[\"notification:unread_count\"]").await;
    assert_eq!(ada.ack(2).await["status"], "ok");
    ada.send("41").await;
    until_true("no session is left", async || node.sessions.count() == 0).await;
}

#[tokio::test]
async fn a_device_that_is_in_no_namespace_in_time_is_closed() {
    let connect_timeout = Duration::from_millis(300);
    let node = node_with(SocketIoSettings { connect_timeout, ..SocketIoSettings::default() }).await;
    let mut silent = Raw::open(&node).await;
    let mut lost = Raw::open(&node).await;
    lost.send("40/nowhere,{}").await;
    let nowhere = lost.frame().await.unwrap();
    assert_eq!(nowhere, r#"44/nowhere,{"message":"Invalid namespace"}"#);
    for raw in [&mut silent, &mut lost] {
        assert_eq!(raw.frame().await.as_deref(), Some("1"));
        assert!(raw.ended().await);
    }
    let (mut ada, _) = Raw::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    tokio::time::sleep(2 * connect_timeout).await;
    ada.send(r#"421["notification:unread_count"]"#).await;
    assert_eq!(ada.ack(1).await["status"], "ok");
}

#[tokio::test]
async fn a_device_that_answers_no_ping_is_closed_and_one_that_does_stays() {
    let node = node_with(SocketIoSettings {
        ping_interval: Duration::from_millis(200),
        ping_timeout: Duration::from_secs(1),
        ..SocketIoSettings::default()
    })
    .await;
    let token = |name: &str| json!({ "token": format!("{name}:9999999") });
    let (mut ada, _) = Raw::signed_in(&node, token("ada")).await;
    let (mut dead, _) = Raw::signed_in(&node, token("bob")).await;
    let dies = async {
        let mut pings = 0;
        // Read by hand: no ping is answered.
        while let Some(Ok(Message::Text(text))) = dead.0.next().await {
            assert_eq!(text.as_str(), "2");
            pings += 1;
        }
        assert!(pings <= 1, "{pings}");
    };
    // For long enough that it would have died as well.
    let stays = tokio::time::timeout(Duration::from_secs(3), ada.frame());
    let ((), said) = tokio::join!(dies, stays);
    assert!(said.is_err(), "nothing but pings: {said:?}");
    assert_eq!(node.sessions.count(), 1);
}

#[tokio::test]
async fn frames_that_are_no_events_are_read_no_faster_than_anybody_needs() {
    let node = node().await;
    let (mut ada, _) = Raw::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    let begin = Instant::now();
    for n in 0..1_000 {
        let frame = if n % 2 == 0 { Message::text("3") } else { Message::Pong(vec![].into()) };
        ada.0.feed(frame).await.unwrap();
    }
    ada.send(r#"421["notification:unread_count"]"#).await;
    assert_eq!(ada.ack(1).await["status"], "ok");
    // 200 a second, and twice as many at once.
    assert!(begin.elapsed() > Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn attachments_and_fragments_are_understood_and_a_ping_is_answered() {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    let node = node().await;
    let (mut ada, _) = Raw::signed_in(&node, json!({ "token": "ada:9999999" })).await;
    ada.send(r#"452-1["notification:delete",{"_placeholder":true,"num":0}]"#).await;
    for attachment in [vec![1, 2], vec![]] {
        ada.0.send(Message::binary(attachment)).await.unwrap();
    }
    assert_eq!(ada.ack(1).await["code"], "payload_invalid");

    let event = br#"422["notification:unread_count"]"#;
    for (place, part) in event.chunks(7).enumerate() {
        let opcode = OpCode::Data(if place == 0 { Data::Text } else { Data::Continue });
        let is_last = (place + 1) * 7 >= event.len();
        let frame = Frame::message(part.to_vec(), opcode, is_last);
        ada.0.send(Message::Frame(frame)).await.unwrap();
        ada.0.send(Message::Ping(vec![u8::try_from(place).unwrap()].into())).await.unwrap();
    }
    let (mut pongs, mut answered) = (0, false);
    while pongs < 5 || !answered {
        match ada.0.next().await.unwrap().unwrap() {
            Message::Pong(payload) => {
                assert_eq!(payload[..], [pongs]);
                pongs += 1;
            }
            Message::Text(text) => answered |= text.starts_with("432[{"),
            other => panic!("{other}"),
        }
    }
    // A close is answered with the status that it gave.
    let status = tokio_tungstenite::tungstenite::protocol::CloseFrame {
        code: 4_000.into(),
        reason: "done".into(),
    };
    ada.0.close(Some(status)).await.unwrap();
    let closed = loop {
        match ada.0.next().await {
            Some(Ok(Message::Close(frame))) => break frame,
            Some(Ok(_)) => {}
            end => panic!("{end:?}"),
        }
    };
    assert_eq!(u16::from(closed.unwrap().code), 4_000);
    until_true("no session is left", async || node.sessions.count() == 0).await;
}

/// Sends this, perhaps not all that it promises, and gives what is answered until the connection ends.
async fn answered(node: &Node, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    // The answer may come, and the connection end, before all has been sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends");
    String::from_utf8(answer).unwrap()
}

/// A session by polling, and the request line with which something is sent in it.
async fn polling_session(node: &Node) -> (String, String) {
    let path = "/socket.io/?EIO=4&transport=polling";
    let open = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let opened = answered(node, &open).await;
    let (_, rest) = opened.split_once("\"sid\":\"").expect(&opened);
    let path = format!("{path}&sid={}", rest.split_once('"').unwrap().0);
    (format!("POST {path} HTTP/1.1\r\nhost: x\r\n"), format!("GET {path} HTTP/1.1\r\nhost: x\r\n"))
}

#[tokio::test]
async fn what_is_sent_by_polling_has_a_bound_in_size_and_time_and_its_session_ends_past_it() {
    let body_timeout = Duration::from_millis(500);
    let settings =
        SocketIoSettings { max_payload: 1_000, body_timeout, ..SocketIoSettings::default() };
    let node = node_with(settings).await;
    let chunk = format!("ff\r\n{}\r\n", "x".repeat(255));
    for (body, status) in [
        ("content-length: 1000\r\n\r\n4".to_owned(), 408),
        ("content-length: 1000000\r\n\r\n4".to_owned(), 413),
        ("transfer-encoding: chunked\r\n\r\n1\r\n4\r\n".to_owned(), 408),
        (format!("content-length: 1001\r\n\r\n{}", "4".repeat(1_001)), 413),
        (format!("transfer-encoding: chunked\r\n\r\n{}", chunk.repeat(5)), 413),
    ] {
        let (post, poll) = polling_session(&node).await;
        let answer = answered(&node, &format!("{post}{body}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{body:.40}: {answer}");
        let answer = answered(&node, &format!("{poll}connection: close\r\n\r\n")).await;
        assert!(!answer.starts_with("HTTP/1.1 200 ") || answer.ends_with("\r\n\r\n1"), "{answer}");
    }
    let (post, _) = polling_session(&node).await;
    let fits = "connection: close\r\ncontent-length: 4\r\n\r\n40{}";
    let answer = answered(&node, &format!("{post}{fits}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
