//! One client: a Socket.IO connection over a WebSocket, as lean as it can be, because it shares the
//! machine with what it measures.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use crate::clock;
use crate::frames::{self, Frame};
use crate::packets::{self, Packet};
use crate::tally::{Counters, Heard};

/// How long one may take to be signed in.
const PATIENCE: Duration = Duration::from_secs(20);

/// What browsers send, about 600 bytes: parsing it is a part of what a connection costs.
const BROWSER: &str = "Connection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/143.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de-DE;q=0.8,de;q=0.7\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

thread_local! {
    /// One buffer for all connections of a thread: only one of them reads at a time.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; 256 * 1024].into());
}

/// What a client needs to connect.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) server: SocketAddr,
    /// An address of this machine: one has no more than some 28,000 ports for one server.
    pub(crate) from: Ipv4Addr,
    pub(crate) token: Arc<str>,
}

/// Where it puts what it hears.
#[derive(Debug, Clone)]
pub(crate) struct Ears {
    pub(crate) counters: Arc<Counters>,
    pub(crate) heard: Arc<Mutex<Heard>>,
}

/// A signed-in connection.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// An unfinished frame; almost always there is none.
    rest: Vec<u8>,
}

/// What a batch of frames asks of the client.
#[derive(Debug, Default)]
struct Demand {
    answers: Vec<u8>,
    open: bool,
    signed_in: bool,
    end: bool,
}

impl Device {
    /// Connects, upgrades and signs in.
    pub(crate) async fn sign_in(&self, ears: &Ears) -> io::Result<Socket> {
        ears.counters.tries.fetch_add(1, Relaxed);
        let signed_in = timeout(PATIENCE, self.try_sign_in(ears)).await;
        let signed_in = signed_in.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        match &signed_in {
            Ok(_) => ears.counters.came(),
            Err(why) => ears.counters.failed(why),
        }
        signed_in
    }

    async fn try_sign_in(&self, ears: &Ears) -> io::Result<Socket> {
        let mut socket = self.upgrade().await?;
        loop {
            let demand = socket.hear(ears).await?;
            if demand.open {
                let connect = format!(r#"40{{"token":"{}"}}"#, self.token);
                socket.say(connect.as_bytes()).await?;
            }
            if demand.end {
                return Err(io::Error::other("it was not let into the namespace"));
            }
            socket.stream.write_all(&demand.answers).await?;
            if demand.signed_in {
                return Ok(socket);
            }
        }
    }

    /// A TCP connection from its address.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let stream = socket.connect(self.server).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A WebSocket on which nothing was said yet.
    pub(crate) async fn upgrade(&self) -> io::Result<Socket> {
        let mut stream = self.connect().await?;
        let path = "/socket.io/?EIO=4&transport=websocket";
        // A page of the server's own: others would have to be allowed.
        let host = self.server;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n{BROWSER}\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(512);
        let head = loop {
            if stream.read_buf(&mut answer).await? == 0 || answer.len() > 16 * 1024 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = memchr::memmem::find(&answer, b"\r\n\r\n") {
                break end + 4;
            }
        };
        if !answer.starts_with(b"HTTP/1.1 101") {
            let said = String::from_utf8_lossy(&answer);
            return Err(io::Error::other(said.lines().next().unwrap_or_default().to_owned()));
        }
        Ok(Socket { stream, rest: answer.split_off(head) })
    }
}

impl Socket {
    /// Listens until the server ends it.
    pub(crate) async fn listen(&mut self, ears: &Ears) -> io::Result<()> {
        loop {
            let demand = self.hear(ears).await?;
            if demand.end {
                return Ok(());
            }
            if !demand.answers.is_empty() {
                self.stream.write_all(&demand.answers).await?;
            }
        }
    }

    /// Listens so long; `true` if it is still connected then.
    pub(crate) async fn listen_for(&mut self, time: Duration, ears: &Ears) -> bool {
        timeout_at(Instant::now() + time, self.listen(ears)).await.is_err()
    }

    /// Says that it leaves, and leaves.
    pub(crate) async fn leave(mut self) {
        if self.say(b"41").await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }

    /// Sends a text frame.
    pub(crate) async fn say(&mut self, text: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(text.len() + 14);
        frames::write_text(&mut frame, text);
        self.stream.write_all(&frame).await
    }

    /// Sends bytes as they are.
    pub(crate) async fn say_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The texts that come next, pings aside; fails when the server has ended it.
    pub(crate) async fn texts(&mut self) -> io::Result<Vec<Vec<u8>>> {
        loop {
            let (mut texts, mut ping, mut end) = (Vec::new(), false, false);
            let used = frames::each(&self.rest, |frame| match frame {
                Frame::Text(b"2") => ping = true,
                Frame::Text(text) => texts.push(text.to_vec()),
                Frame::Close => end = true,
                Frame::Ping(_) | Frame::Other => {}
            });
            let used = used.map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
            self.rest.drain(..used);
            if ping {
                self.say(b"3").await?;
            }
            match (texts.is_empty(), end) {
                (false, _) => return Ok(texts),
                (true, true) => return Err(ErrorKind::ConnectionAborted.into()),
                (true, false) => {}
            }
            if self.stream.read_buf(&mut self.rest).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Waits for bytes and makes of them what they mean.
    async fn hear(&mut self, ears: &Ears) -> io::Result<Demand> {
        if !self.rest.is_empty() {
            // What came with the answer to the upgrade.
            let rest = std::mem::take(&mut self.rest);
            let demand = self.understand(&rest, ears)?;
            if demand.open || demand.signed_in || demand.end {
                return Ok(demand);
            }
        }
        poll_fn(|context| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
                if read.filled().is_empty() {
                    return Poll::Ready(Ok(Demand { end: true, ..Demand::default() }));
                }
                Poll::Ready(self.understand(read.filled(), ears))
            })
        })
        .await
    }

    fn understand(&mut self, bytes: &[u8], ears: &Ears) -> io::Result<Demand> {
        let mut demand = Demand::default();
        let used = if self.rest.is_empty() {
            let used = react(bytes, &mut demand, ears)?;
            self.rest.extend_from_slice(&bytes[used..]);
            return Ok(demand);
        } else {
            self.rest.extend_from_slice(bytes);
            react(&self.rest, &mut demand, ears)?
        };
        if used == self.rest.len() {
            // Its memory too: most connections never need it again.
            self.rest = Vec::new();
        } else {
            self.rest.drain(..used);
        }
        Ok(demand)
    }
}

fn react(bytes: &[u8], demand: &mut Demand, ears: &Ears) -> io::Result<usize> {
    let read_at = clock::now();
    frames::each(bytes, |frame| match frame {
        Frame::Text(text) => match packets::read(text) {
            Packet::New(stamp) => {
                ears.counters.new.fetch_add(1, Relaxed);
                if let Some(stamp) = stamp {
                    let mut heard = ears.heard.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.event(stamp, read_at);
                }
            }
            Packet::UnreadCount => {
                ears.counters.unread.fetch_add(1, Relaxed);
            }
            Packet::Ping => frames::write_text(&mut demand.answers, b"3"),
            Packet::Open => demand.open = true,
            Packet::SignedIn => demand.signed_in = true,
            Packet::Refused | Packet::Left => demand.end = true,
            Packet::Other => {}
        },
        Frame::Ping(payload) => frames::write_pong(&mut demand.answers, payload),
        Frame::Close => demand.end = true,
        Frame::Other => {}
    })
    .map_err(|_| ErrorKind::InvalidData.into())
}
