//! Clients that misbehave, against a server that this tool has started.

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
use crate::websocket::Socket;

pub(crate) use inbox::Inbox;

/// How to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// 5,000 connections that send half of a request's head and no more
    HalfOpen,
    /// 1,000 connections that send a request's head byte by byte
    SlowSenders,
    /// 1,000 websockets that never sign in, opened again when they are closed
    NeverSignIn,
    /// 100 requests with bodies that do not end, to the polling transport
    EndlessBodies,
    /// 20 websockets that send frames of 16 MB
    GiantFrames,
    /// 50 clients that sign in with bad tokens, over and over
    BadTokens,
    /// One signed-in device that sends messages as fast as it can
    MessageFlood,
    /// 60 websockets of one user that ask for pages of a full inbox, 20 a second each, and never read
    SlowReaders,
    /// 100 websockets of one user that ask for replays, pages and changes of a full inbox, 40 a second each, and
    /// read
    GreedyReaders,
    /// 60 polling sessions of one user that ask for pages of a full inbox, 20 a second each, and never poll
    SilentPollers,
    /// 40 websockets of one user that ask for a replay of a full inbox when they connect, and never read
    SlowReplays,
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl Attack {
    /// Whether it takes no more of a server than that it accepts connections.
    pub(crate) fn needs_no_answer(self) -> bool {
        matches!(self, Self::HalfOpen | Self::SlowSenders)
    }

    /// Whether it asks for what is in an inbox, so that the server needs a store.
    pub(crate) fn needs_inbox(self) -> bool {
        matches!(
            self,
            Self::SlowReaders | Self::GreedyReaders | Self::SilentPollers | Self::SlowReplays
        )
    }

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

/// Who is attacked, and a token that is good there.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) server: SocketAddr,
    pub(crate) token: String,
    /// The inbox of the token's user; empty where the attack does not need one.
    pub(crate) inbox: Inbox,
}

/// Attackers at work. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Attackers {
    attempts: Arc<Attempts>,
    _thread: OwnThread,
}

#[derive(Debug, Default)]
struct Attempts {
    done: AtomicU64,
    refused: AtomicU64,
}

impl Attackers {
    /// Ends it: what was done, and how often the server ended it or did not let it in.
    pub(crate) fn end(self) -> (u64, u64) {
        (self.attempts.done.load(Relaxed), self.attempts.refused.load(Relaxed))
    }
}

/// Sets attackers on the server, on a thread of their own.
pub(crate) fn begin(attack: Attack, target: Target) -> anyhow::Result<Attackers> {
    let attackers = attack.attackers();
    allow_files(attackers + 8_000)?;
    let attempts = Arc::new(Attempts::default());
    let shared = Arc::clone(&attempts);
    let thread = OwnThread::start_aside("attackers".to_owned(), move || {
        for number in 0..attackers {
            tokio::spawn(again_and_again(attack, target.clone(), number, Arc::clone(&shared)));
        }
        std::future::pending()
    })?;
    Ok(Attackers { attempts, _thread: thread })
}

async fn again_and_again(attack: Attack, target: Target, number: u64, attempts: Arc<Attempts>) {
    let [.., third, fourth] = (1 + number % 250).to_be_bytes();
    let device = Device {
        server: target.server,
        // Apart from those that behave.
        from: Ipv4Addr::new(127, 9, third, fourth),
        token: target.token.as_str().into(),
    };
    loop {
        let ended = match attack {
            Attack::HalfOpen => half_open(&device, &attempts).await,
            Attack::SlowSenders => slowly(&device, &attempts).await,
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
        // One of them alone shall not keep the tool's own core busy.
        sleep(Duration::from_millis(10)).await;
    }
}

impl Attempts {
    fn one(&self) {
        self.done.fetch_add(1, Relaxed);
    }
}

/// Signs in on a WebSocket on which nothing was sent yet.
async fn signed_in(mut socket: Socket, device: &Device) -> io::Result<Socket> {
    socket.say(device.connect_packet().as_bytes()).await?;
    while !socket.texts().await?.iter().any(|text| text.starts_with(b"40")) {}
    Ok(socket)
}

const HEAD: &str =
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: example.org\r\nX-A: ";

async fn half_open(device: &Device, attempts: &Attempts) -> io::Result<()> {
    let mut stream = device.connect().await?;
    stream.write_all(HEAD.as_bytes()).await?;
    attempts.one();
    // Until the server has enough of it.
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn slowly(device: &Device, attempts: &Attempts) -> io::Result<()> {
    let mut stream = device.connect().await?;
    for byte in HEAD.bytes().chain(std::iter::repeat(b'a')) {
        stream.write_all(&[byte]).await?;
        attempts.one();
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn never_sign_in(device: &Device, attempts: &Attempts) -> io::Result<()> {
    let mut socket = device.upgrade().await?;
    attempts.one();
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
    let sid = sid.ok_or_else(|| io::Error::other("not let in"))?.to_owned();
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
        attempts.one();
        sleep(Duration::from_millis(50)).await;
    }
}

async fn giant_frames(device: &Device, attempts: &Attempts) -> io::Result<()> {
    const LENGTH: u64 = 16 << 20;

    let mut socket = device.upgrade().await?;
    let mut head = vec![0x81, 0xff];
    head.extend(LENGTH.to_be_bytes());
    head.extend([0; 4]);
    socket.say_raw(&head).await?;
    let part = vec![b'a'; 64 * 1024];
    for _ in 0..LENGTH / (64 * 1024) {
        socket.say_raw(&part).await?;
        attempts.one();
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn bad_token(device: &Device, attempts: &Attempts) -> io::Result<()> {
    let mut socket = device.upgrade().await?;
    let (good, _) = device.token.rsplit_once('.').expect("it is a JWT");
    socket.say(format!(r#"40{{"token":"{good}.{}"}}"#, "A".repeat(43)).as_bytes()).await?;
    attempts.one();
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
        socket.say_raw(&many).await?;
        attempts.done.fetch_add(AT_ONCE, Relaxed);
        // What comes back is read away, or the server would only see a device that does not read.
        while let Ok(heard) = timeout(Duration::from_micros(500), socket.texts()).await {
            heard?;
        }
    }
}
