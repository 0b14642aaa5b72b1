//! Ids in paths, percent-decoded and valid.

use axum::extract::{FromRequestParts, RawPathParams};
use belfry_domain::{NotificationId, UserId};
use http::request::Parts;

use super::problem::{Problem, ProblemKind};

/// The id of the notification in the path. A fixed route such as `/v1/notifications/batch` also serves the
/// notification with the id `batch`.
pub(super) struct IdInPath(pub(super) NotificationId);

impl<S: Send + Sync> FromRequestParts<S> for IdInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = raw_id(parts, state).await?;
        NotificationId::parse(&raw).map(Self).map_err(|error| invalid(error.to_string()))
    }
}

/// The id of the user in the path.
pub(super) struct UserInPath(pub(super) UserId);

impl<S: Send + Sync> FromRequestParts<S> for UserInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = raw_id(parts, state).await?;
        UserId::parse(&raw).map(Self).map_err(|error| invalid(error.to_string()))
    }
}

/// The path's only parameter. In a route without a parameter, the id is the last segment of the path.
async fn raw_id(parts: &mut Parts, state: &(impl Send + Sync)) -> Result<String, Problem> {
    let parameters = RawPathParams::from_request_parts(parts, state).await;
    let parameters =
        parameters.map_err(|_| invalid("an id must be percent-encoded UTF-8".to_owned()))?;
    let last_segment = || parts.uri.path().rsplit('/').next().unwrap_or_default();
    Ok(parameters.iter().next().map_or_else(last_segment, |(_, raw)| raw).to_owned())
}

fn invalid(detail: String) -> Problem {
    Problem::new(ProblemKind::IdInvalid, detail)
}
