//! The session of one connection, from its HTTP request to its end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::Hub;
use crate::frames::{self, Frame};
use crate::heartbeat::PING_INTERVAL;
use crate::socket::Socket;

/// The maximal length of a request's head in bytes.
const MAX_HEAD: usize = 16 * 1024;

pub(crate) async fn run(mut stream: TcpStream, hub: Arc<Hub>) {
    // The future is boxed, so that its memory is freed before the session starts.
    let Ok(Some(received)) = Box::pin(upgrade(&mut stream)).await else { return };
    let mut session = Session { hub, socket: Socket::new(stream), received, user: None };
    session.hub.heartbeat.add(&session.socket);
    session.listen().await;
    if let Some(user) = &session.user {
        session.hub.users.leave(user, &session.socket);
    }
    // Closes the connection even while another task still has a reference to the socket.
    session.socket.abort();
}

/// Answers the upgrade request. Returns the bytes that follow the request; `None` if it is not a valid upgrade.
async fn upgrade(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    stream.set_nodelay(true)?;
    let mut received = Vec::with_capacity(1024);
    let end = loop {
        if received.len() > MAX_HEAD || stream.read_buf(&mut received).await? == 0 {
            return Ok(None);
        }
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let Some(key) = websocket_key(&received[..end]) else {
        let rejection =
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(rejection.as_bytes()).await?;
        return Ok(None);
    };
    let accept = derive_accept_key(key.as_bytes());
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\n\r\n"
    )
    .into_bytes();
    let interval = PING_INTERVAL.as_millis();
    let open = format!(
        r#"0{{"sid":"{}","upgrades":[],"pingInterval":{interval},"pingTimeout":20000,"maxPayload":65535}}"#,
        new_sid()
    );
    frames::text(&mut answer, &[&open]);
    stream.write_all(&answer).await?;
    Ok(Some(received.split_off(end)))
}

fn websocket_key(head: &[u8]) -> Option<&str> {
    let mut lines = str::from_utf8(head).ok()?.lines();
    lines.next()?.strip_prefix("GET /socket.io/")?;
    lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .map(|(_, key)| key.trim())
}

/// A session id. Ids only have to be unique, because no request refers to a session by its id.
fn new_sid() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{:020x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

struct Session {
    hub: Arc<Hub>,
    socket: Arc<Socket>,
    /// The bytes of an incomplete frame.
    received: Vec<u8>,
    /// `None` before the client has signed in.
    user: Option<Box<str>>,
}

/// The session has ended.
struct Ended;

impl Session {
    async fn listen(&mut self) {
        while self.handle_frames().is_ok() && self.socket.stream.readable().await.is_ok() {
            // The buffer is on the stack and does not live while the task waits, so an idle connection has none.
            let mut buffer = [0; 4096];
            match self.socket.stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => self.received.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    fn handle_frames(&mut self) -> Result<(), Ended> {
        while let Some(Frame { opcode, payload }) =
            Frame::take(&mut self.received).map_err(|_| Ended)?
        {
            match opcode {
                frames::TEXT => self.handle_packet(&payload)?,
                frames::PING => self.answer(frames::PONG, &payload),
                frames::PONG => {}
                frames::CLOSE => return Err(self.close(&payload)),
                _ => return Err(Ended),
            }
        }
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        Ok(())
    }

    /// An Engine.IO packet: a pong, or a message with a Socket.IO packet in it.
    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), Ended> {
        match packet {
            b"3" => self.socket.pong(),
            [b'4', b'0', auth @ ..] if self.user.is_none() => self.sign_in(auth)?,
            [b'4', b'2', ..] => {}
            _ => return Err(self.close(&[])),
        }
        Ok(())
    }

    fn sign_in(&mut self, auth: &[u8]) -> Result<(), Ended> {
        let mut answer = Vec::new();
        let Some(user) = subject(auth) else {
            frames::text(&mut answer, &[r#"44{"message":"token_invalid"}"#]);
            self.socket.send(&answer);
            return Err(self.close(&[]));
        };
        // The response is sent before the socket joins its room, so that events follow it.
        frames::text(&mut answer, &[r#"40{"sid":""#, &new_sid(), r#""}"#]);
        self.socket.send(&answer);
        self.hub.users.join(&user, Arc::clone(&self.socket));
        self.user = Some(user);
        Ok(())
    }

    fn close(&self, payload: &[u8]) -> Ended {
        self.answer(frames::CLOSE, payload);
        Ended
    }

    fn answer(&self, opcode: u8, payload: &[u8]) {
        let mut answer = Vec::new();
        frames::control(&mut answer, opcode, payload);
        self.socket.send(&answer);
    }
}

/// The token's `sub`, without verification.
fn subject(auth: &[u8]) -> Option<Box<str>> {
    #[derive(Deserialize)]
    struct Auth<'a> {
        token: &'a str,
    }
    #[derive(Deserialize)]
    struct Claims {
        sub: Box<str>,
    }
    let Auth { token } = serde_json::from_slice(auth).ok()?;
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok().map(|Claims { sub }| sub)
}
