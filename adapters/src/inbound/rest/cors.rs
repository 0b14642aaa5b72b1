//! Which web pages of other origins may talk to us.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Method, Uri};
use tower_http::cors::CorsLayer;

use super::body::IDEMPOTENCY_KEY;
use super::notifications::IDEMPOTENT_REPLAYED;
use super::observe::{REQUEST_ID, TRACEPARENT};

/// Where a web page comes from, as its browser writes it in `Origin` (RFC 6454, 6.2):
/// `https://app.example.org`, with a port where it is not the usual one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(HeaderValue);

/// A text is not an [`AllowedOrigin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an origin is a scheme, a host and perhaps a port, such as https://app.example.org")]
pub struct InvalidOrigin;

impl AllowedOrigin {
    /// Takes what a browser would send, and nothing that could never match: no path, no slash at the
    /// end, no capital letters, no `*`.
    pub fn parse(raw: &str) -> Result<Self, InvalidOrigin> {
        let uri: Uri = raw.parse().map_err(|_| InvalidOrigin)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(InvalidOrigin);
        };
        let as_sent = format!("{scheme}://{authority}") == raw
            && matches!(scheme, "http" | "https")
            && !authority.as_str().contains(['@', '*'])
            && !raw.bytes().any(|b| b.is_ascii_uppercase());
        if !as_sent {
            return Err(InvalidOrigin);
        }
        HeaderValue::from_str(raw).map(Self).map_err(|_| InvalidOrigin)
    }
}

/// Lets pages of these origins in. No layer where there are none: then browsers keep pages of others
/// away by themselves.
pub fn layer(origins: &[AllowedOrigin]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_origin(origins.iter().map(|origin| origin.0.clone()).collect::<Vec<_>>())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, IDEMPOTENCY_KEY, REQUEST_ID, TRACEPARENT])
        .expose_headers([LOCATION, RETRY_AFTER, REQUEST_ID, IDEMPOTENT_REPLAYED])
        .max_age(Duration::from_hours(1));
    Some(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for raw in ["https://app.example.org", "http://localhost:5173", "http://[::1]:8080"] {
            assert!(AllowedOrigin::parse(raw).is_ok(), "{raw}");
        }
        for raw in [
            "",
            "*",
            "null",
            "app.example.org",
            "https://app.example.org/",
            "https://a.b/c",
            "https://*.example.org",
            "https://user@example.org",
            "HTTPS://app.example.org",
            "https://App.example.org",
            "ftp://example.org",
            "https://",
            "https://a.b?c",
        ] {
            assert_eq!(AllowedOrigin::parse(raw), Err(InvalidOrigin), "{raw}");
        }
    }
}
