//! The opening handshake of a WebSocket (RFC 6455, section 4.2).

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::debug;

use super::connection::Peer;
use super::head_timeout::HeadTimeout;
use super::outlet::ProtocolSide;
use super::stream::Stream;

/// A request that asks for a WebSocket.
pub(crate) struct Opening {
    accept: String,
    upgrade: OnUpgrade,
    peer: Peer,
}

impl Opening {
    /// Takes what there is to an opening handshake out of a request, if it is one that a
    /// [`Server`](super::Server) took.
    pub(crate) fn take(request: &mut Request<Body>) -> Option<Self> {
        let headers = request.headers();
        let asks = request.method() == Method::GET
            && has_token(headers, &header::UPGRADE, "websocket")
            && has_token(headers, &header::CONNECTION, "upgrade");
        let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| asks)?;
        let accept = derive_accept_key(key.as_bytes());
        let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<Peer>>()?.clone();
        let upgrade = request.extensions_mut().remove::<OnUpgrade>()?;
        Some(Self { accept, upgrade, peer })
    }

    /// What the client waits for.
    pub(crate) fn answer(&self) -> Response {
        let head = [
            (header::UPGRADE, "websocket"),
            (header::CONNECTION, "Upgrade"),
            (header::SEC_WEBSOCKET_ACCEPT, &self.accept),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, head).into_response()
    }

    /// The connection, once the client was answered; `None` if it left before. So many frames may wait
    /// for a client that does not read.
    pub(crate) async fn connection(self, queue: usize) -> Option<ProtocolSide> {
        let upgraded =
            self.upgrade.await.inspect_err(|error| debug!(%error, "no WebSocket was made")).ok()?;
        match upgraded.downcast::<TokioIo<HeadTimeout<Stream>>>() {
            Ok(parts) => {
                let mut stream = parts.io.into_inner().into_inner();
                // What came behind the head. A copy, as it lies in a buffer of hyper's.
                stream.put_back(Bytes::copy_from_slice(&parts.read_buf));
                Some(ProtocolSide::new(stream, self.peer, queue))
            }
            // Only what a `Server` has taken has a peer, and that is such a connection.
            Err(_) => None,
        }
    }
}

/// Whether the field's list (RFC 9110, section 5.6.1) has this token in it.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|its| its.trim().eq_ignore_ascii_case(token))
}
