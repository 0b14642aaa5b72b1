//! Accepts connections and serves HTTP/1.1 (RFC 9112) on them, within limits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::connection_limiter::ConnectionLimiter;
use super::head_timeout::HeadTimeout;
use super::http_connection::HttpConnection;
use super::initial_request_head::initial_request_head;
use super::listener::{ListenAddress, Listener};
use super::peer::{ConnectionPermits, Peer};
use super::request_progress::RequestProgress;
use super::server_state::{MAX_HEAD_BYTES, ServerSettings, ServerState, record_rejected};
use super::stream::{AcceptedSocket, Stream, readable};

/// An HTTP server that is bound to an address.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    state: Arc<ServerState>,
}

/// The number of open connections of a [`Server`].
#[derive(Debug, Clone)]
pub struct OpenConnections(Arc<ConnectionLimiter>);

impl OpenConnections {
    /// The current number, WebSockets included.
    pub fn count(&self) -> usize {
        self.0.open()
    }
}

const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

impl Server {
    /// A server that does not accept connections yet.
    pub fn new(listener: Listener, settings: ServerSettings) -> io::Result<Self> {
        let is_on_unix_socket = matches!(listener.address()?, ListenAddress::Unix(_));
        Ok(Self { listener, state: Arc::new(ServerState::new(settings, is_on_unix_socket)) })
    }

    /// The address that the server listens on.
    pub fn address(&self) -> io::Result<ListenAddress> {
        self.listener.address()
    }

    /// A handle that counts the open connections.
    pub fn open_connections(&self) -> OpenConnections {
        OpenConnections(self.state.limiter.clone())
    }

    /// Serves until `end` is cancelled. Then it stops accepting, closes idle connections, finishes requests in
    /// flight and returns when all of these connections are closed. It does not wait for WebSockets.
    ///
    /// Each request has the extensions `ConnectInfo<`[`Peer`]`>` and [`ClientAddress`](super::ClientAddress).
    pub async fn serve(self, router: Router, end: CancellationToken) {
        let Self { listener, state } = self;
        // One task for each HTTP connection, and one that reloads the TLS files.
        let tasks = TaskTracker::new();
        if let Some(tls) = state.settings.tls.clone() {
            let end = end.clone();
            tasks.spawn(async move { tls.watch_files(&end).await });
        }
        while let Some((socket, address)) = end.run_until_cancelled(listener.accept()).await {
            // The connections of a proxy do not count per address.
            let counted_address = (!state.is_proxy(address.ip())).then_some(address.ip());
            match state.limiter.acquire_connection(counted_address) {
                Ok(permit) => {
                    let permits = ConnectionPermits::new(permit);
                    let peer = Peer::new(address, &permits);
                    let (state, router, end) = (state.clone(), router.clone(), end.clone());
                    tasks.spawn(state.serve(socket, permits, peer, router, end));
                }
                // The connection is closed without a response, which would cost more than the connection itself.
                Err(limit) => record_rejected(limit, address.ip()),
            }
        }
        drop(listener);
        tasks.close();
        tasks.wait().await;
    }
}

impl ServerState {
    /// Serves one connection. A client that sends nothing costs only its permit, and a client that sends its first
    /// head slowly costs only the bytes of that head.
    async fn serve(
        self: Arc<Self>,
        socket: AcceptedSocket,
        permits: Arc<ConnectionPermits>,
        peer: Peer,
        router: Router,
        end: CancellationToken,
    ) {
        let accepted = Instant::now();
        let first_bytes = tokio::time::timeout(self.settings.header_timeout, readable(&socket));
        // Any other result is a shutdown, a timeout or an error of the connection.
        let Some(Ok(Ok(()))) = end.run_until_cancelled(first_bytes).await else { return };
        let Some(mut stream) = Box::pin(self.open_stream(socket, permits, &peer, &end)).await
        else {
            return;
        };
        // With TLS, the time until now was for the handshake, so the time for the head starts now.
        let started = if self.settings.tls.is_some() { Instant::now() } else { accepted };
        let deadline = started + self.settings.header_timeout;
        let head = initial_request_head(&mut stream, MAX_HEAD_BYTES);
        let head = Box::pin(tokio::time::timeout_at(deadline, head));
        let Some(Ok(Ok(()))) = end.run_until_cancelled(head).await else { return };
        let progress = RequestProgress::default();
        let limit = self.settings.header_timeout;
        stream.set_head_timeout(Some(HeadTimeout::new(progress.clone(), limit, started)));
        let connection = HttpConnection::new(self, peer, router, end, progress);
        Arc::new(connection).serve(stream).await;
    }

    /// The stream that carries HTTP, after the TLS handshake if TLS is configured.
    async fn open_stream(
        &self,
        socket: AcceptedSocket,
        permits: Arc<ConnectionPermits>,
        peer: &Peer,
        end: &CancellationToken,
    ) -> Option<Stream> {
        let Some(tls) = &self.settings.tls else {
            return Some(Stream::plain(socket, permits));
        };
        let handshake = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, tls.acceptor().accept(socket));
        match end.run_until_cancelled(handshake).await? {
            Ok(Ok(stream)) => return Some(Stream::tls(stream, permits)),
            Ok(Err(error)) => debug!(%error, client = %peer.address, "TLS handshake failed"),
            Err(_) => debug!(client = %peer.address, "TLS handshake timed out"),
        }
        None
    }
}

#[cfg(test)]
pub(super) mod tests;
