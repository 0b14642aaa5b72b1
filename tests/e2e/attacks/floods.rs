//! Many connections that send little, or much, or never come to an end.
//!
//! What an attacker gets for it is the end of each connection, by the server and within its deadline, and
//! nothing of them is left behind: no connection, no session, no task. All the while a bystander goes on
//! hearing what happens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use belfry_tests::clients::Device;
use belfry_tests::http::Http;
use belfry_tests::process;
use belfry_tests::raw_socket::RawSocket;
use belfry_tests::wait::{PATIENCE, until_true};
use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Scene;
use super::sockets::Poller;
use crate::setup::{Setup, User, key, signed_in};

/// So many do the same at once: what one of them leaves behind shows as often in what is counted.
const AT_ONCE: usize = 20;
/// By so much what is counted may differ for reasons of its own, as a connection that the test keeps.
const SLACK: u64 = 10;
/// Where the connections of attackers come from: not from where the bystander's do.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECOND: Duration = Duration::from_secs(1);

/// A server under attack, and a bystander.
struct Siege {
    scene: Scene,
    bystander: User,
    device: Device,
    /// One client for all, which keeps its connection: there may be no place for a new one.
    service: Http,
    admin: Http,
    told: AtomicU64,
    before: Load,
}

/// What a server holds.
#[derive(Debug, Default, Clone, Copy)]
struct Load {
    connections: u64,
    sessions: u64,
    tasks: u64,
}

impl Load {
    async fn of(admin: &Http) -> Self {
        let report = admin.get("/debug/runtime").await.expect(200);
        let count = |value: &Value| value.as_u64().unwrap();
        Self {
            connections: count(&report["connections"]["public"]),
            sessions: count(&report["sessions"]),
            tasks: count(&report["tasks"]),
        }
    }

    fn is_back_to(&self, before: &Self) -> bool {
        self.sessions <= before.sessions
            && self.connections <= before.connections + SLACK
            && self.tasks <= before.tasks + SLACK
    }
}

impl Siege {
    /// With deadlines that a test can wait for. Handshakes and the sessions of the attacker are not limited, so that
    /// a whole flood gets in.
    async fn begin() -> Self {
        Self::with(|it| {
            it.setting("http.header_timeout", "2s")
                .setting("socket.connect_timeout", "3s")
                .setting("socket.ping_interval", "5s")
                .setting("socket.ping_timeout", "10s")
                .setting("limits.handshakes_per_second", 0)
                .setting("limits.handshakes_per_address", 0)
                .setting("limits.sessions_per_user", 0)
        })
        .await
    }

    async fn with(configure: impl FnOnce(process::Builder) -> process::Builder) -> Self {
        let scene = Scene::at(Setup::Embedded.own_with(configure).await.into()).await;
        let bystander = scene.place.user("bystander");
        let device = signed_in(bystander.node()).await;
        let (service, admin) = (scene.place.service(), scene.place.belfry.admin_http());
        let (told, before) = (AtomicU64::new(0), Load::default());
        let mut siege = Self { scene, bystander, device, service, admin, told, before };
        siege.bystander_hears().await;
        siege.before = Load::of(&siege.admin).await;
        siege
    }

    fn url(&self) -> &str {
        self.scene.url()
    }

    fn address(&self) -> SocketAddr {
        self.url().strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Has this done while the bystander hears of one notification after the other.
    async fn bear<T>(&self, attack: impl Future<Output = T>) -> T {
        let served = async {
            loop {
                self.bystander_hears().await;
                sleep(SECOND / 5).await;
            }
        };
        tokio::select! {
            done = attack => done,
            never = served => never,
        }
    }

    async fn bystander_hears(&self) {
        let id = format!("n{}", self.told.fetch_add(1, Ordering::Relaxed));
        let draft = json!({ "id": id, "userId": self.bystander.id(), "title": "Still here" });
        self.service.post("/v1/notifications", &draft).await.expect(201);
        while self.device.expect("notification:new").await["id"] != id.as_str() {}
    }

    /// The server holds no more than before, and everybody else is where they were.
    async fn leaves_nothing(self) {
        let mut last = Load::of(&self.admin).await;
        let settled = async {
            while !last.is_back_to(&self.before) {
                sleep(SECOND / 5).await;
                last = Load::of(&self.admin).await;
            }
        };
        let settled = timeout(PATIENCE, settled).await;
        assert!(settled.is_ok(), "it held {:?}, and goes on to hold {last:?}", self.before);
        self.bystander_hears().await;
        let has_left = self.device.records().iter().any(|seen| seen.kind == "disconnect");
        assert!(!has_left, "the bystander was cut off: {}", self.device.transcript());
        self.scene.stands_unharmed().await;
    }
}

/// What one connection of a flood sends.
#[derive(Clone)]
struct Stream {
    as_whom: As,
    /// First this …
    first: Vec<u8>,
    /// … and then this over and over.
    then: Vec<u8>,
    pause: Duration,
}

/// Who it is that sends, and so what was sent and answered before.
#[derive(Clone)]
enum As {
    /// Nobody: a connection.
    Nobody,
    /// A WebSocket that has not signed in.
    Stranger,
    /// One that has, with this token.
    Member(String),
}

impl As {
    fn says(&self) -> Vec<u8> {
        match self {
            Self::Nobody => vec![],
            Self::Stranger => opening(),
            Self::Member(token) => {
                [opening(), text(&format!("40{}", json!({ "token": token })))].concat()
            }
        }
    }

    fn hears(&self) -> &'static str {
        match self {
            Self::Nobody => "",
            Self::Stranger => r#"0{"sid""#,
            Self::Member(_) => r#"40{"sid""#,
        }
    }
}

impl Stream {
    /// Sends it from there until the server ends the connection, and gives all that came back.
    async fn pour(self, from: Ipv4Addr, to: SocketAddr) -> String {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let (mut reader, mut writer) = socket.connect(to).await.unwrap().into_split();
        let (mut heard, is_known) = (Vec::new(), Notify::new());
        let send = async {
            let _: io::Result<()> = async {
                writer.write_all(&self.as_whom.says()).await?;
                is_known.notified().await;
                writer.write_all(&self.first).await?;
                loop {
                    sleep(self.pause).await;
                    writer.write_all(&self.then).await?;
                }
            }
            .await;
            // It is closed for writing; whether for good, the reader will see.
            std::future::pending::<()>().await;
        };
        let hear = async {
            while !String::from_utf8_lossy(&heard).contains(self.as_whom.hears()) {
                match reader.read_buf(&mut heard).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return,
                }
            }
            is_known.notify_one();
            // With or without a reset.
            drop(reader.read_to_end(&mut heard).await);
        };
        tokio::select! {
            () = hear => {}
            () = send => {}
        }
        String::from_utf8_lossy(&heard).into_owned()
    }
}

const FINAL: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const PING: u8 = 0x9;

/// The head of a masked frame (RFC 6455, section 5.2) that announces so many bytes. Masked with zeros, what
/// follows stays as it is.
fn head(kind: u8, length: u64) -> Vec<u8> {
    let mut head = vec![kind, 0x80 | 127];
    head.extend(length.to_be_bytes());
    head.extend([0; 4]);
    head
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [head(kind, payload.len() as u64), payload.to_vec()].concat()
}

fn text(text: &str) -> Vec<u8> {
    frame(FINAL | TEXT, text.as_bytes())
}

/// Asks for a WebSocket.
fn opening() -> Vec<u8> {
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n\
      upgrade: websocket\r\nsec-websocket-version: 13\r\n\
      sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec()
}

/// An attack, by whom, what they send first, what over and over, how often, and what is in the answer.
struct Row(&'static str, As, Vec<u8>, Vec<u8>, Duration, &'static str);

#[tokio::test]
async fn what_is_sent_without_end_comes_to_one() {
    let siege = Siege::begin().await;
    let attacker = siege.scene.attacker();
    let member = || As::Member(attacker.token());
    let announced = text(r#"4516-["x",{"_placeholder":true,"num":0}]"#);
    let often = SECOND / 10;
    let rows = [
        // Before there is a request.
        Row(
            "a head, byte by byte",
            As::Nobody,
            b"GET / HTTP/1.1\r\nx: ".into(),
            b"x".into(),
            SECOND,
            "",
        ),
        Row("empty lines before a head", As::Nobody, vec![], b"\r\n".into(), SECOND, ""),
        // By a WebSocket, before signing in.
        Row("silence", As::Stranger, vec![], vec![], SECOND, ""),
        Row("pongs", As::Stranger, vec![], text("3"), often, ""),
        Row("websocket pings", As::Stranger, vec![], frame(FINAL | PING, b""), often, ""),
        Row("unknown namespaces", As::Stranger, vec![], text("40/admin,"), often, ""),
        Row(
            "a sign-in, byte by byte",
            As::Stranger,
            head(FINAL | TEXT, 5_000),
            b"4".into(),
            SECOND,
            "",
        ),
        Row(
            "fragments of 1 kB",
            As::Stranger,
            frame(TEXT, b"42["),
            frame(CONTINUATION, &[b'x'; 1_000]),
            SECOND / 1_000,
            "",
        ),
        Row(
            "a frame of 2^62 bytes",
            As::Stranger,
            head(FINAL | BINARY, 1 << 62),
            vec![0; 1_000],
            often,
            "",
        ),
        Row(
            "a frame of 1 MB",
            As::Stranger,
            head(FINAL | BINARY, 1 << 20),
            vec![0; 1_000],
            often,
            "",
        ),
        Row("attachments", As::Stranger, announced.clone(), frame(FINAL | BINARY, b""), SECOND, ""),
        // By a WebSocket, signed in.
        Row("an event, byte by byte", member(), head(FINAL | TEXT, 5_000), b"4".into(), SECOND, ""),
        Row(
            "fragments of nothing",
            member(),
            frame(TEXT, b"42["),
            frame(CONTINUATION, b""),
            often,
            "",
        ),
        Row(
            "a frame of 2^62 bytes",
            member(),
            head(FINAL | BINARY, 1 << 62),
            vec![0; 1_000],
            often,
            "",
        ),
        Row(
            "more attachments than anybody needs",
            member(),
            text(r#"45999-["x",{"_placeholder":true,"num":0}]"#),
            frame(FINAL | BINARY, b"x"),
            often,
            "",
        ),
        Row(
            "attachments larger than any message",
            member(),
            announced.clone(),
            frame(FINAL | BINARY, &vec![0; 50_000]),
            SECOND,
            "",
        ),
        Row("attachments that never come", member(), announced, vec![], SECOND, ""),
    ];
    let floods = rows.into_iter().map(|Row(attack, as_whom, first, then, pause, answer)| {
        let greeting = as_whom.hears();
        let stream = Stream { as_whom, first, then, pause };
        let to = siege.address();
        async move {
            let all = join_all((0..AT_ONCE).map(|_| stream.clone().pour(ELSEWHERE, to)));
            let Ok(heard) = timeout(PATIENCE, all).await else {
                return Some(format!("{attack}: it goes on"));
            };
            let is_so = |heard: &String| match (greeting, answer) {
                ("", "") => heard.is_empty(),
                _ => heard.contains(greeting) && heard.contains(answer),
            };
            let other = heard.into_iter().find(|heard| !is_so(heard));
            other.map(|heard| format!("{attack}: {heard}"))
        }
    });
    let surprises: Vec<_> = siege.bear(join_all(floods)).await.into_iter().flatten().collect();
    assert_eq!(surprises, Vec::<String>::new());
    siege.leaves_nothing().await;
}

#[tokio::test]
async fn polled_bodies_without_end_are_cut_off() {
    let siege = Siege::begin().await;
    let attacker = siege.scene.attacker();
    let chunked = "transfer-encoding: chunked\r\n\r\n1\r\n4\r\n";
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let rows = [
        ("byte by byte", "content-length: 99\r\n\r\n4", "x", SECOND, "HTTP/1.1 408"),
        ("in small chunks", chunked, "1\r\nx\r\n", SECOND / 10, "HTTP/1.1 408"),
        ("as fast as it goes", chunked, &chunk, Duration::ZERO, "HTTP/1.1 413"),
    ];
    let floods = rows.map(|(attack, body, then, pause, answer)| {
        let (siege, attacker) = (&siege, &attacker);
        join_all((0..AT_ONCE).map(move |_| async move {
            let (_, sid) = Poller::signed_in(siege.url(), &attacker.token()).await;
            let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
            let first = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{body}").into();
            let stream = Stream { as_whom: As::Nobody, first, then: then.into(), pause };
            let heard = timeout(PATIENCE, stream.pour(ELSEWHERE, siege.address())).await;
            let heard = heard.unwrap_or_else(|_| panic!("{attack}: it goes on"));
            assert!(heard.contains(answer), "{attack}: {heard}");
        }))
    });
    siege.bear(join_all(floods)).await;
    siege.leaves_nothing().await;
}

/// As many descriptors as this process may have; servers that it starts inherit them.
fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    // Where it may not be raised, there are fewer.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[tokio::test]
async fn thousands_that_never_send_a_request_take_no_more_than_their_place() {
    // `BELFRY_FLOOD=5000` for more. Past the kernel's backlog clients wait for it to take them, each for
    // seconds, which says nothing of Belfry.
    let asked = std::env::var("BELFRY_FLOOD").ok().and_then(|it| it.parse().ok()).unwrap_or(1_000);
    let many = asked.min(descriptors() / 3);
    if many < asked {
        println!("only {many} connections in the place of {asked}: raise `ulimit -n`");
    }
    // Three networks get all that one may have, and a fourth what is left altogether.
    let (per_address, altogether) = (many / 5, many / 5 * 7 / 2);
    let siege = Siege::with(|it| {
        it.setting("limits.connections", altogether)
            .setting("limits.connections_per_address", per_address)
            // Longer than it takes them all to come.
            .setting("http.header_timeout", "15s")
    })
    .await;
    let to = siege.address();
    let flood = async {
        let mut all = Vec::new();
        for network in 2..7 {
            let from = Ipv4Addr::new(127, 0, 0, network);
            for number in 0..per_address + 20 {
                let first: &[u8] = if number % 2 == 0 { b"" } else { b"GET / HTTP/1.1\r\nhost:" };
                let as_whom = As::Nobody;
                let stream =
                    Stream { as_whom, first: first.to_vec(), then: vec![], pause: PATIENCE };
                all.push(tokio::spawn(stream.pour(from, to)));
                // Not more at a time than can wait to be accepted: this one comes after all of them,
                // whether it is answered or not let in.
                if number % 100 == 0 {
                    let first =
                        b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
                    let (as_whom, then, pause) = (As::Nobody, vec![], PATIENCE);
                    Stream { as_whom, first: first.to_vec(), then, pause }.pour(from, to).await;
                }
            }
        }
        for one in all {
            let heard = timeout(PATIENCE, one).await.expect("it is closed").unwrap();
            assert_eq!(heard, "");
        }
    };
    siege.bear(flood).await;
    let metrics = siege.admin.get("/metrics").await.text;
    for reason in ["connections", "connections_per_address"] {
        let metric = format!("belfry_connections_refused_total{{reason=\"{reason}\"}}");
        assert!(metrics.contains(&metric), "{metrics}");
    }
    siege.leaves_nothing().await;
}

#[tokio::test]
async fn polling_sessions_of_nobody_end_by_themselves() {
    let siege = Siege::begin().await;
    let all = join_all((0..AT_ONCE * 5).map(|number| {
        let url = siege.url();
        async move {
            let (poller, _) = Poller::open(url).await;
            // Some of them wait at the server, and some nowhere.
            if number % 2 == 0 {
                sleep(4 * SECOND).await;
            }
            until_true("the session has ended", async || poller.hears().await.status == 400).await;
        }
    }));
    siege.bear(all).await;
    siege.leaves_nothing().await;
}

#[tokio::test]
async fn who_tries_bad_tokens_again_and_again_is_slowed_down_and_nobody_else_is() {
    const RATE: u32 = 10;

    let siege = Siege::with(|it| it.setting("limits.handshakes_per_address", RATE)).await;
    // Both at once: many connections, and many sign-ins on each.
    let first = [opening(), text(r#"40{"token":"bad"}"#).repeat(20)].concat();
    let again = Stream { as_whom: As::Nobody, first, then: vec![], pause: SECOND };
    let (to, begin) = (siege.address(), Instant::now());
    let flood = join_all((0..AT_ONCE).map(|_| async {
        let mut heard = Vec::new();
        // Those that are slowed down wait about a second for their answer each time.
        for _ in 0..10 {
            let asked = Instant::now();
            let all = timeout(PATIENCE, again.clone().pour(ELSEWHERE, to)).await;
            heard.push((all.expect("it is closed"), asked.elapsed()));
        }
        heard
    }));
    let newcomer = async { signed_in(siege.scene.place.user("newcomer").node()).await };
    let (heard, newcomer) = siege.bear(async { tokio::join!(flood, newcomer) }).await;
    let (mut refused, mut slowed) = (0_u32, 0);
    for (heard, after) in heard.iter().flatten() {
        match heard {
            it if it.starts_with("HTTP/1.1 429") => {
                assert!(*after >= SECOND / 2, "{after:?}");
                slowed += 1;
            }
            // Of the sign-ins on a connection only the last one is answered, and it may be one too many.
            it if it.contains(r#"44{"message":"token_invalid"}"#)
                || it.contains(r#"44{"message":"too_many_handshakes"}"#) =>
            {
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    // In the long run the rate, and twice as many at first.
    let most = RATE * 2 + RATE * u32::try_from(begin.elapsed().as_secs() + 1).unwrap();
    assert!(slowed > 0 && refused > 0, "{refused} refused, {slowed} slowed down");
    assert!(refused <= most, "{refused} of {most} refused, {slowed} slowed down");
    drop(newcomer);
    siege.leaves_nothing().await;
}

/// They may do that: each is answered in its turn, and costs others nothing.
#[tokio::test]
async fn those_who_never_stop_pinging_wait_for_their_own_turn() {
    let siege = Siege::begin().await;
    let attacker = siege.scene.attacker();
    let to = siege.address();
    let rows = [
        ("websocket pings", frame(FINAL | PING, &[b'x'; 100])),
        ("pongs", text("3")),
        ("pings that are the server's to send", text("2")),
        ("events of a namespace that it is not in", text(r#"42/notifications,["x"]"#)),
        ("acks", text("431[]")),
    ];
    let floods = rows.map(|(attack, packet)| {
        let as_whom = As::Member(attacker.token());
        let (first, then) = (vec![], packet.repeat(100));
        let stream = Stream { as_whom, first, then, pause: SECOND / 1_000 };
        async move {
            // Not ended by the server: dropped, and so closed, when it has gone on for long enough.
            if let Ok(heard) = timeout(5 * SECOND, stream.pour(ELSEWHERE, to)).await {
                panic!("{attack}: {heard:.400}");
            }
        }
    });
    siege.bear(join_all(floods)).await;
    siege.leaves_nothing().await;
}

#[tokio::test]
async fn packets_that_are_no_events_have_a_rate_after_an_upgrade_too() {
    let siege = Siege::begin().await;
    let attacker = siege.scene.attacker();
    let one = async || {
        let (mut socket, _) = upgraded(&siege, &attacker.token()).await;
        let begin = Instant::now();
        for _ in 0..1_000 {
            socket.send("3").await;
        }
        socket.send(r#"427["notification:list"]"#).await;
        while !socket.frame().await.expect("it is open").starts_with("437[") {}
        // 400 at once, 200 a second.
        assert!(begin.elapsed() >= 2 * SECOND, "{:?}", begin.elapsed());
    };
    siege.bear(join_all((0..AT_ONCE).map(|_| one()))).await;
    siege.leaves_nothing().await;
}

#[tokio::test]
async fn packets_that_are_no_events_have_a_rate_by_polling_too() {
    let siege = Siege::begin().await;
    let attacker = siege.scene.attacker();
    let one = async || {
        let (poller, _) = Poller::signed_in(siege.url(), &attacker.token()).await;
        let pongs = ["3"; 300].join("\u{1e}");
        let begin = Instant::now();
        for _ in 0..4 {
            assert_eq!(poller.says(pongs.clone()).await.status, 200);
        }
        // The last of them is taken when the rate allows for it: 400 at once, 200 a second.
        assert!(begin.elapsed() >= 2 * SECOND, "{:?}", begin.elapsed());
    };
    siege.bear(join_all((0..AT_ONCE).map(|_| one()))).await;
    siege.leaves_nothing().await;
}

#[tokio::test]
async fn upgrade_that_is_abandoned_leaves_the_session_polling() {
    let siege = Siege::begin().await;
    let attacker = siege.scene.attacker();
    for (attack, said, stays) in [
        ("gone after the opening handshake", &[][..], false),
        ("silent after the opening handshake", &[], true),
        ("gone after the probe", &["2probe"], false),
        ("silent after the probe", &["2probe"], true),
        ("the probe left out", &["5"], true),
        ("two probes", &["2probe", "2probe"], true),
        ("an event before the upgrade", &["2probe", r#"42["notification:list"]"#], true),
    ] {
        let one = async |polls_often: bool| {
            let (poller, sid) = Poller::signed_in(siege.url(), &attacker.token()).await;
            let upgrade = async {
                let query = format!("&sid={sid}");
                let mut socket = RawSocket::upgrade(siege.url(), &query).await.unwrap();
                for packet in said {
                    socket.send(packet).await;
                }
                if stays {
                    while socket.frame().await.is_some() {}
                }
            };
            let ask = async |id: u32| {
                let asked = poller.says(format!("42{id}[\"notification:unread_count\"]")).await;
                assert_eq!(asked.status, 200, "{asked:?}");
                loop {
                    let heard = poller.hears().await;
                    assert_eq!(heard.status, 200, "{heard:?}");
                    let mut packets = heard.text.split('\u{1e}');
                    if packets.clone().any(|packet| packet == "2") {
                        poller.says("3").await;
                    }
                    if packets.any(|packet| packet.starts_with(&format!("43{id}["))) {
                        return;
                    }
                }
            };
            // The session polls during the upgrade, and after it.
            let mut upgrade = std::pin::pin!(upgrade);
            let mut id = 10;
            while timeout(if polls_often { SECOND / 10 } else { SECOND }, &mut upgrade)
                .await
                .is_err()
            {
                ask(id).await;
                id += 1;
            }
            ask(9).await;
            poller.says("1").await;
        };
        println!("{attack}");
        siege.bear(join_all((0..AT_ONCE).map(|number| one(number % 2 == 0)))).await;
    }
    siege.leaves_nothing().await;
}

/// A session that polls and goes on by a WebSocket.
async fn upgraded(siege: &Siege, token: &str) -> (RawSocket, String) {
    let (_, sid) = Poller::signed_in(siege.url(), token).await;
    let query = format!("&sid={sid}");
    let mut socket = RawSocket::upgrade(siege.url(), &query).await.unwrap();
    socket.send("2probe").await;
    assert_eq!(socket.frame().await.as_deref(), Some("3probe"));
    socket.send("5").await;
    (socket, query)
}

#[tokio::test]
async fn a_second_websocket_does_not_hide_the_one_that_a_session_has() {
    let siege = Siege::begin().await;
    let attacker = siege.scene.attacker();
    let one = async || {
        let token = key().token(attacker.id()).expires_in(10 * SECOND).sign();
        let (mut socket, query) = upgraded(&siege, &token).await;
        let mut second = RawSocket::upgrade(siege.url(), &query).await.unwrap();
        second.send("2probe").await;
        assert_eq!(second.frame().await, None, "there is one already");
        // The session goes on by the first, up to its end, and then it is closed.
        socket.send(r#"427["notification:list"]"#).await;
        let mut heard = String::new();
        while let Some(told) = socket.frame().await {
            heard += &told;
        }
        assert!(heard.contains("437[") && heard.contains("token_expired"), "{heard}");
    };
    siege.bear(join_all((0..AT_ONCE).map(|_| one()))).await;
    siege.leaves_nothing().await;
}

#[tokio::test]
async fn who_has_signed_out_of_all_namespaces_does_not_stay() {
    let siege = Siege::begin().await;
    let attacker = siege.scene.attacker();
    let auth = json!({ "token": attacker.token() });
    let leaves = async |by: usize| {
        if by == 0 {
            let (poller, _) = Poller::signed_in(siege.url(), &attacker.token()).await;
            poller.says("41").await;
            until_true("the session has ended", async || poller.hears().await.status == 400).await;
        } else {
            let mut socket = RawSocket::signed_in(siege.url(), &auth).await;
            socket.send("41").await;
            while socket.frame().await.is_some() {}
        }
    };
    // Who is in another one, or comes back in time, does.
    let stays = async || {
        let mut socket = RawSocket::signed_in(siege.url(), &auth).await;
        for packets in [
            [format!("40/notifications,{auth}"), "41".to_owned()],
            [format!("40{auth}"), "41/notifications,".to_owned()],
        ] {
            for packet in packets {
                socket.send(&packet).await;
            }
            sleep(4 * SECOND).await;
        }
        socket.send(r#"427["notification:list"]"#).await;
        while !socket.frame().await.expect("it is open").starts_with("437[") {}
    };
    let all = join_all((0..AT_ONCE).map(|number| leaves(number % 2)));
    siege.bear(async { tokio::join!(all, stays()) }).await;
    siege.leaves_nothing().await;
}
