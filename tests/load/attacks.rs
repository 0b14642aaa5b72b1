//! Clients that misbehave, against a server that this tool started.

mod inbox;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use clap::ValueEnum;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::device::Device;
use crate::fleet::allow_files;
use crate::own_thread::OwnThread;
use crate::websocket::WebSocket;

pub(crate) use inbox::Inbox;

/// A kind of misbehaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// 5,000 connections that send half of a request's head
    HalfOpen,
    /// 1,000 connections that send a request's head byte by byte
    SlowSenders,
    /// 1,000 websockets that never sign in and reconnect when they are closed
    NeverSignIn,
    /// 100 requests with endless bodies, to the polling transport
    EndlessBodies,
    /// 20 websockets that send frames of 16 MB
    GiantFrames,
    /// 50 clients that repeatedly sign in with invalid tokens
    BadTokens,
    /// One signed-in device that sends messages as fast as it can
    MessageFlood,
    /// 60 websockets of one user that request pages of a full inbox, 20 a second each, and never read
    SlowReaders,
    /// 100 websockets of one user that request replays, pages and changes of a full inbox, 40 a second each, and
    /// read
    GreedyReaders,
    /// 60 polling sessions of one user that request pages of a full inbox, 20 a second each, and never poll
    SilentPollers,
    /// 40 websockets of one user that request a replay of a full inbox when they connect, and never read
    SlowReplays,
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl Attack {
    /// True if the attack only needs connections that are accepted, and no responses.
    pub(crate) fn needs_no_answer(self) -> bool {
        matches!(self, Self::HalfOpen | Self::SlowSenders)
    }

    /// True if the attack reads an inbox, so that the server needs a store.
    pub(crate) fn needs_inbox(self) -> bool {
        matches!(
            self,
            Self::SlowReaders | Self::GreedyReaders | Self::SilentPollers | Self::SlowReplays
        )
    }

    /// The number of attackers, each with one connection at a time.
    pub(crate) fn attackers(self) -> u64 {
        match self {
            Self::HalfOpen => 5_000,
            Self::SlowSenders | Self::NeverSignIn => 1_000,
            Self::EndlessBodies | Self::GreedyReaders => 100,
            Self::SlowReaders | Self::SilentPollers => 60,
            Self::BadTokens => 50,
            Self::SlowReplays => 40,
            Self::GiantFrames => 20,
            Self::MessageFlood => 1,
        }
    }
}

/// The server under attack, and a valid token for it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) server: SocketAddr,
    pub(crate) token: String,
    /// The inbox of the token's user; empty if the attack does not need one.
    pub(crate) inbox: Inbox,
}

/// Running attackers. Dropping this stops them.
#[derive(Debug)]
pub(crate) struct Attackers {
    attempts: Arc<Attempts>,
    _thread: OwnThread,
}

#[derive(Debug, Default)]
struct Attempts {
    /// Connections opened, or messages or parts of a request sent.
    done: AtomicU64,
    /// Connections that the server closed or rejected.
    refused: AtomicU64,
}

impl Attackers {
    /// Stops the attack. Returns the number of attempts, and how often the server closed or rejected a connection.
    pub(crate) fn stop(self) -> (u64, u64) {
        (self.attempts.done.load(Relaxed), self.attempts.refused.load(Relaxed))
    }
}

/// Starts the attackers on a thread of their own.
pub(crate) fn start(attack: Attack, target: Target) -> anyhow::Result<Attackers> {
    let attackers = attack.attackers();
    allow_files(attackers + 8_000)?;
    let attempts = Arc::new(Attempts::default());
    let shared = Arc::clone(&attempts);
    let thread = OwnThread::start_yielding("attackers".to_owned(), move || {
        for number in 0..attackers {
            tokio::spawn(attack_repeatedly(attack, target.clone(), number, Arc::clone(&shared)));
        }
        std::future::pending()
    })?;
    Ok(Attackers { attempts, _thread: thread })
}

async fn attack_repeatedly(attack: Attack, target: Target, number: u64, attempts: Arc<Attempts>) {
    let [.., third, fourth] = (1 + number % 250).to_be_bytes();
    let device = Device {
        server: target.server,
        // Well-behaved clients use the addresses from 127.0.0.2 on.
        from: Ipv4Addr::new(127, 9, third, fourth),
        token: target.token.as_str().into(),
    };
    loop {
        let ended = match attack {
            Attack::HalfOpen => half_open(&device, &attempts).await,
            Attack::SlowSenders => slow_sender(&device, &attempts).await,
            Attack::NeverSignIn => never_sign_in(&device, &attempts).await,
            Attack::EndlessBodies => endless_body(&device, &attempts).await,
            Attack::GiantFrames => giant_frames(&device, &attempts).await,
            Attack::BadTokens => bad_token(&device, &attempts).await,
            Attack::MessageFlood => flood(&device, &attempts).await,
            Attack::SlowReaders => inbox::slow_reader(&device, &attempts).await,
            Attack::GreedyReaders => inbox::greedy_reader(&device, &target.inbox, &attempts).await,
            Attack::SilentPollers => inbox::silent_poller(&device, &attempts).await,
            Attack::SlowReplays => inbox::slow_replay(&device, &target.inbox, &attempts).await,
        };
        if ended.is_err() {
            attempts.refused.fetch_add(1, Relaxed);
        }
        // Without this pause, an attacker whose attempts fail at once would occupy a core.
        sleep(Duration::from_millis(10)).await;
    }
}

impl Attempts {
    fn record(&self) {
        self.done.fetch_add(1, Relaxed);
    }
}

/// Signs in on a new WebSocket.
async fn signed_in(mut socket: WebSocket, device: &Device) -> io::Result<WebSocket> {
    socket.send_text(device.connect_packet().as_bytes()).await?;
    while !socket.texts().await?.iter().any(|text| text.starts_with(b"40")) {}
    Ok(socket)
}

/// An incomplete head of a request.
const HEAD: &str =
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: example.org\r\nX-A: ";

async fn half_open(device: &Device, attempts: &Attempts) -> io::Result<()> {
    let mut stream = device.connect().await?;
    stream.write_all(HEAD.as_bytes()).await?;
    attempts.record();
    // Waits until the server closes the connection.
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn slow_sender(device: &Device, attempts: &Attempts) -> io::Result<()> {
    let mut stream = device.connect().await?;
    for byte in HEAD.bytes().chain(std::iter::repeat(b'a')) {
        stream.write_all(&[byte]).await?;
        attempts.record();
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn never_sign_in(device: &Device, attempts: &Attempts) -> io::Result<()> {
    let mut socket = device.upgrade().await?;
    attempts.record();
    while !socket.texts().await?.is_empty() {}
    Ok(())
}

async fn endless_body(device: &Device, attempts: &Attempts) -> io::Result<()> {
    const CHUNK: [u8; 16 * 1024] = [b'a'; 16 * 1024];

    let mut stream = device.connect().await?;
    let open = format!(
        "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: {}\r\n\r\n",
        device.server
    );
    stream.write_all(open.as_bytes()).await?;
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    let sid = answer.split("\"sid\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let sid = sid.ok_or_else(|| io::Error::other("no session was opened"))?.to_owned();
    let post = format!(
        "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        device.server
    );
    stream.write_all(post.as_bytes()).await?;
    loop {
        stream.write_all(format!("{:x}\r\n", CHUNK.len()).as_bytes()).await?;
        stream.write_all(&CHUNK).await?;
        stream.write_all(b"\r\n").await?;
        attempts.record();
        sleep(Duration::from_millis(50)).await;
    }
}

async fn giant_frames(device: &Device, attempts: &Attempts) -> io::Result<()> {
    const LENGTH: u64 = 16 << 20;

    let mut socket = device.upgrade().await?;
    // A text frame that is final and masked, with a length of 64 bits and a mask of zeros.
    let mut head = vec![0x81, 0xff];
    head.extend(LENGTH.to_be_bytes());
    head.extend([0; 4]);
    socket.send_raw(&head).await?;
    let part = vec![b'a'; 64 * 1024];
    for _ in 0..LENGTH / (64 * 1024) {
        socket.send_raw(&part).await?;
        attempts.record();
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn bad_token(device: &Device, attempts: &Attempts) -> io::Result<()> {
    let mut socket = device.upgrade().await?;
    // The header and the claims of a valid token, with a wrong signature.
    let (unsigned, _) = device.token.rsplit_once('.').expect("the token is a JWT");
    let auth = format!(r#"{{"token":"{unsigned}.{}"}}"#, "A".repeat(43));
    socket.send_text(format!("40{auth}").as_bytes()).await?;
    attempts.record();
    // `44` is the packet that rejects the connect.
    let refused = async {
        loop {
            if socket.texts().await?.iter().any(|text| text.starts_with(b"44")) {
                return Ok(());
            }
        }
    };
    timeout(Duration::from_secs(5), refused).await?
}

async fn flood(device: &Device, attempts: &Attempts) -> io::Result<()> {
    const AT_ONCE: u64 = 64;

    let mut socket = signed_in(device.upgrade().await?, device).await?;
    let mut many = Vec::new();
    for _ in 0..AT_ONCE {
        crate::frames::write_text(&mut many, br#"421["notification:unread_count"]"#);
    }
    loop {
        socket.send_raw(&many).await?;
        attempts.done.fetch_add(AT_ONCE, Relaxed);
        // Without reading the responses, the attack would be that of a slow consumer.
        while let Ok(received) = timeout(Duration::from_micros(500), socket.texts()).await {
            received?;
        }
    }
}
