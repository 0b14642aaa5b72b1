//! One client with a minimal Socket.IO connection. Clients and server share the machine, so a client must use
//! little CPU time and memory.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use crate::packets::{self, Packet};
use crate::polling::PollingClient;
use crate::resume::ResumePoint;
use crate::tally::{Counters, Received};
use crate::websocket::WebSocket;

/// Timeout for signing in.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(20);

/// The addresses and the token with which a client connects.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) server: SocketAddr,
    /// The source address on this machine. One address has only about 28,000 ephemeral ports for connections
    /// to one server.
    pub(crate) from: Ipv4Addr,
    pub(crate) token: Arc<str>,
}

/// The transport of a client. A client does not upgrade from polling to WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    Polling,
}

/// Records the packets that clients receive.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    pub(crate) counters: Arc<Counters>,
    pub(crate) received: Arc<Mutex<Received>>,
    /// The client's position in its inbox; `None` if the client does not catch up when it reconnects.
    pub(crate) resume: Option<Arc<ResumePoint>>,
    /// The tool's clock when a client with outages last began to connect; 0 for other clients.
    pub(crate) online_since: u64,
}

/// A signed-in client.
#[derive(Debug)]
pub(crate) enum Connection {
    WebSocket(WebSocket),
    Polling(PollingClient),
}

impl Device {
    /// Connects and signs in.
    pub(crate) async fn sign_in(
        &self,
        transport: Transport,
        recorder: &Recorder,
    ) -> io::Result<Connection> {
        recorder.counters.attempts.fetch_add(1, Relaxed);
        let signed_in = timeout(SIGN_IN_TIMEOUT, self.try_sign_in(transport, recorder)).await;
        let signed_in = signed_in.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        match &signed_in {
            Ok(_) => recorder.counters.record_connect(),
            Err(error) => recorder.counters.record_failure(error),
        }
        signed_in
    }

    async fn try_sign_in(
        &self,
        transport: Transport,
        recorder: &Recorder,
    ) -> io::Result<Connection> {
        Ok(match transport {
            Transport::WebSocket => {
                Connection::WebSocket(WebSocket::sign_in(self, recorder).await?)
            }
            Transport::Polling => {
                Connection::Polling(PollingClient::sign_in(self, recorder).await?)
            }
        })
    }

    /// The Socket.IO packet that signs in: a connect to the default namespace.
    pub(crate) fn connect_packet(&self) -> String {
        format!(r#"40{{"token":"{}"}}"#, self.token)
    }

    /// Like [`connect_packet`](Self::connect_packet), with the position from which the client catches up.
    pub(crate) fn resume_packet(&self, resume: &ResumePoint) -> String {
        format!(r#"40{{"token":"{}"{}}}"#, self.token, resume.fields())
    }

    /// Opens a TCP connection from the client's address.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        self.connect_by(TcpSocket::new_v4()?).await
    }

    /// Like [`connect`](Self::connect), with the options of `socket`.
    pub(crate) async fn connect_by(&self, socket: TcpSocket) -> io::Result<TcpStream> {
        socket.bind((self.from, 0).into())?;
        let stream = socket.connect(self.server).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Recorder {
    /// Parses a packet, records it and returns it. `read_at` is the time when it was read from the socket, in
    /// nanoseconds since the tool's start.
    pub(crate) fn record(&self, text: &[u8], read_at: u64) -> Packet {
        let packet = packets::read(text);
        if let Some(resume) = &self.resume {
            resume.update(text);
        }
        match packet {
            Packet::New(stamp) => {
                self.counters.new.fetch_add(1, Relaxed);
                if let Some(stamp) = stamp {
                    let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
                    received.event(stamp, read_at, self.online_since);
                }
            }
            Packet::UnreadCount => {
                self.counters.unread.fetch_add(1, Relaxed);
            }
            Packet::Ping => {
                self.counters.pings.fetch_add(1, Relaxed);
            }
            _ => {}
        }
        packet
    }
}

impl Connection {
    /// Listens until the server closes the connection.
    pub(crate) async fn listen(&mut self, recorder: &Recorder) -> io::Result<()> {
        match self {
            Self::WebSocket(socket) => socket.listen(recorder).await,
            Self::Polling(client) => client.listen(recorder).await,
        }
    }

    /// Listens for `duration`. Returns true if the client is still connected then.
    pub(crate) async fn listen_for(&mut self, duration: Duration, recorder: &Recorder) -> bool {
        timeout_at(Instant::now() + duration, self.listen(recorder)).await.is_err()
    }

    /// Disconnects from the namespace and closes the connection.
    pub(crate) async fn leave(self) {
        match self {
            Self::WebSocket(socket) => socket.leave().await,
            Self::Polling(client) => client.leave().await,
        }
    }
}
