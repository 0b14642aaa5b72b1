//! One client: a Socket.IO connection, as lean as it can be, because it shares the machine with what it
//! measures.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use crate::packets::{self, Packet};
use crate::polling::PollingClient;
use crate::tally::{Counters, Received};
use crate::websocket::Socket;

/// How long one may take to be signed in.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a client needs to connect.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) server: SocketAddr,
    /// An address of this machine: one has no more than some 28,000 ports for one server.
    pub(crate) from: Ipv4Addr,
    pub(crate) token: Arc<str>,
}

/// The transport of a client. It keeps to it: there are no upgrades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    Polling,
}

/// Where it puts what it hears.
#[derive(Debug, Clone)]
pub(crate) struct Ears {
    pub(crate) counters: Arc<Counters>,
    pub(crate) heard: Arc<Mutex<Received>>,
}

/// A signed-in client.
#[derive(Debug)]
pub(crate) enum Connection {
    WebSocket(Socket),
    Polling(PollingClient),
}

impl Device {
    /// Connects and signs in.
    pub(crate) async fn sign_in(
        &self,
        transport: Transport,
        ears: &Ears,
    ) -> io::Result<Connection> {
        ears.counters.tries.fetch_add(1, Relaxed);
        let signed_in = timeout(PATIENCE, self.try_sign_in(transport, ears)).await;
        let signed_in = signed_in.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        match &signed_in {
            Ok(_) => ears.counters.came(),
            Err(why) => ears.counters.failed(why),
        }
        signed_in
    }

    async fn try_sign_in(&self, transport: Transport, ears: &Ears) -> io::Result<Connection> {
        Ok(match transport {
            Transport::WebSocket => Connection::WebSocket(Socket::sign_in(self, ears).await?),
            Transport::Polling => Connection::Polling(PollingClient::sign_in(self, ears).await?),
        })
    }

    /// The Socket.IO packet that signs in.
    pub(crate) fn connect_packet(&self) -> String {
        format!(r#"40{{"token":"{}"}}"#, self.token)
    }

    /// A TCP connection from its address.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        self.connect_by(TcpSocket::new_v4()?).await
    }

    /// The same by a socket that has options of its own.
    pub(crate) async fn connect_by(&self, socket: TcpSocket) -> io::Result<TcpStream> {
        socket.bind((self.from, 0).into())?;
        let stream = socket.connect(self.server).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Ears {
    /// Counts a packet that was read from its connection at that time, and returns it for what it asks of the
    /// client.
    pub(crate) fn receive(&self, text: &[u8], read_at: u64) -> Packet {
        let packet = packets::read(text);
        match packet {
            Packet::New(stamp) => {
                self.counters.new.fetch_add(1, Relaxed);
                if let Some(stamp) = stamp {
                    let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.event(stamp, read_at);
                }
            }
            Packet::UnreadCount => {
                self.counters.unread.fetch_add(1, Relaxed);
            }
            _ => {}
        }
        packet
    }
}

impl Connection {
    /// Listens until the server ends it.
    pub(crate) async fn listen(&mut self, ears: &Ears) -> io::Result<()> {
        match self {
            Self::WebSocket(socket) => socket.listen(ears).await,
            Self::Polling(client) => client.listen(ears).await,
        }
    }

    /// Listens so long; `true` if it is still connected then.
    pub(crate) async fn listen_for(&mut self, time: Duration, ears: &Ears) -> bool {
        timeout_at(Instant::now() + time, self.listen(ears)).await.is_err()
    }

    /// Says that it leaves, and leaves.
    pub(crate) async fn leave(self) {
        match self {
            Self::WebSocket(socket) => socket.leave().await,
            Self::Polling(client) => client.leave().await,
        }
    }
}
