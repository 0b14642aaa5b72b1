use axum::response::{IntoResponse, Response};
use engineioxide_core::TransportType;
use http::{Method, StatusCode, Uri, header};

use super::session_id::SessionId;
use crate::outbound::socketio::RequestTag;
use crate::transport::{InvalidHandshake, OpeningHandshake};

/// The purpose of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Target {
    /// Opens a session.
    Open(TransportType),
    /// Fetches packets from a session.
    Poll(SessionId, RequestTag),
    /// Sends packets to a session.
    Post(SessionId, RequestTag),
    /// Opens a WebSocket for a polling session.
    Upgrade(SessionId),
}

/// Why a request is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestError {
    UnknownTransport,
    UnknownSession,
    BadHandshakeMethod,
    BadRequest,
    UnsupportedVersion,
    UnsupportedWebSocketVersion,
}

/// A hint for clients of Socket.IO 2, which send `EIO=3`. Their libraries report only an error of the transport, so
/// the hint is for a developer who looks at the response.
const OLD_CLIENT_HINT: &str = r#","hint":"Engine.IO 4 is required: use socket.io-client 3 or 4, or a client of Socket.IO protocol 5""#;

impl RequestError {
    /// The code and message of the reference server, socket.io; `None` if HTTP has a status for the error.
    const fn code_and_message(self) -> Option<(u8, &'static str)> {
        Some(match self {
            Self::UnknownTransport => (0, "Transport unknown"),
            Self::UnknownSession => (1, "Session ID unknown"),
            Self::BadHandshakeMethod => (2, "Bad handshake method"),
            Self::BadRequest => (3, "Bad request"),
            Self::UnsupportedVersion => (5, "Unsupported protocol version"),
            Self::UnsupportedWebSocketVersion => return None,
        })
    }
}

impl From<InvalidHandshake> for RequestError {
    fn from(invalid: InvalidHandshake) -> Self {
        match invalid {
            InvalidHandshake::Malformed => Self::BadRequest,
            InvalidHandshake::UnsupportedVersion => Self::UnsupportedWebSocketVersion,
        }
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let Some((code, message)) = self.code_and_message() else {
            // Names the version that the client should use (RFC 6455, section 4.4).
            let version = [(header::SEC_WEBSOCKET_VERSION, OpeningHandshake::VERSION)];
            return (StatusCode::UPGRADE_REQUIRED, version).into_response();
        };
        let hint = match self {
            Self::UnsupportedVersion => OLD_CLIENT_HINT,
            _ => "",
        };
        let body = format!(r#"{{"code":{code},"message":"{message}"{hint}}}"#);
        let head = [(header::CONTENT_TYPE, "application/json")];
        (StatusCode::BAD_REQUEST, head, body).into_response()
    }
}

impl Target {
    /// Finds the purpose of a request. A request without `sid` is checked in the same order as by the reference server.
    /// Unlike the reference server, this requires `EIO=4` also in a request with a `sid`.
    pub(super) fn parse(method: &Method, uri: &Uri) -> Result<Self, RequestError> {
        let Some(Ok(transport)) = parameter(uri, "transport").map(str::parse) else {
            return Err(RequestError::UnknownTransport);
        };
        let is_version_4 = parameter(uri, "EIO") == Some("4");
        let Some(sid) = parameter(uri, "sid") else {
            return match *method {
                Method::GET if is_version_4 => Ok(Self::Open(transport)),
                Method::GET => Err(RequestError::UnsupportedVersion),
                _ => Err(RequestError::BadHandshakeMethod),
            };
        };
        if !is_version_4 {
            return Err(RequestError::UnsupportedVersion);
        }
        let sid = SessionId::parse(sid).ok_or(RequestError::UnknownSession)?;
        match (transport, method) {
            (TransportType::Polling, &Method::GET) => Ok(Self::Poll(sid, request_tag(uri))),
            (TransportType::Polling, &Method::POST) => Ok(Self::Post(sid, request_tag(uri))),
            (TransportType::Websocket, &Method::GET) => Ok(Self::Upgrade(sid)),
            _ => Err(RequestError::BadRequest),
        }
    }
}

/// The Engine.IO version that a request names, if it is an older one than Belfry's.
pub(super) fn older_version(uri: &Uri) -> Option<u8> {
    parameter(uri, "EIO")?.parse().ok().filter(|version| *version < 4)
}

/// Whether a request tries to open a session. It may be invalid.
pub(in crate::inbound::socketio) fn is_opening(method: &Method, uri: &Uri) -> bool {
    method == Method::GET && parameter(uri, "sid").is_none()
}

/// Whether a request is valid and opens a session.
pub(in crate::inbound::socketio) fn is_valid_opening(method: &Method, uri: &Uri) -> bool {
    matches!(Target::parse(method, uri), Ok(Target::Open(_)))
}

/// The tag in the parameter `t`, by which a repeated request is recognised. The session keeps it in memory, so a long
/// tag counts as none.
fn request_tag(uri: &Uri) -> RequestTag {
    const MAX_LENGTH: usize = 64;
    parameter(uri, "t").filter(|tag| tag.len() <= MAX_LENGTH).map(Into::into)
}

/// A parameter of the query, without percent-decoding: Engine.IO's parameters do not need it.
fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn parse(method: &str, query: &str) -> Result<Target, RequestError> {
        let uri = format!("/socket.io/?{query}").parse().unwrap();
        Target::parse(&method.parse().unwrap(), &uri)
    }

    #[test]
    fn valid_request_has_a_target() {
        let sid = SessionId::parse(SID).unwrap();
        for (method, query, expected) in [
            ("GET", "EIO=4&transport=polling", Target::Open(TransportType::Polling)),
            ("GET", "transport=websocket&EIO=4&t=x", Target::Open(TransportType::Websocket)),
            ("GET", &format!("EIO=4&transport=polling&sid={SID}"), Target::Poll(sid, None)),
            (
                "GET",
                &format!("EIO=4&transport=polling&sid={SID}&t=a1"),
                Target::Poll(sid, Some("a1".into())),
            ),
            ("POST", &format!("EIO=4&transport=polling&sid={SID}"), Target::Post(sid, None)),
            ("GET", &format!("EIO=4&transport=websocket&sid={SID}"), Target::Upgrade(sid)),
        ] {
            assert_eq!(parse(method, query), Ok(expected), "{method} {query}");
        }
    }

    #[test]
    fn invalid_request_is_rejected_with_its_error() {
        for (method, query, expected) in [
            ("GET", "", RequestError::UnknownTransport),
            ("GET", "EIO=4", RequestError::UnknownTransport),
            ("GET", "EIO=4&transport=carrier-pigeon", RequestError::UnknownTransport),
            ("GET", "EIO=4&transport=polling&sid=x", RequestError::UnknownSession),
            ("POST", "EIO=4&transport=polling", RequestError::BadHandshakeMethod),
            ("PUT", "EIO=4&transport=polling", RequestError::BadHandshakeMethod),
            ("GET", "transport=polling", RequestError::UnsupportedVersion),
            ("GET", "EIO=3&transport=polling", RequestError::UnsupportedVersion),
            ("GET", "EIO=abc&transport=websocket", RequestError::UnsupportedVersion),
            ("GET", &format!("transport=polling&sid={SID}"), RequestError::UnsupportedVersion),
            ("PUT", &format!("EIO=4&transport=polling&sid={SID}"), RequestError::BadRequest),
            ("POST", &format!("EIO=4&transport=websocket&sid={SID}"), RequestError::BadRequest),
        ] {
            assert_eq!(parse(method, query), Err(expected), "{method} {query}");
        }
    }

    #[test]
    fn older_version_is_recognised() {
        let older = |query: &str| older_version(&format!("/socket.io/?{query}").parse().unwrap());
        assert_eq!(older("EIO=3&transport=polling"), Some(3));
        for query in ["EIO=4&transport=polling", "transport=polling", "EIO=x", "EIO="] {
            assert_eq!(older(query), None, "{query}");
        }
    }

    #[test]
    fn overlong_tag_counts_as_none() {
        let query = format!("EIO=4&transport=polling&sid={SID}&t={}", "x".repeat(65));
        assert!(matches!(parse("GET", &query), Ok(Target::Poll(_, None))));
    }
}
