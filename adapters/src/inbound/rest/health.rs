//! Whether this process lives, and whether it can work.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use parking_lot::RwLock;
use serde::Serialize;
use utoipa::ToSchema;

/// What this process needs in order to work, and how each of it is at the moment.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<&'static str, Arc<AtomicBool>>>>);

impl Readiness {
    /// Something more that is needed, under that name. Until its check says otherwise it is down,
    /// and so it is again once nobody reports on it any more: once the check is dropped.
    pub fn needs(&self, name: &'static str) -> ReadinessCheck {
        let up = Arc::new(AtomicBool::new(false));
        self.0.write().insert(name, up.clone());
        ReadinessCheck(up)
    }

    /// Whether all of it is up.
    pub fn is_ready(&self) -> bool {
        self.0.read().values().all(|up| up.load(Ordering::Relaxed))
    }

    fn report(&self) -> ReadinessForm {
        let state = |up: &AtomicBool| if up.load(Ordering::Relaxed) { "up" } else { "down" };
        let checks: BTreeMap<_, _> =
            self.0.read().iter().map(|(name, up)| (*name, state(up))).collect();
        // From the same look at the checks that is told: the two never contradict each other.
        let ready = checks.values().all(|state| *state == "up");
        ReadinessForm { status: if ready { "ready" } else { "not_ready" }, checks }
    }
}

/// Reports on one thing that is needed.
#[must_use = "what nobody reports on is down"]
pub struct ReadinessCheck(Arc<AtomicBool>);

impl ReadinessCheck {
    /// It is there.
    pub fn up(&self) {
        self.set(true);
    }

    /// It is not.
    pub fn down(&self) {
        self.set(false);
    }

    /// It is there or not.
    pub fn set(&self, up: bool) {
        self.0.store(up, Ordering::Relaxed);
    }
}

impl Drop for ReadinessCheck {
    fn drop(&mut self) {
        self.down();
    }
}

impl fmt::Debug for ReadinessCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadinessCheck").field(&self.0.load(Ordering::Relaxed)).finish()
    }
}

/// Whether the process lives, in JSON.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Liveness)]
pub(super) struct LivenessForm {
    /// Always `live`.
    #[schema(value_type = String, example = "live")]
    status: &'static str,
}

/// Whether the process can work, in JSON.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Readiness)]
pub(super) struct ReadinessForm {
    /// `ready` if every check is up, else `not_ready`.
    #[schema(value_type = String, pattern = "^(ready|not_ready)$", example = "ready")]
    status: &'static str,
    /// What is needed: `up` or `down`.
    #[schema(
        value_type = BTreeMap<String, String>,
        example = json!({ "amqp": "up", "database": "up", "keys": "up", "revocations": "up" })
    )]
    checks: BTreeMap<&'static str, &'static str>,
}

/// Whether the process lives
///
/// A process that does not answer this is to be restarted.
#[utoipa::path(
    get, path = "/health/live", tag = "health",
    responses((status = 200, description = "It lives.", body = LivenessForm)),
)]
pub(super) async fn live() -> Json<LivenessForm> {
    Json(LivenessForm { status: "live" })
}

/// Whether the process can work
///
/// While it cannot, requests and devices are to be sent to another one.
#[utoipa::path(
    get, path = "/health/ready", tag = "health",
    responses(
        (status = 200, description = "All that it needs is up.", body = ReadinessForm),
        (status = 503, description = "Something is down.", body = ReadinessForm),
    ),
)]
pub(super) async fn ready(State(readiness): State<Readiness>) -> (StatusCode, Json<ReadinessForm>) {
    let report = readiness.report();
    let status = match report.status {
        "ready" => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(report))
}

/// Both routes by themselves, for a listener of the operators' own.
pub fn routes(readiness: Readiness) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .with_state(readiness)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_all_that_it_needs_is_up() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready(), "it needs nothing");
        let (database, amqp) = (readiness.needs("database"), readiness.needs("amqp"));
        assert!(!readiness.is_ready());
        database.up();
        assert!(!readiness.is_ready());
        amqp.up();
        assert!(readiness.clone().is_ready());
        database.down();
        assert!(!readiness.is_ready());
    }

    #[test]
    fn what_nobody_reports_on_is_down() {
        let readiness = Readiness::default();
        let database = readiness.needs("database");
        database.up();
        drop(database);
        assert!(!readiness.is_ready());
    }
}
