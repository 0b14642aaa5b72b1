//! The operators' listener: metrics, health, and what the process is doing.

use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use belfry_adapters::inbound::rest::{self, Readiness};
use belfry_application::ports::Outbox;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use super::runtime::Runtime;

/// `/metrics` in the Prometheus text format, `/debug/runtime` in JSON, and the health routes of the public
/// listener.
pub(super) fn routes(metrics: PrometheusHandle, readiness: Readiness, runtime: Runtime) -> Router {
    rest::health_routes(readiness)
        .route("/metrics", get(async move || metrics.render()))
        .route("/debug/runtime", get(async move || Json(runtime.report())))
}

/// Measures what is a state rather than an event, every few seconds.
pub(super) async fn measure(
    metrics: PrometheusHandle,
    runtime: Runtime,
    outbox: Arc<dyn Outbox>,
    stop: CancellationToken,
) {
    const EVERY: Duration = Duration::from_secs(5);
    loop {
        metrics::gauge!("belfry_devices_connected").set(as_float(runtime.sessions.count() as u64));
        metrics::gauge!("belfry_connections_open").set(as_float(runtime.public.count() as u64));
        if let Some(Ok(backlog)) = stop.run_until_cancelled(outbox.backlog()).await {
            metrics::gauge!("belfry_outbox_backlog").set(as_float(backlog));
        }
        // Histograms are kept as single values until somebody does this.
        metrics.run_upkeep();
        if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "no gauge counts beyond 2^52")]
fn as_float(count: u64) -> f64 {
    count as f64
}
