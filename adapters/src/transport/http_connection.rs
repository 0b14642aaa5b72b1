use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::trace;

use super::client_address::ClientAddress;
use super::connection_limiter::ConnectionPermit;
use super::deferred_body::DeferredBody;
use super::in_flight_request::InFlightRequest;
use super::initial_request_head::initial_request_head;
use super::opening_handshake::has_token;
use super::parked_response::{AfterResponse, ParkedResponse};
use super::peer::Peer;
use super::request_progress::RequestProgress;
use super::server_state::{MAX_HEAD_BYTES, ServerState, record_rejected};
use super::stream::Stream;
use crate::limits::Limit;

/// The maximum number of header fields in a request.
const MAX_HEADER_FIELDS: usize = 100;

/// The `Retry-After` of a request above the limit of a client behind a proxy, in seconds.
const RETRY_AFTER_SECONDS: &str = "5";

/// A connection that carries HTTP/1.1 (RFC 9112).
///
/// hyper reads the requests and sends the responses, except a response with a [`DeferredBody`], whose body becomes
/// known only after a long wait. Such a response is parked: hyper's connection is dropped, the response is sent
/// without hyper, and a new hyper connection reads the next request.
pub(super) struct HttpConnection {
    server: Arc<ServerState>,
    peer: Peer,
    router: Router,
    /// Cancelled when the server stops.
    end: CancellationToken,
    progress: RequestProgress,
    /// Set by the service, which runs within hyper's connection; taken by the connection's task.
    parked: Mutex<Option<ParkedResponse>>,
}

impl HttpConnection {
    pub(super) fn new(
        server: Arc<ServerState>,
        peer: Peer,
        router: Router,
        end: CancellationToken,
        progress: RequestProgress,
    ) -> Self {
        Self { server, peer, router, end, progress, parked: Mutex::default() }
    }

    /// Serves requests until either side closes the connection, or it becomes a WebSocket.
    pub(super) async fn serve(self: Arc<Self>, mut stream: Stream) {
        while let Some((returned, response)) = self.serve_until_parked(stream).await {
            stream = returned;
            match response.send(&mut stream, &self.end).await {
                Ok(AfterResponse::NextRequest) => {}
                Ok(AfterResponse::Close) => {
                    let _ = stream.shutdown().await;
                    return;
                }
                Err(error) => return trace!(%error, "connection ended"),
            }
            let head = initial_request_head(&mut stream, MAX_HEAD_BYTES);
            let head = tokio::time::timeout(self.server.settings.keep_alive, head);
            let Some(Ok(Ok(()))) = self.end.run_until_cancelled(head).await else { return };
        }
    }

    /// Lets hyper serve requests until a response is parked, and returns the stream and this response. `None` if the
    /// connection has ended or has become a WebSocket.
    ///
    /// This is not an `async fn`, which would have room for hyper's connection twice. Most of the memory of an idle
    /// connection is this future.
    fn serve_until_parked(
        self: &Arc<Self>,
        stream: Stream,
    ) -> impl Future<Output = Option<(Stream, ParkedResponse)>> + Send {
        let this = self.clone();
        // Boxed, because hyper reserves the future's size for the whole connection.
        let service = service_fn(move |request| this.clone().respond(request).boxed());
        let mut serving = Box::pin(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.server.settings.keep_alive)
                .max_headers(MAX_HEADER_FIELDS)
                .max_header_size(MAX_HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades(),
        );
        let this = self.clone();
        async move {
            let parked = tokio::select! {
                parked = this.until_parked(serving.as_mut()) => parked,
                () = this.end.cancelled() => {
                    serving.as_mut().graceful_shutdown();
                    this.until_parked(serving.as_mut()).await
                }
            };
            let parts = Pin::into_inner(serving).into_parts();
            let (response, parts) = parked.zip(parts)?;
            let mut stream = parts.io.into_inner();
            // Bytes of a pipelined request. They are copied, because a slice would keep hyper's whole buffer alive.
            stream.put_back(Bytes::copy_from_slice(&parts.read_buf));
            Some((stream, response))
        }
    }

    /// Runs hyper's connection until it ends, or until a response is parked and hyper has no earlier response left
    /// to write.
    async fn until_parked<E: std::error::Error>(
        &self,
        mut serving: Pin<&mut impl Future<Output = Result<(), E>>>,
    ) -> Option<ParkedResponse> {
        std::future::poll_fn(|cx| {
            let served = serving.as_mut().poll(cx);
            let parked = self.parked.lock().take_if(|_| !self.progress.is_write_blocked());
            match served {
                Poll::Pending if parked.is_some() => Poll::Ready(parked),
                Poll::Pending => Poll::Pending,
                Poll::Ready(served) => {
                    if let Err(error) = served {
                        trace!(%error, "connection ended");
                    }
                    Poll::Ready(None)
                }
            }
        })
        .await
    }

    /// The client that sent a request, possibly through trusted proxies.
    fn client_of(&self, request: &Request<Body>) -> ClientAddress {
        let peer = self.peer.address.ip().to_canonical();
        if self.server.is_proxy(peer) {
            self.server.settings.trusted_proxies.client(peer, request.headers())
        } else {
            ClientAddress(peer)
        }
    }

    /// Counts a request that a trusted proxy forwards. `None` for other requests: the connection itself is counted
    /// for its peer, and a proxy's own requests, such as health checks, are not counted.
    fn acquire_permit(&self, client: ClientAddress) -> Result<Option<ConnectionPermit>, Limit> {
        let is_forwarded = client.0 != self.peer.address.ip().to_canonical()
            && !self.server.settings.trusted_proxies.contains(client.0);
        is_forwarded.then(|| self.server.limiter.acquire_client(client.0)).transpose()
    }

    async fn respond(self: Arc<Self>, request: Request<Incoming>) -> Result<Response, Infallible> {
        self.progress.advance();
        let may_park = may_park_response(&request);
        let mut request = request.map(Body::new);
        let client = self.client_of(&request);
        let permit = match self.acquire_permit(client) {
            Ok(permit) => permit,
            Err(limit) => {
                record_rejected(limit, client.0);
                let retry_after = [(header::RETRY_AFTER, RETRY_AFTER_SECONDS)];
                let response = (StatusCode::SERVICE_UNAVAILABLE, retry_after);
                let in_flight = InFlightRequest::new(self.progress.clone(), None);
                return Ok(in_flight.until_sent(response.into_response()));
            }
        };
        request.extensions_mut().insert(ConnectInfo(self.peer.clone()));
        request.extensions_mut().insert(client);
        let Ok(mut response) = self.router.clone().oneshot(request).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // No request head follows on a WebSocket, so the progress does not advance again. The client's permit is
            // held until the WebSocket closes.
            if let Some(permit) = permit {
                self.peer.hold_client_permit(permit);
            }
            return Ok(response);
        }
        let in_flight = InFlightRequest::new(self.progress.clone(), permit);
        if let Some(body) = DeferredBody::take(&mut response) {
            if may_park {
                *self.parked.lock() = Some(ParkedResponse::new(&response, body, in_flight));
                // The connection's task takes the response and drops this future together with hyper's connection.
                return pending().await;
            }
            response.headers_mut().remove(header::CONTENT_LENGTH);
            response = match body.await {
                Some(body) => response.map(|_| Body::from(body)),
                None => StatusCode::BAD_REQUEST.into_response(),
            };
        }
        Ok(in_flight.until_sent(response))
    }
}

/// Whether hyper's connection can be dropped before the response is sent, and another one can read the next request:
/// this request has no body to read, and the connection is persistent (RFC 9112, section 9.3).
fn may_park_response(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && !has_token(request.headers(), &header::CONNECTION, "close")
}

#[cfg(test)]
mod tests;
