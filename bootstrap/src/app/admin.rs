//! The admin listener's routes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use belfry_adapters::inbound::rest;

use super::context::AppContext;
use super::process_stats::ProcessStats;
use super::prometheus::Prometheus;
use super::security_headers::with_security_headers;
use crate::host_header;

/// `/metrics` in the Prometheus text format, `/debug/runtime` in JSON, and the health routes of the public
/// listener.
pub(super) fn routes(context: &AppContext, metrics: Prometheus, stats: ProcessStats) -> Router {
    let router = rest::health_routes(context.readiness.clone())
        .route("/metrics", get(async move || render(metrics).await))
        .route("/debug/runtime", get(async move || Json(stats.report())));
    with_host_check(with_security_headers(router), context.config.admin.hosts.clone())
}

async fn render(metrics: Prometheus) -> impl IntoResponse {
    // Rendering counts the open files of the process. With thousands of connections, that takes
    // milliseconds.
    let text = tokio::task::spawn_blocking(move || metrics.render()).await;
    text.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

/// Rejects requests that a web site may have caused by DNS rebinding, because `/metrics` and `/debug` need no
/// token.
fn with_host_check(routes: Router, hosts: Vec<String>) -> Router {
    let check = async |State(hosts): State<Arc<[String]>>, request: Request, next: Next| {
        // Browsers always send the header, so a request without it was not caused by a web site.
        let is_allowed = host_header::name(request.headers()).is_none_or(|name| {
            host_header::is_private(name) || hosts.iter().any(|it| it.eq_ignore_ascii_case(name))
        });
        if is_allowed {
            next.run(request).await
        } else {
            let problem = "unknown name in the Host header; add it to the setting admin.hosts\n";
            (StatusCode::FORBIDDEN, problem).into_response()
        }
    };
    routes.layer(middleware::from_fn_with_state(Arc::from(hosts), check))
}
