//! The admin listener's routes, and the gauges.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use belfry_adapters::inbound::rest::{self, Readiness};
use belfry_application::ports::Outbox;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use super::context::AppContext;
use super::process_stats::ProcessStats;
use super::security_headers::with_security_headers;
use super::tasks::Task;
use crate::host_header;

/// The routes, and a task that updates the gauges.
pub(super) fn build(
    context: &AppContext,
    metrics: PrometheusHandle,
    stats: ProcessStats,
    outbox: Arc<dyn Outbox>,
) -> (Router, Task) {
    let routes = routes(metrics.clone(), context.readiness.clone(), stats.clone());
    let routes = with_host_check(routes, context.config.admin.hosts.clone());
    let gauges = update_gauges(metrics, stats, outbox, context.stop.clone());
    (routes, Task::new("gauges", gauges))
}

/// `/metrics` in the Prometheus text format, `/debug/runtime` in JSON, and the health routes of the public
/// listener.
fn routes(metrics: PrometheusHandle, readiness: Readiness, stats: ProcessStats) -> Router {
    let router = rest::health_routes(readiness)
        .route("/metrics", get(async move || metrics.render()))
        .route("/debug/runtime", get(async move || Json(stats.report())));
    with_security_headers(router)
}

/// Rejects requests that a web site may have caused by DNS rebinding: `/metrics` and `/debug` need no token.
fn with_host_check(routes: Router, hosts: Vec<String>) -> Router {
    let check = async |State(hosts): State<Arc<[String]>>, request: Request, next: Next| {
        let is_known = host_header::name(request.headers()).is_none_or(|name| {
            host_header::is_private(name) || hosts.iter().any(|it| it.eq_ignore_ascii_case(name))
        });
        if is_known {
            next.run(request).await
        } else {
            let problem = "unknown name in the Host header; add it to the setting admin.hosts\n";
            (StatusCode::FORBIDDEN, problem).into_response()
        }
    };
    routes.layer(middleware::from_fn_with_state(Arc::from(hosts), check))
}

async fn update_gauges(
    metrics: PrometheusHandle,
    stats: ProcessStats,
    outbox: Arc<dyn Outbox>,
    stop: CancellationToken,
) {
    const INTERVAL: Duration = Duration::from_secs(5);
    loop {
        metrics::gauge!("belfry_devices_connected").set(as_float(stats.sessions.count() as u64));
        metrics::gauge!("belfry_connections_open").set(as_float(stats.public.count() as u64));
        if let Some(Ok(backlog)) = stop.run_until_cancelled(outbox.backlog()).await {
            metrics::gauge!("belfry_outbox_backlog").set(as_float(backlog));
        }
        // Without upkeep, histograms keep every single value.
        metrics.run_upkeep();
        if stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
            return;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "no gauge counts beyond 2^52")]
fn as_float(count: u64) -> f64 {
    count as f64
}
