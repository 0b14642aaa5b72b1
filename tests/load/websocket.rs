//! A WebSocket client.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::clock;
use crate::device::{Device, Recorder};
use crate::frames::{self, Frame};
use crate::incoming;
use crate::packets::Packet;

/// The headers of a browser, about 600 bytes: parsing them is part of the cost of a connection.
const BROWSER: &str = "Connection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/143.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de-DE;q=0.8,de;q=0.7\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// A WebSocket connection.
#[derive(Debug)]
pub(crate) struct WebSocket {
    stream: TcpStream,
    /// The bytes of an incomplete frame; almost always empty.
    unparsed: Vec<u8>,
}

/// The actions that received frames require.
#[derive(Debug, Default)]
struct Actions {
    replies: Vec<u8>,
    open: bool,
    signed_in: bool,
    end: bool,
}

impl Device {
    /// Connects and upgrades to a WebSocket.
    pub(crate) async fn upgrade(&self) -> io::Result<WebSocket> {
        self.upgrade_on(self.connect().await?).await
    }

    /// Upgrades an open connection to a WebSocket.
    pub(crate) async fn upgrade_on(&self, mut stream: TcpStream) -> io::Result<WebSocket> {
        let path = "/socket.io/?EIO=4&transport=websocket";
        // The server's own origin. Any other would have to be configured.
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
            let head = String::from_utf8_lossy(&answer);
            return Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()));
        }
        Ok(WebSocket { stream, unparsed: answer.split_off(head) })
    }
}

impl WebSocket {
    /// Connects, upgrades and signs in.
    pub(crate) async fn sign_in(device: &Device, recorder: &Recorder) -> io::Result<Self> {
        let mut socket = device.upgrade().await?;
        loop {
            let actions = socket.receive(recorder).await?;
            if actions.open {
                let packet = match &recorder.resume {
                    Some(resume) => device.resume_packet(resume),
                    None => device.connect_packet(),
                };
                socket.send_text(packet.as_bytes()).await?;
            }
            if actions.end {
                return Err(io::Error::other("connect to the namespace was rejected"));
            }
            socket.stream.write_all(&actions.replies).await?;
            if actions.signed_in {
                return Ok(socket);
            }
        }
    }

    /// Listens until the server closes the connection.
    pub(crate) async fn listen(&mut self, recorder: &Recorder) -> io::Result<()> {
        loop {
            let actions = self.receive(recorder).await?;
            if actions.end {
                return Ok(());
            }
            if !actions.replies.is_empty() {
                self.stream.write_all(&actions.replies).await?;
            }
        }
    }

    /// Disconnects from the namespace and closes the connection.
    pub(crate) async fn leave(mut self) {
        if self.send_text(b"41").await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }

    /// Sends a text frame.
    pub(crate) async fn send_text(&mut self, text: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(text.len() + 14);
        frames::write_text(&mut frame, text);
        self.stream.write_all(&frame).await
    }

    /// Sends raw bytes.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Waits for text frames and returns them. Answers Engine.IO pings, which are not returned. Fails when
    /// the server has closed the connection.
    pub(crate) async fn texts(&mut self) -> io::Result<Vec<Vec<u8>>> {
        loop {
            let (mut texts, mut ping, mut end) = (Vec::new(), false, false);
            let used = frames::read_all(&self.unparsed, |frame| match frame {
                Frame::Text(b"2") => ping = true,
                Frame::Text(text) => texts.push(text.to_vec()),
                Frame::Close => end = true,
                Frame::Ping(_) | Frame::Other => {}
            });
            let used = used.map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
            self.unparsed.drain(..used);
            if ping {
                self.send_text(b"3").await?;
            }
            match (texts.is_empty(), end) {
                (false, _) => return Ok(texts),
                (true, true) => return Err(ErrorKind::ConnectionAborted.into()),
                (true, false) => {}
            }
            if self.stream.read_buf(&mut self.unparsed).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The two halves of the TCP connection, for reading and writing concurrently.
    pub(crate) fn halves(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        self.stream.split()
    }

    /// Reads frames and records their packets.
    async fn receive(&mut self, recorder: &Recorder) -> io::Result<Actions> {
        let mut actions = Actions::default();
        if !self.unparsed.is_empty() {
            // Bytes that were received together with the response to the upgrade.
            let received = std::mem::take(&mut self.unparsed);
            incoming::parse_after(&mut self.unparsed, &received, |bytes| {
                handle_frames(bytes, &mut actions, recorder)
            })?;
            if actions.open || actions.signed_in || actions.end {
                return Ok(actions);
            }
        }
        let parse = |bytes: &[u8]| handle_frames(bytes, &mut actions, recorder);
        incoming::read(&mut self.stream, &mut self.unparsed, parse).await?;
        Ok(actions)
    }
}

fn handle_frames(bytes: &[u8], actions: &mut Actions, recorder: &Recorder) -> io::Result<usize> {
    let read_at = clock::now();
    frames::read_all(bytes, |frame| match frame {
        Frame::Text(text) => match recorder.record(text, read_at) {
            Packet::Ping => frames::write_text(&mut actions.replies, b"3"),
            Packet::Open => actions.open = true,
            Packet::SignedIn => actions.signed_in = true,
            Packet::ConnectError | Packet::Disconnected => actions.end = true,
            Packet::New(_) | Packet::UnreadCount | Packet::Other => {}
        },
        Frame::Ping(payload) => frames::write_pong(&mut actions.replies, payload),
        Frame::Close => actions.end = true,
        Frame::Other => {}
    })
    .map_err(|_| ErrorKind::InvalidData.into())
}
