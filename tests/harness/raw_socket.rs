//! A websocket to the Socket.IO door, spoken to in frames: what a client library would never send, and
//! what it would hide.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async};

use crate::wait::PATIENCE;

/// An open websocket. Pings of Engine.IO are answered, unless told otherwise.
#[derive(Debug)]
pub struct RawSocket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl RawSocket {
    /// Opens one and reads Engine.IO's own greeting.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn open(url: &str) -> Self {
        let mut socket = Self::upgrade(url, "").await.expect("it is let in");
        let open = socket.frame().await.expect("it is greeted");
        assert!(open.starts_with('0'), "{open}");
        socket
    }

    /// Asks for a websocket with that added to the query; `None` if it is refused.
    ///
    /// # Panics
    /// When nobody listens there.
    pub async fn upgrade(url: &str, query: &str) -> Option<Self> {
        let address = url.strip_prefix("http://").expect("a URL without TLS");
        let stream = TcpStream::connect(address).await.expect("it listens");
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket{query}");
        let (socket, _) = client_async(url, MaybeTlsStream::Plain(stream)).await.ok()?;
        Some(Self(socket))
    }

    /// Opens one and signs in to the default namespace, up to where the inbox stands.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn signed_in(url: &str, auth: &Value) -> Self {
        let mut socket = Self::open(url).await;
        socket.send(&format!("40{auth}")).await;
        while !socket.frame().await.expect("it is let in").contains("notification:sync") {}
        socket
    }

    /// Sends one text frame. A socket that the server has closed takes it, too.
    pub async fn send(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    /// Sends any message. A socket that the server has closed takes it, too.
    pub async fn send_message(&mut self, message: Message) {
        let _ = timeout(PATIENCE, self.0.send(message)).await;
    }

    /// Sends one frame as it is, whether it makes sense or not.
    pub async fn send_frame(&mut self, frame: Frame) {
        self.send_message(Message::Frame(frame)).await;
    }

    /// The next text that is not a ping; `None` when the server has closed the socket.
    ///
    /// # Panics
    /// When neither comes.
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
