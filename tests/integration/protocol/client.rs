//! Both transports of Engine.IO at packet level: a test sees each packet and can send packets that no client
//! library would send.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::peer::Peer;

/// How long a response may take. The machine may be busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Separates the packets of one HTTP body.
pub(super) const SEPARATOR: char = '\x1e';

// Engine.IO packets. The first character is the type; there are also `0` open, `4` message and `5` upgrade.
pub(super) const CLOSE: &str = "1";
const PING: &str = "2";
const PONG: &str = "3";
const NOOP: &str = "6";

/// The response to a request.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) body: String,
}

impl Response {
    pub(super) fn expect_status(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "status {} instead of {status}: {}", self.status, self.body);
        Ok(self)
    }

    pub(super) fn expect_body(self, body: &str) -> Result<Self> {
        ensure!(self.body == body, "{:?} instead of {body:?}", self.body);
        Ok(self)
    }

    async fn of(request: reqwest::RequestBuilder) -> Result<Self> {
        let response = async {
            let response = request.send().await?;
            let content_type = response.headers().get("content-type");
            let content_type = content_type.and_then(|it| it.to_str().ok()).unwrap_or_default();
            anyhow::Ok(Self {
                status: response.status().as_u16(),
                content_type: content_type.to_owned(),
                body: response.text().await?,
            })
        };
        timeout(PATIENCE, response).await.context("no response to the request")?
    }
}

/// Sends one request with this query.
pub(super) async fn request(peer: &Peer, method: reqwest::Method, query: &str) -> Result<Response> {
    let url = format!("http://{}{}?{query}", peer.address, peer.path);
    Response::of(belfry_tests::http::client().request(method, url)).await
}

/// Parses the content of an open packet.
pub(super) fn parse_open_packet(packet: &str) -> Result<Value> {
    let json =
        packet.strip_prefix('0').with_context(|| format!("not an open packet: {packet:?}"))?;
    Ok(serde_json::from_str(json)?)
}

fn sid_of(open_packet: &str) -> Result<String> {
    let open = parse_open_packet(open_packet)?;
    Ok(open["sid"].as_str().context("the open packet has no sid")?.to_owned())
}

/// A session over HTTP long-polling.
#[derive(Debug, Clone)]
pub(super) struct Polling {
    http: reqwest::Client,
    url: String,
    pub(super) sid: String,
}

impl Polling {
    pub(super) async fn open(peer: &Peer) -> Result<Self> {
        let http = belfry_tests::http::client();
        let url = format!("http://{}{}?EIO=4&transport=polling", peer.address, peer.path);
        let open = Response::of(http.get(&url)).await?.expect_status(200)?;
        let sid = sid_of(&open.body)?;
        Ok(Self { http, url: format!("{url}&sid={sid}"), sid })
    }

    pub(super) async fn get(&self) -> Result<Response> {
        Response::of(self.http.get(&self.url)).await
    }

    pub(super) async fn post(&self, body: impl Into<reqwest::Body>) -> Result<Response> {
        let request = self.http.post(&self.url).header("content-type", "text/plain;charset=UTF-8");
        Response::of(request.body(body)).await
    }

    /// Sends a payload and expects the server to accept it.
    pub(super) async fn send(&self, payload: &str) -> Result<()> {
        self.post(payload.to_owned()).await?.expect_status(200)?.expect_body("ok")?;
        Ok(())
    }

    /// Polls until `count` packets other than ping and noop have arrived. Answers pings.
    pub(super) async fn receive(&self, count: usize) -> Result<Vec<String>> {
        let mut received = Vec::new();
        let all = async {
            while received.len() < count {
                let body = self.get().await?.expect_status(200)?.body;
                for packet in body.split(SEPARATOR) {
                    match packet {
                        PING => self.send(PONG).await?,
                        NOOP => {}
                        _ => received.push(packet.to_owned()),
                    }
                }
            }
            anyhow::Ok(())
        };
        match timeout(PATIENCE, all).await {
            Ok(outcome) => outcome.map(|()| received),
            Err(_) => bail!("expected {count} packets, received {received:?}"),
        }
    }

    /// Expects these packets next.
    pub(super) async fn expect(&self, expected: &[&str]) -> Result<()> {
        let received = self.receive(expected.len()).await?;
        ensure!(received == expected, "{received:?} instead of {expected:?}");
        Ok(())
    }

    /// Polls, and answers pings, until the server no longer knows the session.
    pub(super) async fn expect_closed(&self) -> Result<()> {
        let closed = async {
            while self.get().await?.status != 400 {}
            anyhow::Ok(())
        };
        timeout(PATIENCE, closed).await.context("the session is still open")?
    }

    /// Waits until the server, which must return messages, has returned one. Then no earlier packet is in flight.
    pub(super) async fn settle(&self) -> Result<()> {
        self.send("4settle").await?;
        self.expect(&["4settle"]).await
    }

    /// Starts a poll, and gives it the time `head_start` to reach the server.
    pub(super) async fn pending_get(&self, head_start: Duration) -> JoinHandle<Result<Response>> {
        let session = self.clone();
        let poll = tokio::spawn(async move { session.get().await });
        sleep(head_start).await;
        poll
    }
}

/// Runs a case in which one request must reach the server before another. The test cannot observe when a request
/// arrives, so a failed case is repeated with more time between the two requests.
pub(super) async fn with_head_start(run: impl AsyncFn(Duration) -> Result<()>) -> Result<()> {
    match run(Duration::from_millis(100)).await {
        Ok(()) => Ok(()),
        Err(_) => run(Duration::from_secs(3)).await,
    }
}

/// A frame received on a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Text(String),
    Binary(Vec<u8>),
    /// The server closed or dropped the connection.
    Closed,
}

impl From<&str> for Frame {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&[u8]> for Frame {
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(bytes.to_owned())
    }
}

/// A WebSocket of a session, or one to which a polling session may be upgraded.
#[derive(Debug)]
pub(super) struct WebSocket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl WebSocket {
    /// Opens a WebSocket with this query.
    pub(super) async fn connect(peer: &Peer, query: &str) -> Result<Self, Error> {
        let url = format!("ws://{}{}?{query}", peer.address, peer.path);
        Ok(Self(connect_async(url).await?.0))
    }

    /// Opens a session and reads its open packet.
    pub(super) async fn open(peer: &Peer) -> Result<Self> {
        Ok(Self::open_with_sid(peer).await?.0)
    }

    pub(super) async fn open_with_sid(peer: &Peer) -> Result<(Self, String)> {
        let mut socket = Self::connect(peer, "EIO=4&transport=websocket").await?;
        let Frame::Text(open) = socket.frame().await? else { bail!("no open packet") };
        Ok((socket, sid_of(&open)?))
    }

    /// Opens a WebSocket for a polling session.
    pub(super) async fn for_session(peer: &Peer, sid: &str) -> Result<Self> {
        Ok(Self::connect(peer, &format!("EIO=4&transport=websocket&sid={sid}")).await?)
    }

    /// Opens a WebSocket for a polling session and probes it.
    pub(super) async fn probe(peer: &Peer, sid: &str) -> Result<Self> {
        let mut socket = Self::for_session(peer, sid).await?;
        socket.send("2probe").await;
        socket.expect("3probe").await?;
        Ok(socket)
    }

    /// Upgrades a new polling session to a WebSocket.
    pub(super) async fn upgraded(peer: &Peer) -> Result<(Polling, Self)> {
        let session = Polling::open(peer).await?;
        let mut socket = Self::probe(peer, &session.sid).await?;
        socket.send("5").await;
        Ok((session, socket))
    }

    /// Sends a text frame. Ignores errors: a closed WebSocket is detected by reading.
    pub(super) async fn send(&mut self, text: &str) {
        let _ = timeout(PATIENCE, self.0.send(Message::text(text))).await;
    }

    /// Sends a binary frame, like [`send`](Self::send).
    pub(super) async fn send_binary(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.0.send(Message::binary(bytes.to_owned()))).await;
    }

    /// The next frame, pings included.
    pub(super) async fn frame(&mut self) -> Result<Frame> {
        let next = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return Frame::Text(text.to_string()),
                    Some(Ok(Message::Binary(bytes))) => return Frame::Binary(bytes.to_vec()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Frame::Closed,
                    Some(Ok(_)) => {}
                }
            }
        };
        timeout(PATIENCE, next).await.context("neither a frame nor the end of the connection")
    }

    /// The next frame that is not a ping. Answers pings.
    pub(super) async fn packet(&mut self) -> Result<Frame> {
        let next = async {
            loop {
                match self.frame().await? {
                    Frame::Text(text) if text == PING => self.send(PONG).await,
                    frame => return anyhow::Ok(frame),
                }
            }
        };
        timeout(PATIENCE, next).await.context("no frame except pings")?
    }

    /// Expects the next frame that is not a ping.
    pub(super) async fn expect(&mut self, expected: impl Into<Frame>) -> Result<()> {
        let (expected, frame) = (expected.into(), self.packet().await?);
        ensure!(frame == expected, "{frame:?} instead of {expected:?}");
        Ok(())
    }

    /// Expects pings only, and answers them.
    pub(super) async fn expect_pings(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let frame = self.frame().await?;
            ensure!(frame == Frame::from(PING), "{frame:?} instead of a ping");
            self.send(PONG).await;
        }
        Ok(())
    }

    /// Expects that the server closes the connection without another message.
    pub(super) async fn expect_closed(&mut self) -> Result<()> {
        loop {
            match self.packet().await? {
                Frame::Closed => return Ok(()),
                Frame::Text(text) if [CLOSE, NOOP].contains(&text.as_str()) => {}
                frame => bail!("{frame:?} instead of the end"),
            }
        }
    }

    /// Expects that a WebSocket with this query is rejected, or closed before any packet.
    pub(super) async fn expect_rejected(peer: &Peer, query: &str) -> Result<()> {
        let outcome = match Self::connect(peer, query).await {
            Ok(mut socket) => socket.expect_closed().await,
            Err(Error::Http(response)) if response.status() == 400 => Ok(()),
            Err(error) => Err(error.into()),
        };
        outcome.with_context(|| format!("WebSocket with {query}"))
    }

    /// Closes the connection with a closing handshake.
    pub(super) async fn close(mut self) {
        let _ = timeout(PATIENCE, self.0.close(None)).await;
    }
}
