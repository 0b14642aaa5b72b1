//! Accepts connections and serves HTTP/1.1 (RFC 9112) on them, within limits.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::counter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, trace};

use super::client_address::{ClientAddress, TrustedProxies};
use super::connection_limiter::{ConnectionLimiter, ConnectionLimits, ConnectionPermit};
use super::head_timeout::{HeadTimeout, RequestProgress};
use super::initial_request_head::initial_request_head;
use super::listener::{ListenAddress, Listener};
use super::peer::{ConnectionPermits, Peer};
use super::stream::{AcceptedSocket, Stream, readable};
use super::tls::Tls;
use crate::limits::Limit;

/// How connections are served.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// How long a client may take to send a request head. For the first head this includes the time since the
    /// connection was accepted.
    pub header_timeout: Duration,
    /// How long a connection may be idle between two requests. A proxy in front must close its idle
    /// connections earlier, or it sends requests into connections that are being closed here.
    pub keep_alive: Duration,
    /// How many connections may be open at once.
    pub limits: ConnectionLimits,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: TrustedProxies,
    /// If set, all connections use TLS.
    pub tls: Option<Arc<Tls>>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            limits: ConnectionLimits::default(),
            trusted_proxies: TrustedProxies::default(),
            tls: None,
        }
    }
}

/// A listener and the settings for its connections.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    state: Arc<ServerState>,
}

#[derive(Debug)]
struct ServerState {
    settings: ServerSettings,
    limiter: Arc<ConnectionLimiter>,
    by_unix_socket: bool,
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

/// The maximum size of a request line and its header fields, in bytes. Larger heads are answered with 431
/// (RFC 6585, section 5). A token of 8 KiB fits, and cookies of the same size beside it.
const MAX_HEAD_BYTES: usize = 32 * 1024;
const MAX_HEADER_FIELDS: usize = 100;
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

impl Server {
    /// A server that does not accept connections yet.
    pub fn new(listener: Listener, settings: ServerSettings) -> io::Result<Self> {
        let by_unix_socket = matches!(listener.address()?, ListenAddress::Unix(_));
        let limiter = ConnectionLimiter::new(settings.limits);
        Ok(Self { listener, state: Arc::new(ServerState { settings, limiter, by_unix_socket }) })
    }

    /// The address that it listens on.
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
    /// Each request has the extensions `ConnectInfo<`[`Peer`]`>` and [`ClientAddress`].
    pub async fn serve(self, router: Router, end: CancellationToken) {
        let Self { listener, state } = self;
        // At most one task per connection.
        let tasks = TaskTracker::new();
        if let Some(tls) = state.settings.tls.clone() {
            let end = end.clone();
            tasks.spawn(async move { tls.watch_files(&end).await });
        }
        while let Some((socket, address)) = end.run_until_cancelled(listener.accept()).await {
            let counted = (!state.is_proxy(address.ip())).then_some(address.ip());
            match state.limiter.acquire_connection(counted) {
                Ok(permit) => {
                    let permits = ConnectionPermits::new(permit);
                    let peer = Peer::new(address, &permits);
                    let (state, router, end) = (state.clone(), router.clone(), end.clone());
                    tasks.spawn(state.serve(socket, permits, peer, router, end));
                }
                // Closed without a response, which would cost more than the connection itself.
                Err(limit) => record_rejected(limit, address.ip()),
            }
        }
        drop(listener);
        tasks.close();
        tasks.wait().await;
    }
}

fn record_rejected(limit: Limit, client: IpAddr) {
    counter!("belfry_connections_refused_total", "reason" => limit.label()).increment(1);
    limit.record_exceeded_by(client.to_canonical());
}

impl ServerState {
    /// Whether a peer forwards requests of others. Any peer on a Unix socket is trusted like a trusted proxy,
    /// because only the file's group can connect.
    fn is_proxy(&self, peer: IpAddr) -> bool {
        self.by_unix_socket || self.settings.trusted_proxies.contains(peer)
    }

    /// Serves one connection. A client that sends nothing costs only its permit, and a client whose first head is
    /// slow costs only the bytes of that head.
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
        let Some(Ok(Ok(()))) = end.run_until_cancelled(first_bytes).await else { return };
        let Some(mut stream) = Box::pin(self.open_stream(socket, permits, &peer, &end)).await
        else {
            return;
        };
        // With TLS, the first timeout covered the handshake.
        let started = if self.settings.tls.is_some() { Instant::now() } else { accepted };
        let due = started + self.settings.header_timeout;
        let head = initial_request_head(&mut stream, MAX_HEAD_BYTES);
        let head = Box::pin(tokio::time::timeout_at(due, head));
        let Some(Ok(Ok(()))) = end.run_until_cancelled(head).await else { return };
        let progress = RequestProgress::default();
        let limit = self.settings.header_timeout;
        stream.set_head_timeout(Some(HeadTimeout::new(progress.clone(), limit, started)));
        self.serve_http(stream, peer, router, end, progress).await;
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

    /// Not an `async fn`, which would keep room for its arguments beside hyper's connection, and hyper's connection
    /// twice: the future is the memory of an idle connection.
    fn serve_http(
        self: Arc<Self>,
        stream: Stream,
        peer: Peer,
        router: Router,
        end: CancellationToken,
        progress: RequestProgress,
    ) -> impl Future<Output = ()> + Send {
        let keep_alive = self.settings.keep_alive;
        // Boxed, because hyper reserves the future's size for the whole connection.
        let service = service_fn(move |request| {
            self.clone().respond(request, peer.clone(), router.clone(), progress.clone()).boxed()
        });
        let mut serving = Box::pin(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(keep_alive)
                .max_headers(MAX_HEADER_FIELDS)
                .max_header_size(MAX_HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades(),
        );
        async move {
            let served = tokio::select! {
                served = serving.as_mut() => served,
                () = end.cancelled() => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            };
            if let Err(error) = served {
                trace!(%error, "connection ended");
            }
        }
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
        router: Router,
        progress: RequestProgress,
    ) -> Result<Response, Infallible> {
        progress.advance();
        let mut request = request.map(Body::new);
        let mut permit = None;
        let peer_address = peer.address.ip().to_canonical();
        let mut client = ClientAddress(peer_address);
        if self.is_proxy(peer_address) {
            let proxies = &self.settings.trusted_proxies;
            client = proxies.client(peer_address, request.headers());
            // A proxy's own requests, such as health checks, are not counted, as its connections are not.
            if client.0 != peer_address && !proxies.contains(client.0) {
                match self.limiter.acquire_client(client.0) {
                    Ok(acquired) => permit = Some(acquired),
                    Err(limit) => {
                        record_rejected(limit, client.0);
                        let retry_after = [(header::RETRY_AFTER, "5")];
                        let response = (StatusCode::SERVICE_UNAVAILABLE, retry_after);
                        let in_flight = InFlightRequest { progress, _permit: None };
                        return Ok(in_flight.until_sent(response.into_response()));
                    }
                }
            }
        }
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        request.extensions_mut().insert(client);
        let Ok(response) = router.oneshot(request).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // No request head follows on a WebSocket, and its client's permit is held until it closes.
            if let Some(permit) = permit {
                peer.hold_client_permit(permit);
            }
            return Ok(response);
        }
        Ok(InFlightRequest { progress, _permit: permit }.until_sent(response))
    }
}

/// A request whose response has not been sent yet.
struct InFlightRequest {
    progress: RequestProgress,
    _permit: Option<ConnectionPermit>,
}

impl InFlightRequest {
    /// Keeps the request in flight until the body of its response has been sent or dropped.
    fn until_sent(self, response: Response) -> Response {
        response.map(|body| {
            Body::new(body.map_err(move |error| {
                let _in_flight = &self;
                error
            }))
        })
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.progress.advance();
    }
}

#[cfg(test)]
mod tests;
