//! The opening handshake of a WebSocket (RFC 6455, section 4.2).
//!
//! The response names no extension, which declines them all. ADR 24 explains why `permessage-deflate` (RFC 7692)
//! is not worth its cost here.

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::debug;

use super::frame_writer::{FrameWriter, WebSocketReader, split};
use super::stream::Stream;

/// A valid request for a WebSocket that has not been answered yet.
pub(crate) struct OpeningHandshake {
    accept: String,
    subprotocol: Option<HeaderValue>,
    upgrade: OnUpgrade,
}

/// Why a request is not a valid opening handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidHandshake {
    /// Not a handshake, or a malformed one.
    Malformed,
    /// The version is not [`VERSION`](OpeningHandshake::VERSION).
    UnsupportedVersion,
}

impl OpeningHandshake {
    /// The supported version of the WebSocket protocol.
    pub(crate) const VERSION: &str = "13";

    /// Takes the handshake out of a request of a [`Server`](super::Server).
    pub(crate) fn take(request: &mut Request<Body>) -> Result<Self, InvalidHandshake> {
        check(request)?;
        let headers = request.headers();
        let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(InvalidHandshake::Malformed)?;
        let accept = derive_accept_key(key.as_bytes());
        let subprotocol = first_subprotocol(headers);
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let upgrade = upgrade.ok_or(InvalidHandshake::Malformed)?;
        Ok(Self { accept, subprotocol, upgrade })
    }

    /// The response that the client waits for.
    pub(crate) fn response(&self) -> Response {
        let head = [
            (header::UPGRADE, "websocket"),
            (header::CONNECTION, "Upgrade"),
            (header::SEC_WEBSOCKET_ACCEPT, &self.accept),
        ];
        let mut response = (StatusCode::SWITCHING_PROTOCOLS, head).into_response();
        if let Some(chosen) = &self.subprotocol {
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, chosen.clone());
        }
        response
    }

    /// The two halves of the connection once the response is sent; `None` if the client has gone. A message from
    /// the client may have at most `max_message` bytes.
    pub(crate) async fn accept(self, max_message: usize) -> Option<(FrameWriter, WebSocketReader)> {
        let upgraded = self.upgrade.await;
        let upgraded = upgraded.inspect_err(|error| debug!(%error, "WebSocket not opened")).ok()?;
        // Every connection of a `Server` has this type.
        let parts = upgraded.downcast::<TokioIo<Stream>>().ok()?;
        let mut stream = parts.io.into_inner();
        stream.set_head_timeout(None);
        // Bytes after the request head. They are copied, because a slice would keep hyper's whole buffer alive.
        stream.put_back(Bytes::copy_from_slice(&parts.read_buf));
        Some(split(stream, max_message))
    }
}

fn check(request: &Request<Body>) -> Result<(), InvalidHandshake> {
    let headers = request.headers();
    let is_handshake = request.method() == Method::GET
        && request.version() >= Version::HTTP_11
        && has_token(headers, &header::UPGRADE, "websocket")
        && has_token(headers, &header::CONNECTION, "upgrade");
    if !is_handshake {
        return Err(InvalidHandshake::Malformed);
    }
    if only_value(headers, &header::SEC_WEBSOCKET_VERSION) != Some(OpeningHandshake::VERSION) {
        return Err(InvalidHandshake::UnsupportedVersion);
    }
    let key = only_value(headers, &header::SEC_WEBSOCKET_KEY);
    match key.map(|key| BASE64_STANDARD.decode(key)) {
        Some(Ok(nonce)) if nonce.len() == 16 => Ok(()),
        _ => Err(InvalidHandshake::Malformed),
    }
}

/// The value of a field that must occur exactly once.
fn only_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// The first subprotocol that the client offers. Browsers fail a connection if the server selects none of those
/// offered. The choice makes no difference to this server.
fn first_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL).next()?;
    HeaderValue::from_str(offered).ok()
}

/// Whether the field's list contains the token.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|its| its.eq_ignore_ascii_case(token))
}

/// The elements of a field's list (RFC 9110, section 5.6.1).
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(changes: &[(&str, &str)]) -> Request<Body> {
        let mut request = Request::get("/").body(Body::empty()).unwrap();
        for (name, value) in [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]
        .iter()
        .chain(changes)
        {
            request
                .headers_mut()
                .insert(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        request
    }

    #[test]
    fn handshake_that_breaks_the_protocol_is_rejected() {
        assert_eq!(check(&handshake(&[])), Ok(()));
        for (name, value) in [
            ("upgrade", "h2c"),
            ("connection", "keep-alive"),
            ("sec-websocket-key", ""),
            ("sec-websocket-key", "c2hvcnQ="),
            ("sec-websocket-key", "no base64 at all"),
        ] {
            assert_eq!(
                check(&handshake(&[(name, value)])),
                Err(InvalidHandshake::Malformed),
                "{value}"
            );
        }
        for version in ["8", "", "13, 8"] {
            let request = handshake(&[("sec-websocket-version", version)]);
            assert_eq!(check(&request), Err(InvalidHandshake::UnsupportedVersion), "{version}");
        }
        let mut twice = handshake(&[]);
        twice
            .headers_mut()
            .append(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
        assert_eq!(check(&twice), Err(InvalidHandshake::Malformed));
        let mut post = handshake(&[]);
        *post.method_mut() = Method::POST;
        assert_eq!(check(&post), Err(InvalidHandshake::Malformed));
    }

    #[test]
    fn first_offered_subprotocol_is_selected() {
        let selected = |offer: &str| {
            first_subprotocol(handshake(&[("sec-websocket-protocol", offer)]).headers())
        };
        assert_eq!(selected("notify.v1"), Some("notify.v1".parse().unwrap()));
        assert_eq!(selected(" , a, b"), Some("a".parse().unwrap()));
        assert_eq!(first_subprotocol(handshake(&[]).headers()), None);
    }
}
