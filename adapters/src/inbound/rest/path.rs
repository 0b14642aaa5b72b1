//! Ids in paths, percent-decoded and valid.

use axum::extract::{FromRequestParts, RawPathParams};
use belfry_domain::{NotificationId, UserId};
use http::request::Parts;

use super::problem::{Problem, ProblemKind};

/// The id of the notification in the path. A route without a parameter, such as `/v1/notifications/batch`, also
/// serves the notification with this id, so the id is the last segment.
pub(super) struct IdInPath(pub(super) NotificationId);

impl<S: Send + Sync> FromRequestParts<S> for IdInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = only_parameter(parts, state).await?;
        NotificationId::parse(&raw).map(Self).map_err(|error| invalid(error.to_string()))
    }
}

/// The id of the user in the path.
pub(super) struct UserInPath(pub(super) UserId);

impl<S: Send + Sync> FromRequestParts<S> for UserInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = only_parameter(parts, state).await?;
        UserId::parse(&raw).map(Self).map_err(|error| invalid(error.to_string()))
    }
}

async fn only_parameter(parts: &mut Parts, state: &(impl Send + Sync)) -> Result<String, Problem> {
    let parameters = RawPathParams::from_request_parts(parts, state).await;
    let parameters =
        parameters.map_err(|_| invalid("an id must be percent-encoded UTF-8".to_owned()))?;
    let segment = || parts.uri.path().rsplit('/').next().unwrap_or_default();
    Ok(parameters.iter().next().map_or_else(segment, |(_, raw)| raw).to_owned())
}

fn invalid(detail: String) -> Problem {
    Problem::new(ProblemKind::IdInvalid, detail)
}
