//! The opening handshake of a WebSocket (RFC 6455, section 4.2).
//!
//! Extensions are declined by not naming any in the response. ADR 24 says why `permessage-deflate` (RFC 7692) is
//! not worth its cost here.

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
use super::head_timeout::HeadTimeout;
use super::stream::Stream;

/// A valid request for a WebSocket that has not been answered yet.
pub(crate) struct Opening {
    accept: String,
    subprotocol: Option<HeaderValue>,
    upgrade: OnUpgrade,
}

/// Why a request is no opening handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidOpening {
    /// Not a handshake, or a malformed one.
    Malformed,
    /// A version of the protocol other than 13.
    UnsupportedVersion,
}

impl InvalidOpening {
    /// The version that a client is to use instead (section 4.4), where that is the problem.
    pub(crate) fn required_version(self) -> Option<(HeaderName, &'static str)> {
        (self == Self::UnsupportedVersion).then_some((header::SEC_WEBSOCKET_VERSION, "13"))
    }
}

impl Opening {
    /// Takes the opening handshake out of a request that a [`Server`](super::Server) received.
    pub(crate) fn take(request: &mut Request<Body>) -> Result<Self, InvalidOpening> {
        check(request)?;
        let headers = request.headers();
        let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(InvalidOpening::Malformed)?;
        let accept = derive_accept_key(key.as_bytes());
        let subprotocol = first_subprotocol(headers);
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let upgrade = upgrade.ok_or(InvalidOpening::Malformed)?;
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

    /// The two halves of the connection, once the response is sent; `None` if the client left before. A
    /// message from the client has at most `max_message` bytes.
    pub(crate) async fn accept(self, max_message: usize) -> Option<(FrameWriter, WebSocketReader)> {
        let upgraded = self.upgrade.await;
        let upgraded = upgraded.inspect_err(|error| debug!(%error, "WebSocket not opened")).ok()?;
        // Every request of a `Server` comes over such a connection.
        let parts = upgraded.downcast::<TokioIo<HeadTimeout<Stream>>>().ok()?;
        let mut stream = parts.io.into_inner().into_inner();
        // What the client sent after the request head. A copy, or it would keep hyper's whole buffer alive.
        stream.put_back(Bytes::copy_from_slice(&parts.read_buf));
        Some(split(stream, max_message))
    }
}

fn check(request: &Request<Body>) -> Result<(), InvalidOpening> {
    let headers = request.headers();
    let is_handshake = request.method() == Method::GET
        && request.version() >= Version::HTTP_11
        && has_token(headers, &header::UPGRADE, "websocket")
        && has_token(headers, &header::CONNECTION, "upgrade");
    if !is_handshake {
        return Err(InvalidOpening::Malformed);
    }
    if only_value(headers, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(InvalidOpening::UnsupportedVersion);
    }
    let key = only_value(headers, &header::SEC_WEBSOCKET_KEY);
    match key.map(|key| BASE64_STANDARD.decode(key)) {
        Some(Ok(nonce)) if nonce.len() == 16 => Ok(()),
        _ => Err(InvalidOpening::Malformed),
    }
}

/// The value of a field that may occur once only.
fn only_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// The first subprotocol that the client offers. Browsers fail a connection whose server selects none of those
/// offered, and which of them it is means nothing here.
fn first_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL).next()?;
    HeaderValue::from_str(offered).ok()
}

/// Whether the field's list has that token in it.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
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
    fn handshake_is_checked_as_the_protocol_demands() {
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
                Err(InvalidOpening::Malformed),
                "{value}"
            );
        }
        for version in ["8", "", "13, 8"] {
            let request = handshake(&[("sec-websocket-version", version)]);
            assert_eq!(check(&request), Err(InvalidOpening::UnsupportedVersion), "{version}");
        }
        let mut twice = handshake(&[]);
        twice
            .headers_mut()
            .append(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
        assert_eq!(check(&twice), Err(InvalidOpening::Malformed));
        let mut post = handshake(&[]);
        *post.method_mut() = Method::POST;
        assert_eq!(check(&post), Err(InvalidOpening::Malformed));
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
