//! Access by web pages of other origins (CORS, as in the Fetch standard).

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, LOCATION, ORIGIN, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::json;
use tower_http::cors::{AllowCredentials, AllowOrigin, CorsLayer};
use tracing::info;

use super::allowed_origin::AllowedOrigin;
use super::headers::{IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED, REQUEST_ID, TRACEPARENT};
use super::origin::Origin;
use crate::limits::ThrottledLog;

/// Settings for pages of other origins. By default no other origin is allowed.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    /// Origins whose pages may send requests, besides this server's own origin.
    pub origins: Vec<AllowedOrigin>,
    /// Whether requests of these pages may contain cookies and other credentials of the browser.
    pub credentials: bool,
    /// Allowed request headers in addition to the built-in ones.
    pub headers: Vec<AllowedHeader>,
}

/// The name of a request header that pages may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHeader(HeaderName);

/// The text is not an [`AllowedHeader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a request header is a name such as x-tenant; * is not accepted, as browsers do not apply it to \
     authorization nor to requests with credentials"
)]
pub struct InvalidHeader;

impl FromStr for AllowedHeader {
    type Err = InvalidHeader;

    fn from_str(raw: &str) -> Result<Self, InvalidHeader> {
        match raw.parse() {
            Ok(name) if raw != "*" => Ok(Self(name)),
            _ => Err(InvalidHeader),
        }
    }
}

/// Request headers that pages of allowed origins may always send: headers of the API, headers that tracing
/// libraries add to every request (W3C Trace Context and Baggage, Sentry), and `x-requested-with`, which
/// older libraries add to requests made by scripts.
const REQUEST_HEADERS: [HeaderName; 9] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    IDEMPOTENCY_KEY,
    REQUEST_ID,
    TRACEPARENT,
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
    HeaderName::from_static("sentry-trace"),
    HeaderName::from_static("x-requested-with"),
];

/// The result of checking a request's `Origin` header, the origin of the page that caused the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestOrigin {
    /// The request has no such header.
    Missing,
    /// A page of this server, or of an allowed origin.
    Allowed,
    /// Any other page.
    NotAllowed,
}

impl Cors {
    /// Whether every page is allowed.
    pub fn allows_any(&self) -> bool {
        self.origins.iter().any(AllowedOrigin::is_any)
    }

    /// Checks the `Origin` among the headers of a request.
    pub(super) fn origin_of(&self, headers: &HeaderMap) -> RequestOrigin {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => RequestOrigin::Missing,
            (Some(origin), None) if self.allows(origin) || is_own(origin, headers.get(HOST)) => {
                RequestOrigin::Allowed
            }
            // Browsers send at most one `Origin` header.
            _ => RequestOrigin::NotAllowed,
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        if self.allows_any() {
            return true;
        }
        let origin = origin.to_str().ok().and_then(Origin::parse);
        origin.is_some_and(|origin| self.origins.iter().any(|allowed| allowed.matches(&origin)))
    }
}

/// A layer that responds to preflight requests, and lets pages of allowed origins read responses. `None` if
/// no other origin is allowed: without CORS headers, browsers deny access by default.
///
/// The response repeats an allowed origin exactly as it was sent. It never contains `*`, because browsers reject
/// `*` for requests with credentials.
pub fn layer(cors: &Cors) -> Option<CorsLayer> {
    if cors.origins.is_empty() {
        return None;
    }
    let cors = Arc::new(cors.clone());
    let (for_origins, for_credentials) = (cors.clone(), cors.clone());
    let headers = REQUEST_HEADERS.into_iter().chain(cors.headers.iter().map(|name| name.0.clone()));
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| for_origins.allows(origin)))
        .allow_credentials(AllowCredentials::predicate(move |origin, _| {
            for_credentials.credentials && for_credentials.allows(origin)
        }))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(headers.collect::<Vec<_>>())
        .expose_headers([LOCATION, RETRY_AFTER, REQUEST_ID, IDEMPOTENT_REPLAYED])
        .max_age(Duration::from_hours(1));
    Some(layer)
}

/// Rejects requests of pages whose origin is neither allowed nor the server's own.
///
/// Browsers let any page open a WebSocket to any server, so the server must check `Origin` (RFC 6455, 10.2).
/// A request without `Origin` is accepted: browsers send `Origin` whenever a page opens a WebSocket or makes
/// a CORS request, so the request is not from a page of another origin.
pub fn check_origin(router: Router, cors: &Cors) -> Router {
    router.layer(from_fn_with_state(Arc::new(cors.clone()), reject_other_origins))
}

async fn reject_other_origins(
    State(cors): State<Arc<Cors>>,
    request: Request,
    next: Next,
) -> Response {
    if cors.origin_of(request.headers()) != RequestOrigin::NotAllowed {
        return next.run(request).await;
    }
    log_rejected(request.headers());
    // The error format of Engine.IO, in which 4 is the code for "Forbidden".
    let hint = "the origin of this page is not in the server's setting http.cors_origins";
    let forbidden = Json(json!({ "code": 4, "message": "Forbidden", "hint": hint }));
    (StatusCode::FORBIDDEN, forbidden).into_response()
}

fn log_rejected(headers: &HeaderMap) {
    /// The client determines the length of the header.
    const MAX_LOGGED_CHARS: usize = 200;
    static LOG: ThrottledLog = ThrottledLog::new();
    let Some(times) = LOG.record() else { return };
    let origin = headers.get(ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()));
    let origin: String = origin.unwrap_or_default().chars().take(MAX_LOGGED_CHARS).collect();
    info!(origin, times, "connection rejected: the page's origin is not in http.cors_origins");
}

/// Whether the host that receives the request also served the page.
fn is_own(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let origin = origin.to_str().ok().and_then(Origin::parse);
    let host = host.and_then(|host| host.to_str().ok());
    origin.zip(host).is_some_and(|(origin, host)| origin.is_served_by(host))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        let origins = origins.iter().map(|origin| origin.parse().unwrap()).collect();
        Cors { origins, ..Cors::default() }
    }

    #[test]
    fn requests_are_accepted_if_origin_is_own_or_allowed_or_missing() {
        let allowed = cors(&["https://app.example.org", "capacitor://localhost"]);
        let may_call = |origins: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "belfry.example.org".parse().unwrap());
            for origin in origins {
                headers.append(ORIGIN, origin.parse().unwrap());
            }
            allowed.origin_of(&headers) != RequestOrigin::NotAllowed
        };
        let own = "https://belfry.example.org";
        for origin in [own, "https://app.example.org:443", "capacitor://localhost"] {
            assert!(may_call(&[origin]), "{origin}");
        }
        for origin in ["https://evil.example.org", "http://app.example.org", "null", ""] {
            assert!(!may_call(&[origin]), "{origin}");
        }
        assert!(may_call(&[]));
        assert!(!may_call(&[own, "https://evil.example.org"]));
    }

    #[test]
    fn any_page_may_call_if_all_origins_are_allowed() {
        for origin in ["https://evil.example.org", "null", "", "not an origin"] {
            let headers = HeaderMap::from_iter([(ORIGIN, origin.parse().unwrap())]);
            assert_eq!(cors(&["*"]).origin_of(&headers), RequestOrigin::Allowed, "{origin}");
        }
    }

    #[tokio::test]
    async fn rejection_of_a_page_names_the_setting() {
        let router = Router::new().route("/", get(async || ""));
        let router = check_origin(router, &Cors::default());
        let request =
            http::Request::get("/").header("origin", "https://a.b").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
        assert!(String::from_utf8_lossy(&body).contains("http.cors_origins"), "{body:?}");
    }

    #[test]
    fn allowed_header_is_a_name_and_not_a_wildcard() {
        for raw in ["x-tenant", "X-Tenant"] {
            assert_eq!(raw.parse::<AllowedHeader>().unwrap().0.as_str(), "x-tenant");
        }
        for raw in ["", "*", "x tenant", "x-tenant:", "größe"] {
            assert_eq!(raw.parse::<AllowedHeader>(), Err(InvalidHeader), "{raw}");
        }
    }

    async fn preflight(cors: &Cors, origin: &str) -> HeaderMap {
        let router = Router::new().route("/", get(async || "")).layer(layer(cors).unwrap());
        let request = http::Request::options("/")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .body(Body::empty())
            .unwrap();
        router.oneshot(request).await.unwrap().headers().clone()
    }

    const ORIGIN_HEADER: &str = "access-control-allow-origin";
    const CREDENTIALS_HEADER: &str = "access-control-allow-credentials";

    #[tokio::test]
    async fn response_repeats_allowed_origin_as_it_was_sent() {
        let cors = cors(&["https://*.example.org", "https://example.org:443"]);
        for origin in ["https://a.example.org", "https://example.org", "https://example.org:443"] {
            assert_eq!(preflight(&cors, origin).await[ORIGIN_HEADER], origin);
        }
        assert!(!preflight(&cors, "https://evil.org").await.contains_key(ORIGIN_HEADER));
    }

    #[tokio::test]
    async fn credentials_are_allowed_only_if_configured_and_for_allowed_origins() {
        let (app, evil) = ("https://app.example.org", "https://evil.example.org");
        let without = cors(&[app]);
        let with = Cors { credentials: true, ..cors(&[app]) };
        assert_eq!(preflight(&with, app).await[CREDENTIALS_HEADER], "true");
        assert!(!preflight(&with, evil).await.contains_key(CREDENTIALS_HEADER));
        assert!(!preflight(&without, app).await.contains_key(CREDENTIALS_HEADER));
    }

    #[tokio::test]
    async fn request_headers_of_tracing_libraries_and_configured_ones_are_allowed() {
        let app = "https://app.example.org";
        let cors = Cors { headers: vec!["X-Tenant".parse().unwrap()], ..cors(&[app]) };
        let headers = preflight(&cors, app).await;
        let allowed = headers["access-control-allow-headers"].to_str().unwrap();
        for header in [
            "authorization",
            "content-type",
            "idempotency-key",
            "x-request-id",
            "traceparent",
            "tracestate",
            "baggage",
            "sentry-trace",
            "x-requested-with",
            "x-tenant",
        ] {
            assert!(allowed.split(',').any(|one| one == header), "{header} in {allowed}");
        }
    }

    #[test]
    fn layer_is_absent_without_allowed_origins() {
        assert!(layer(&Cors::default()).is_none());
    }
}
