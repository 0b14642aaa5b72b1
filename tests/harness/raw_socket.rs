//! A WebSocket to the Socket.IO endpoint, frame by frame: frames that a client library would never send or
//! would hide.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async};

use crate::wait::PATIENCE;

/// An open WebSocket. [`frame`](Self::frame) answers Engine.IO pings.
#[derive(Debug)]
pub struct RawSocket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl RawSocket {
    /// Opens one and reads the Engine.IO OPEN packet.
    ///
    /// # Panics
    /// When the upgrade is refused.
    pub async fn open(url: &str) -> Self {
        let mut socket = Self::upgrade(url, "").await.expect("the upgrade is accepted");
        let open = socket.frame().await.expect("an OPEN packet");
        assert!(open.starts_with('0'), "{open}");
        socket
    }

    /// Requests an upgrade with `query` added to the URL; `None` if it is refused.
    ///
    /// # Panics
    /// When the connection is refused.
    pub async fn upgrade(url: &str, query: &str) -> Option<Self> {
        let address = url.strip_prefix("http://").expect("a URL without TLS");
        let stream = TcpStream::connect(address).await.expect("it listens");
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket{query}");
        let (socket, _) = client_async(url, MaybeTlsStream::Plain(stream)).await.ok()?;
        Some(Self(socket))
    }

    /// Opens one, connects to the default namespace and waits for `notification:sync` and the count after it.
    ///
    /// # Panics
    /// When it is rejected.
    pub async fn signed_in(url: &str, auth: &Value) -> Self {
        let mut socket = Self::open(url).await;
        socket.send(&format!("40{auth}")).await;
        for event in ["notification:sync", "notification:unread_count"] {
            while !socket.frame().await.expect("it is admitted").contains(event) {}
        }
        socket
    }

    /// Sends one text frame. That the server has closed the socket is no error.
    pub async fn send(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    /// Sends any message. That the server has closed the socket is no error.
    pub async fn send_message(&mut self, message: Message) {
        let _ = timeout(PATIENCE, self.0.send(message)).await;
    }

    /// Sends one frame unchecked.
    pub async fn send_frame(&mut self, frame: Frame) {
        self.send_message(Message::Frame(frame)).await;
    }

    /// The next text that is not a ping; `None` when the server has closed the socket.
    ///
    /// # Panics
    /// When neither happens within [`PATIENCE`].
    pub async fn frame(&mut self) -> Option<String> {
        let next = async {
            loop {
                match self.0.next().await {
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
