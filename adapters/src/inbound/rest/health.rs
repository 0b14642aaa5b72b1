//! The health routes, for orchestrators and load balancers.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::readiness::{CheckState, Readiness};

/// Whether the process is running.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Liveness)]
pub(super) struct LivenessForm {
    /// Always `live`.
    #[schema(value_type = String, example = "live")]
    status: &'static str,
}

/// Whether the process can serve requests.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Readiness, example = json!({
    "status": "not_ready",
    "checks": { "database": "down", "keys": "up", "revocations": "up" },
    "reasons": { "database": "the database is read-only" },
}))]
pub(super) struct ReadinessForm {
    /// `ready` if every check is up, else `not_ready`.
    #[schema(value_type = String, pattern = "^(ready|not_ready)$")]
    status: &'static str,
    /// The dependencies of the process, each `up` or `down`.
    #[schema(value_type = BTreeMap<String, String>)]
    checks: BTreeMap<&'static str, &'static str>,
    /// The reason for each check that is `down`, for people; the details are in the log. Absent if every
    /// check is up.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>, required = false)]
    reasons: BTreeMap<&'static str, &'static str>,
}

/// Whether the process is running
///
/// A process that does not respond should be restarted.
#[utoipa::path(
    get, path = "/health/live", tag = "health",
    responses((status = 200, description = "The process is running.", body = LivenessForm)),
)]
pub(super) async fn live() -> Json<LivenessForm> {
    Json(LivenessForm { status: "live" })
}

/// Whether the process can serve requests
///
/// While it is not ready, requests and devices should be sent to another process.
#[utoipa::path(
    get, path = "/health/ready", tag = "health",
    responses(
        (status = 200, description = "Every check is up.", body = ReadinessForm),
        (status = 503, description = "A check is down.", body = ReadinessForm),
    ),
)]
pub(super) async fn ready(State(readiness): State<Readiness>) -> (StatusCode, Json<ReadinessForm>) {
    let checks = readiness.checks();
    let (code, status) = if checks.values().all(Result::is_ok) {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    };
    let status_of = |state: &CheckState| if state.is_ok() { "up" } else { "down" };
    let statuses = checks.iter().map(|(name, state)| (*name, status_of(state))).collect();
    let reasons = checks.iter().filter_map(|(name, state)| Some((*name, state.err()?))).collect();
    (code, Json(ReadinessForm { status, checks: statuses, reasons }))
}

/// The health routes alone, for the admin listener.
pub fn routes(readiness: Readiness) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .with_state(readiness)
}
