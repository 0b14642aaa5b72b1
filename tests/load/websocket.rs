//! A client that speaks over a WebSocket.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::clock;
use crate::device::{Device, Ears};
use crate::frames::{self, Frame};
use crate::incoming;
use crate::packets::Packet;

/// What browsers send, about 600 bytes: parsing it is a part of what a connection costs.
const BROWSER: &str = "Connection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/143.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de-DE;q=0.8,de;q=0.7\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// A WebSocket.
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
    /// A WebSocket on which nothing was said yet.
    pub(crate) async fn upgrade(&self) -> io::Result<Socket> {
        self.upgrade_on(self.connect().await?).await
    }

    /// The same on a connection to the server.
    pub(crate) async fn upgrade_on(&self, mut stream: TcpStream) -> io::Result<Socket> {
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
    /// Connects, upgrades and signs in.
    pub(crate) async fn sign_in(device: &Device, ears: &Ears) -> io::Result<Self> {
        let mut socket = device.upgrade().await?;
        loop {
            let demand = socket.hear(ears).await?;
            if demand.open {
                socket.say(device.connect_packet().as_bytes()).await?;
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

    /// Both directions of its TCP connection, for a client that reads while it waits to write.
    pub(crate) fn halves(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        self.stream.split()
    }

    /// Waits for bytes and makes of them what they mean.
    async fn hear(&mut self, ears: &Ears) -> io::Result<Demand> {
        let mut demand = Demand::default();
        if !self.rest.is_empty() {
            // What came with the answer to the upgrade.
            let rest = std::mem::take(&mut self.rest);
            incoming::parse_after(&mut self.rest, &rest, |bytes| react(bytes, &mut demand, ears))?;
            if demand.open || demand.signed_in || demand.end {
                return Ok(demand);
            }
        }
        let parse = |bytes: &[u8]| react(bytes, &mut demand, ears);
        incoming::read(&mut self.stream, &mut self.rest, parse).await?;
        Ok(demand)
    }
}

fn react(bytes: &[u8], demand: &mut Demand, ears: &Ears) -> io::Result<usize> {
    let read_at = clock::now();
    frames::each(bytes, |frame| match frame {
        Frame::Text(text) => match ears.receive(text, read_at) {
            Packet::Ping => frames::write_text(&mut demand.answers, b"3"),
            Packet::Open => demand.open = true,
            Packet::SignedIn => demand.signed_in = true,
            Packet::Refused | Packet::Left => demand.end = true,
            Packet::New(_) | Packet::UnreadCount | Packet::Other => {}
        },
        Frame::Ping(payload) => frames::write_pong(&mut demand.answers, payload),
        Frame::Close => demand.end = true,
        Frame::Other => {}
    })
    .map_err(|_| ErrorKind::InvalidData.into())
}
