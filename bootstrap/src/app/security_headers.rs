use axum::Router;
use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue};
use tower::ServiceBuilder;
use tower_http::set_header::SetResponseHeaderLayer;

/// Adds security headers to all responses: nosniff, no-referrer, and a policy that forbids scripts and frames. A
/// response that has one of these headers keeps its own.
pub(super) fn with_security_headers(router: Router) -> Router {
    let unless_set = |name: HeaderName, value| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    // All three are one layer of the router, because each layer boxes the future of every request. Polls that wait
    // keep these boxes.
    router.layer(
        ServiceBuilder::new()
            .layer(unless_set(X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .layer(unless_set(REFERRER_POLICY, "no-referrer"))
            .layer(unless_set(
                CONTENT_SECURITY_POLICY,
                "default-src 'none'; frame-ancestors 'none'",
            )),
    )
}
