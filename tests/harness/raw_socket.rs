//! A WebSocket to the Socket.IO endpoint, frame by frame. A test sends frames that no client library would
//! send, and reads frames that a client library would hide.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async};

use crate::wait::PATIENCE;

/// An open WebSocket. Engine.IO pings are answered while [`frame`](Self::frame) waits.
#[derive(Debug)]
pub struct RawSocket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl RawSocket {
    /// Opens a WebSocket and reads the Engine.IO OPEN packet, which starts with `0`.
    ///
    /// # Panics
    /// When the upgrade is refused.
    pub async fn open(url: &str) -> Self {
        let mut socket = Self::upgrade(url, "").await.expect("the upgrade is accepted");
        let open = socket.frame().await.expect("an OPEN packet");
        assert!(open.starts_with('0'), "{open}");
        socket
    }

    /// Opens a WebSocket with `query` added to the URL; `None` if the server refuses the upgrade.
    ///
    /// # Panics
    /// When the TCP connection is refused.
    pub async fn upgrade(url: &str, query: &str) -> Option<Self> {
        let address = url.strip_prefix("http://").expect("a URL without TLS");
        let stream = TcpStream::connect(address).await.expect("it listens");
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket{query}");
        let (socket, _) = client_async(url, MaybeTlsStream::Plain(stream)).await.ok()?;
        Some(Self(socket))
    }

    /// Opens a WebSocket, connects to the default namespace, and waits for `notification:sync` and the unread
    /// count after it.
    ///
    /// # Panics
    /// When it is rejected.
    pub async fn signed_in(url: &str, auth: &Value) -> Self {
        let mut socket = Self::open(url).await;
        // Engine.IO MESSAGE (4), Socket.IO CONNECT (0).
        socket.send(&format!("40{auth}")).await;
        for event in ["notification:sync", "notification:unread_count"] {
            while !socket.frame().await.expect("it is admitted").contains(event) {}
        }
        socket
    }

    /// Sends one text frame. If the server has closed the socket, nothing happens.
    pub async fn send(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    /// Sends any message. If the server has closed the socket, nothing happens.
    pub async fn send_message(&mut self, message: Message) {
        let _ = timeout(PATIENCE, self.0.send(message)).await;
    }

    /// Sends one frame without checks.
    pub async fn send_frame(&mut self, frame: Frame) {
        self.send_message(Message::Frame(frame)).await;
    }

    /// The next text frame that is not an Engine.IO ping; `None` when the server has closed the socket.
    ///
    /// # Panics
    /// When neither happens within [`PATIENCE`].
    pub async fn frame(&mut self) -> Option<String> {
        let next = async {
            loop {
                match self.0.next().await {
                    // PING (2) and its answer, PONG (3).
                    Some(Ok(Message::Text(text))) if text.as_str() == "2" => self.send("3").await,
                    Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(_)) => {}
                }
            }
        };
        timeout(PATIENCE, next).await.expect("a frame or the end")
    }
}
