//! The development page and its sign-in. Belfry serves both only with a development key, and only to this
//! machine.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use belfry_adapters::inbound::rest::BasePath;
use belfry_adapters::outbound::jwt::TokenMint;
use belfry_adapters::transport::Peer;
use belfry_adapters::wire::Rfc3339;
use belfry_application::ports::{Clock, Scopes};
use belfry_domain::UserId;
use serde::Deserialize;
use serde_json::json;

use crate::host_header;

/// The lifetime of tokens from the development sign-in and `belfry send`.
pub const TOKEN_LIFETIME: Duration = Duration::from_hours(12);

#[derive(Clone)]
struct DevelopmentSignIn {
    mint: Arc<TokenMint>,
    clock: Arc<dyn Clock>,
}

/// `/` with its assets, and `POST /dev/token`, under the base path. The page uses relative URLs; they
/// resolve correctly because its path ends with a slash.
pub fn routes(base_path: &BasePath, mint: Arc<TokenMint>, clock: Arc<dyn Clock>) -> Router {
    let at = |path| base_path.join(path);
    let mut routes = Router::new();
    if !base_path.is_root() {
        let page = at("/");
        routes = routes.route(base_path.as_str(), get(async move || Redirect::temporary(&page)));
    }
    routes
        .route(&at("/"), get(async || asset("text/html", include_str!("../web/index.html"))))
        .route(
            &at("/web/app.js"),
            get(async || asset("text/javascript", include_str!("../web/app.js"))),
        )
        .route(
            &at("/web/bell.css"),
            get(async || asset("text/css", include_str!("../web/bell.css"))),
        )
        .route(
            &at("/web/socket.io.min.js"),
            get(async || asset("text/javascript", include_str!("../web/socket.io.min.js"))),
        )
        .route(&at("/dev/token"), post(token))
        .layer(middleware::from_fn(require_direct_local_request))
        .with_state(DevelopmentSignIn { mint, clock })
}

fn asset(content_type: &'static str, content: &'static str) -> impl IntoResponse {
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                  img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    let headers = [
        (CONTENT_TYPE, format!("{content_type}; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, policy.to_owned()),
        // An asset changes only with the binary. The date of the binary is not known, so there is no `Last-Modified`,
        // and browsers load the asset each time.
        (CACHE_CONTROL, "no-cache".to_owned()),
    ];
    (headers, content)
}

#[derive(Deserialize)]
struct TokenRequest {
    user: String,
}

/// Issues a token for any user without authentication, so it is served on loopback only.
async fn token(
    State(sign_in): State<DevelopmentSignIn>,
    Json(request): Json<TokenRequest>,
) -> Result<Response, Response> {
    let user = UserId::parse_addressable(&request.user).map_err(|problem| {
        (StatusCode::UNPROCESSABLE_ENTITY, problem.to_string()).into_response()
    })?;
    let now = sign_in.clock.now();
    let token = sign_in.mint.mint(&user, &[Scopes::WRITE], TOKEN_LIFETIME, now);
    let expires_at = Rfc3339(now.plus(TOKEN_LIFETIME));
    let no_store = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((no_store, Json(json!({ "token": token, "expiresAt": expires_at }))).into_response())
}

/// Rejects every request but those of a browser or program on this machine that connects directly. Two kinds of
/// request come from this machine on behalf of others:
///
/// - Through a proxy, the peer is the proxy, and anyone can be behind it. Proxies usually add one of the
///   [forwarding headers](is_forwarding). Peers on a Unix socket count as proxies.
/// - A web site can resolve its own name to 127.0.0.1 (DNS rebinding) and would then have the same origin, but
///   the browser still sends that name as `Host`.
async fn require_direct_local_request(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let is_direct_and_local = peer.address.ip().to_canonical().is_loopback()
        && !peer.is_on_unix_socket()
        && !headers.keys().any(is_forwarding);
    if !is_direct_and_local {
        let problem =
            "the development page is available only on this machine and not through a proxy\n";
        return (StatusCode::FORBIDDEN, problem).into_response();
    }
    if !host_header::name(headers).is_some_and(host_header::is_loopback) {
        let problem = "open this page at http://localhost or http://127.0.0.1\n";
        return (StatusCode::FORBIDDEN, problem).into_response();
    }
    next.run(request).await
}

/// Whether proxies add this header (RFC 7239; RFC 9110, section 7.6.3; and common ones without an RFC).
fn is_forwarding(name: &HeaderName) -> bool {
    const NAMES: [&str; 8] = [
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
    ];
    name.as_str().starts_with("x-forwarded-") || NAMES.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_proxies_add_are_forwarding_headers() {
        for name in ["forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-proto"] {
            assert!(is_forwarding(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["host", "origin", "x-request-id", "content-type"] {
            assert!(!is_forwarding(&HeaderName::from_static(name)), "{name}");
        }
    }
}
