//! Which web pages of other origins may talk to us.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, ORIGIN, RETRY_AFTER};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde_json::json;
use tower_http::cors::CorsLayer;
use tracing::debug;

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

/// Refuses what pages of other origins ask of these routes, but for those that are allowed.
///
/// Browsers let any page open a WebSocket to anywhere, and leave it to the server to look at `Origin`
/// (RFC 6455, 10.2). A request without one is no page's.
pub fn only_pages_of(router: Router, allowed: &[AllowedOrigin]) -> Router {
    router.layer(from_fn_with_state(Arc::<[AllowedOrigin]>::from(allowed), refuse_others))
}

async fn refuse_others(
    State(allowed): State<Arc<[AllowedOrigin]>>,
    request: Request,
    next: Next,
) -> Response {
    if is_welcome(request.headers(), &allowed) {
        return next.run(request).await;
    }
    debug!("a page of another origin was refused");
    // As Engine.IO words it.
    let forbidden = Json(json!({ "code": 4, "message": "Forbidden" }));
    (StatusCode::FORBIDDEN, forbidden).into_response()
}

fn is_welcome(headers: &HeaderMap, allowed: &[AllowedOrigin]) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => {
            allowed.iter().any(|one| one.0 == origin) || is_own(origin, headers.get(HOST))
        }
        // No browser sends several.
        _ => false,
    }
}

/// Whether a page came from the host that it asks. The scheme is not compared: behind a proxy that ends
/// TLS only the browser knows it.
fn is_own(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let own = || {
        let origin: Uri = origin.to_str().ok()?.parse().ok()?;
        let usual = match origin.scheme_str()? {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host: Authority = host?.to_str().ok()?.parse().ok()?;
        let asking = origin.authority()?;
        let port = |of: &Authority| of.port_u16().unwrap_or(usual);
        Some(asking.host().eq_ignore_ascii_case(host.host()) && port(asking) == port(&host))
    };
    own().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_this_host_and_allowed_ones_are_welcome_and_whatever_is_no_page() {
        let allowed = [AllowedOrigin::parse("https://app.example.org").unwrap()];
        let welcome = |origins: &[&str], host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            for origin in origins {
                headers.append(ORIGIN, origin.parse().unwrap());
            }
            is_welcome(&headers, &allowed)
        };
        for (origin, host) in [
            ("http://belfry.example.org:8080", "belfry.example.org:8080"),
            ("https://belfry.example.org", "belfry.example.org"),
            ("https://belfry.example.org", "belfry.example.org:443"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://belfry.example.org", "Belfry.Example.org"),
            ("https://app.example.org", "belfry.example.org"),
        ] {
            assert!(welcome(&[origin], host), "{origin} at {host}");
        }
        for (origin, host) in [
            ("https://evil.example.org", "belfry.example.org"),
            ("http://belfry.example.org:8081", "belfry.example.org:8080"),
            ("http://belfry.example.org", "belfry.example.org:443"),
            ("https://belfry.example.org.evil.org", "belfry.example.org"),
            ("http://app.example.org", "belfry.example.org"),
            ("null", "belfry.example.org"),
            ("file://belfry.example.org", "belfry.example.org"),
            ("", ""),
        ] {
            assert!(!welcome(&[origin], host), "{origin} at {host}");
        }
        assert!(welcome(&[], "belfry.example.org"));
        let own = "https://belfry.example.org";
        assert!(!welcome(&[own, "https://evil.example.org"], "belfry.example.org"));
    }

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
