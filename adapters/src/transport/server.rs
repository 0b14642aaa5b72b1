//! Accepting connections and serving HTTP/1.1 (RFC 9112) on them, within bounds.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::{Request, StatusCode, header};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::counter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, trace};

use super::admission::{Admission, ConnectionLimits, Place};
use super::client_address::{ClientAddress, TrustedProxies};
use super::connection::{Connection, Peer};
use super::first_head::first_head;
use super::head_timeout::{HeadTimeout, Progress};
use super::listener::{ListenAddress, Listener};
use super::stream::Stream;
use super::tls::Tls;
use crate::limits::Limit;

/// How connections are served.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// How long a client may take to send the head of a request: for the first one from the beginning
    /// of the connection.
    pub header_timeout: Duration,
    /// How long a connection may be idle between two requests. A proxy in front must close its idle
    /// connections earlier, or it sends requests into connections that are being closed here.
    pub keep_alive: Duration,
    /// The most that is open at once.
    pub limits: ConnectionLimits,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// With TLS, and with nothing else then.
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

/// A listener and what holds for its connections.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: ServerSettings,
    admission: Arc<Admission>,
    by_unix_socket: bool,
}

/// How many connections are open at a [`Server`].
#[derive(Debug, Clone)]
pub struct OpenConnections(Arc<Admission>);

impl OpenConnections {
    /// So many, WebSockets included.
    pub fn count(&self) -> usize {
        self.0.open()
    }
}

/// The most that a request line and its header fields may have, in bytes and in fields. Past it the
/// answer is 431 (RFC 6585, 5). A token of 8 KiB fits in, and cookies of the same size beside it.
const HEAD_BYTES: usize = 32 * 1024;
const HEAD_FIELDS: usize = 100;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

impl Server {
    /// A server that accepts nothing yet.
    pub fn new(listener: Listener, settings: ServerSettings) -> io::Result<Self> {
        let by_unix_socket = matches!(listener.address()?, ListenAddress::Unix(_));
        let admission = Admission::new(settings.limits);
        Ok(Self { listener, shared: Arc::new(Shared { settings, admission, by_unix_socket }) })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<ListenAddress> {
        self.listener.address()
    }

    /// How many connections are open at it, to be asked at any time.
    pub fn open_connections(&self) -> OpenConnections {
        OpenConnections(self.shared.admission.clone())
    }

    /// Serves until `end`. Then nothing new is accepted, requests under way are finished, idle
    /// connections closed, and it is over when all are. WebSockets are not waited for.
    ///
    /// Each request has the extensions `ConnectInfo<`[`Peer`]`>` and [`ClientAddress`].
    pub async fn serve(self, router: Router, end: CancellationToken) {
        let Self { listener, shared } = self;
        // As many tasks as connections at the most.
        let tasks = TaskTracker::new();
        if let Some(tls) = shared.settings.tls.clone() {
            let end = end.clone();
            tasks.spawn(async move { tls.keep(&end).await });
        }
        while let Some((socket, address)) = end.run_until_cancelled(listener.accept()).await {
            let counted = (!shared.is_proxy(address.ip())).then_some(address.ip());
            match shared.admission.connection(counted) {
                Ok(place) => {
                    let (connection, peer) = Connection::new(socket, address, place);
                    let (shared, router, end) = (shared.clone(), router.clone(), end.clone());
                    tasks.spawn(shared.serve(connection, peer, router, end));
                }
                // Closed without an answer, which would cost more than the connection itself.
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

impl Shared {
    /// Whether a peer speaks for others. Whoever may use our Unix socket is believed like a trusted
    /// proxy: its file is open to the same group only.
    fn is_proxy(&self, peer: IpAddr) -> bool {
        self.by_unix_socket || self.settings.trusted_proxies.contains(peer)
    }

    /// Who opens a connection and says nothing gets no more for it than a place, and who is slow with
    /// the first head no more than what was said of it.
    async fn serve(
        self: Arc<Self>,
        connection: Connection,
        peer: Peer,
        router: Router,
        end: CancellationToken,
    ) {
        let begun = Instant::now();
        let first_word = tokio::time::timeout(self.settings.header_timeout, connection.readable());
        let Some(Ok(Ok(()))) = end.run_until_cancelled(first_word).await else { return };
        let Some(mut stream) = Box::pin(self.secured(connection, &peer, &end)).await else {
            return;
        };
        // By TLS it is the handshake that the time was for.
        let begun = if self.settings.tls.is_some() { Instant::now() } else { begun };
        let due = begun + self.settings.header_timeout;
        let head = tokio::time::timeout_at(due, first_head(&mut stream, HEAD_BYTES));
        let Some(Ok(Ok(()))) = end.run_until_cancelled(Box::pin(head)).await else { return };
        let progress = Progress::default();
        let limit = self.settings.header_timeout;
        let stream = HeadTimeout::new(stream, progress.clone(), limit, begun);
        Box::pin(self.serve_http(stream, peer, router, end, progress)).await;
    }

    /// The connection as HTTP is spoken on it, after the handshake of TLS where that is set.
    async fn secured(
        &self,
        connection: Connection,
        peer: &Peer,
        end: &CancellationToken,
    ) -> Option<Stream> {
        let Some(tls) = &self.settings.tls else {
            return Some(Stream::plain(connection));
        };
        let handshake = tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(connection));
        match end.run_until_cancelled(handshake).await? {
            Ok(Ok(stream)) => return Some(Stream::tls(stream)),
            Ok(Err(error)) => debug!(%error, client = %peer.address, "no TLS handshake"),
            Err(_) => debug!(client = %peer.address, "TLS handshake took too long"),
        }
        None
    }

    async fn serve_http(
        self: Arc<Self>,
        stream: HeadTimeout<Stream>,
        peer: Peer,
        router: Router,
        end: CancellationToken,
        progress: Progress,
    ) {
        let keep_alive = self.settings.keep_alive;
        // Boxed, as hyper has room for one from the beginning.
        let service = service_fn(move |request| {
            self.clone().answer(request, peer.clone(), router.clone(), progress.clone()).boxed()
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(keep_alive)
            .max_headers(HEAD_FIELDS)
            .max_header_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut serving = pin!(serving);
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

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
        router: Router,
        progress: Progress,
    ) -> Result<Response, Infallible> {
        progress.step();
        let mut request = request.map(Body::new);
        let mut client = ClientAddress(peer.address.ip().to_canonical());
        let mut place = None;
        if self.is_proxy(client.0) {
            client = self.settings.trusted_proxies.client(client.0, request.headers());
            // A proxy's own requests, such as checks of health, are as little counted as it is.
            if client.0 != peer.address.ip().to_canonical() && !self.is_trusted(client) {
                match self.admission.client(client.0) {
                    Ok(its) => place = Some(its),
                    Err(limit) => {
                        record_rejected(limit, client.0);
                        return Ok(too_many(progress));
                    }
                }
            }
        }
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        request.extensions_mut().insert(client);
        let answer = match router.oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            // A WebSocket from now on: no head follows, and its client keeps its place to the end.
            if let Some(place) = place {
                peer.keep(place);
            }
            return Ok(answer);
        }
        let under_way = UnderWay { progress, _place: place };
        Ok(answer.map(|body| Body::new(Counted { body, _under_way: under_way })))
    }

    fn is_trusted(&self, client: ClientAddress) -> bool {
        self.settings.trusted_proxies.contains(client.0)
    }
}

fn too_many(progress: Progress) -> Response {
    let answer = (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")]).into_response();
    let under_way = UnderWay { progress, _place: None };
    answer.map(|body| Body::new(Counted { body, _under_way: under_way }))
}

/// A request that is being answered.
struct UnderWay {
    progress: Progress,
    _place: Option<Place>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.progress.step();
    }
}

/// An answer's body; its request is under way until it has been sent.
struct Counted {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
