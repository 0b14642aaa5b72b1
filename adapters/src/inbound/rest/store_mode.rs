use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;

use super::problem::{Problem, ProblemKind};
use super::state::RestUseCases;

/// The use cases of operations on inboxes. In forward mode Belfry stores no inboxes, and the request is
/// rejected. Handlers extract the caller first, so that a caller without authorization does not learn the
/// mode.
pub(super) struct StoreMode(pub(super) Arc<RestUseCases>);

impl<S> FromRequestParts<S> for StoreMode
where
    S: Send + Sync,
    Option<Arc<RestUseCases>>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self, Problem> {
        let use_cases = Option::from_ref(state).map(Self);
        use_cases.ok_or_else(|| {
            let detail = "Belfry forwards notifications and stores none (amqp.ingest.mode is \"forward\"); use the API \
                          of the service that sends them";
            Problem::new(ProblemKind::InboxNotKept, detail)
        })
    }
}
