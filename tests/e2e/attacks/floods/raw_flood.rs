//! Connections of an attacker, byte by byte.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::Notify;
use tokio::time::sleep;

/// The source address of attackers. It differs from the bystander's, so that limits per address apply to
/// attackers only.
pub(super) const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

// Flag and opcodes in the first byte of a WebSocket frame (RFC 6455, section 5.2).
pub(super) const FINAL: u8 = 0x80;
pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const PING: u8 = 0x9;

/// The bytes that one connection of a flood sends.
#[derive(Clone)]
pub(super) struct RawFlood {
    pub(super) prelude: Prelude,
    /// Sent once, after the prelude.
    pub(super) first: Vec<u8>,
    /// Sent again and again after `first`.
    pub(super) repeated: Vec<u8>,
    /// The pause before each repetition.
    pub(super) interval: Duration,
}

/// The beginning of the connection, before the flood.
#[derive(Clone)]
pub(super) enum Prelude {
    Nothing,
    /// Opens a WebSocket and does not sign in.
    WebSocket,
    /// Opens a WebSocket and signs in with this token.
    SignIn(String),
}

impl Prelude {
    fn request(&self) -> Vec<u8> {
        match self {
            Self::Nothing => vec![],
            Self::WebSocket => upgrade_request(),
            Self::SignIn(token) => {
                let connect = text(&format!("40{}", json!({ "token": token })));
                [upgrade_request(), connect].concat()
            }
        }
    }

    /// A part of the server's answer to the [`request`](Self::request).
    pub(super) fn answer(&self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::WebSocket => r#"0{"sid""#,
            Self::SignIn(_) => r#"40{"sid""#,
        }
    }
}

impl RawFlood {
    /// Sends until the server closes the connection, and returns everything that the server has sent.
    pub(super) async fn run(self, from: Ipv4Addr, to: SocketAddr) -> String {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let (mut reader, mut writer) = socket.connect(to).await.unwrap().into_split();
        let (mut received, prelude_done) = (Vec::new(), Notify::new());
        let send = async {
            let _: io::Result<()> = async {
                writer.write_all(&self.prelude.request()).await?;
                prelude_done.notified().await;
                writer.write_all(&self.first).await?;
                loop {
                    sleep(self.interval).await;
                    writer.write_all(&self.repeated).await?;
                }
            }
            .await;
            // A write has failed. The reader decides when the connection is closed.
            std::future::pending::<()>().await;
        };
        let receive = async {
            while !String::from_utf8_lossy(&received).contains(self.prelude.answer()) {
                match reader.read_buf(&mut received).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return,
                }
            }
            prelude_done.notify_one();
            // A reset counts as an end, too.
            drop(reader.read_to_end(&mut received).await);
        };
        tokio::select! {
            () = receive => {}
            () = send => {}
        }
        String::from_utf8_lossy(&received).into_owned()
    }
}

pub(super) fn upgrade_request() -> Vec<u8> {
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n\
      upgrade: websocket\r\nsec-websocket-version: 13\r\n\
      sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec()
}

/// The header of a masked frame (RFC 6455, section 5.2) that announces this length. The mask is zero, so
/// that the payload stays readable.
pub(super) fn frame_header(kind: u8, length: u64) -> Vec<u8> {
    // The mask bit, and 127: the length follows in eight bytes.
    let mut header = vec![kind, 0x80 | 127];
    header.extend(length.to_be_bytes());
    header.extend([0; 4]);
    header
}

pub(super) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [frame_header(kind, payload.len() as u64), payload.to_vec()].concat()
}

pub(super) fn text(text: &str) -> Vec<u8> {
    frame(FINAL | TEXT, text.as_bytes())
}
