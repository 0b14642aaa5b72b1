//! The development page and its sign-in. Belfry serves both only with a development key.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use belfry_adapters::inbound::rest::BasePath;
use belfry_adapters::outbound::jwt::TokenMint;
use belfry_adapters::wire::Rfc3339;
use belfry_application::ports::{Clock, Scopes};
use belfry_domain::UserId;
use serde::Deserialize;
use serde_json::json;

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
        .layer(middleware::from_fn(require_local_host))
        .with_state(DevelopmentSignIn { mint, clock })
}

fn asset(content_type: &'static str, content: &'static str) -> impl IntoResponse {
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                  img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    let headers = [
        (CONTENT_TYPE, format!("{content_type}; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, policy.to_owned()),
        // An asset changes with the binary, which has no date for `Last-Modified`.
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
    let user = UserId::parse(&request.user).map_err(|problem| {
        (StatusCode::UNPROCESSABLE_ENTITY, problem.to_string()).into_response()
    })?;
    let now = sign_in.clock.now();
    let token = sign_in.mint.mint(&user, &[Scopes::WRITE], TOKEN_LIFETIME, now);
    let expires_at = Rfc3339(now.plus(TOKEN_LIFETIME));
    let no_store = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((no_store, Json(json!({ "token": token, "expiresAt": expires_at }))).into_response())
}

/// Rejects requests whose `Host` is not a name of the local machine (DNS rebinding). A web site can
/// resolve its own name to 127.0.0.1 and would then have the same origin, but the browser still sends that
/// name as `Host`.
async fn require_local_host(headers: HeaderMap, request: Request, next: Next) -> Response {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_local_host(host) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "open this page at http://localhost or http://127.0.0.1\n")
            .into_response()
    }
}

fn is_local_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_local_host;

    #[test]
    fn only_loopback_names_are_local_hosts() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST:1"] {
            assert!(is_local_host(host), "{host}");
        }
        for host in
            ["", "evil.example:8080", "localhost.evil.example", "10.0.0.1", "127.0.0.1.nip.io"]
        {
            assert!(!is_local_host(host), "{host}");
        }
    }
}
