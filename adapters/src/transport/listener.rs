//! Accepting TCP connections so that one can be cut later, whatever is stacked on top of it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

/// How accepted connections are set up.
#[derive(Debug, Clone, Copy)]
pub struct TcpSettings {
    /// How long sent bytes may stay unacknowledged until the kernel gives the connection up
    /// (`TCP_USER_TIMEOUT`). A peer that keeps its connection alive and stops reading would hold
    /// its buffers for ever otherwise: nothing above TCP gets to notice while a write is stuck.
    pub user_timeout: Duration,
    /// The kernel's send buffer, in bytes (`SO_SNDBUF`; Linux doubles it). Left alone it grows to
    /// megabytes for a peer that does not read.
    pub send_buffer: usize,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self { user_timeout: Duration::from_secs(30), send_buffer: 128 * 1024 }
    }
}

/// Accepts connections for [`axum::serve()`].
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    settings: TcpSettings,
}

impl Listener {
    /// Listens at that address; port 0 takes a free one.
    pub async fn bind(address: SocketAddr, settings: TcpSettings) -> io::Result<Self> {
        Ok(Self { tcp: TcpListener::bind(address).await?, settings })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    fn set_up(&self, stream: &TcpStream) -> io::Result<()> {
        // A push is one small write that somebody waits for.
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        socket.set_send_buffer_size(self.settings.send_buffer)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(self.settings.user_timeout))?;
        Ok(())
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // axum's own way with accept errors: a peer that gave up is nothing, a lack of descriptors
        // is waited out.
        let (stream, address) = axum::serve::Listener::accept(&mut self.tcp).await;
        if let Err(error) = self.set_up(&stream) {
            warn!(%error, %address, "socket options not set");
        }
        (Connection(Arc::new(Wire { stream, written: AtomicU64::new(0) })), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// An accepted connection. It is shared with its [`Peer`]s only as far as cutting it goes.
#[derive(Debug)]
pub struct Connection(Arc<Wire>);

#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    /// How many bytes the kernel took.
    written: AtomicU64,
}

impl Wire {
    fn count(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Who is at the other end of a connection; an extension of each request that comes by it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The address that the connection came from: a proxy's, where there is one.
    pub address: SocketAddr,
    wire: Weak<Wire>,
}

impl Peer {
    /// Cuts the connection, both ways and at once; what the kernel has taken is still sent. Does
    /// nothing to one that is gone.
    pub fn hang_up(&self) {
        if let Some(wire) = self.wire.upgrade() {
            // Fails only where the peer was quicker.
            let _ = SockRef::from(&wire.stream).shutdown(std::net::Shutdown::Both);
        }
    }

    /// How many bytes were written to the connection so far; `None` if it is gone.
    pub fn written(&self) -> Option<u64> {
        self.wire.upgrade().map(|wire| wire.written.load(Ordering::Relaxed))
    }

    /// Whether the connection is gone.
    pub fn is_gone(&self) -> bool {
        self.wire.strong_count() == 0
    }
}

impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Self { address: *stream.remote_addr(), wire: Arc::downgrade(&stream.io().0) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.stream.poll_read_ready(cx))?;
            match self.0.stream.try_read(buf.initialize_unfilled()) {
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.stream.poll_write_ready(cx))?;
            match self.0.stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done.inspect(|count| self.0.count(*count))),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.stream.poll_write_ready(cx))?;
            match self.0.stream.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done.inspect(|count| self.0.count(*count))),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TCP keeps nothing back on this side.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&self.0.stream).shutdown(std::net::Shutdown::Write) {
            // The peer was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::ConnectInfo;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_connection_can_be_cut_while_a_request_is_under_way() {
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(address, TcpSettings::default()).await.unwrap();
        let address = listener.address().unwrap();
        let app = Router::new().route(
            "/",
            get(async |ConnectInfo(peer): ConnectInfo<Peer>| {
                peer.hang_up();
                std::future::pending::<()>().await;
            }),
        );
        let app = app.into_make_service_with_connect_info::<Peer>();
        tokio::spawn(async move { axum::serve(listener, app).await });

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut answer));
        // Cut with or without a reset; either way without an answer.
        let _ = read.await.expect("the connection ends");
        assert_eq!(answer, b"");
    }
}
