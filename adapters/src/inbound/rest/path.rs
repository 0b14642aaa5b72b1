//! Ids in paths, percent-decoded and valid.

use axum::extract::{FromRequestParts, Path};
use belfry_domain::{NotificationId, UserId};
use http::request::Parts;

use super::problem::{Problem, ProblemKind};

/// The notification of the path.
pub(super) struct IdInPath(pub(super) NotificationId);

impl<S: Send + Sync> FromRequestParts<S> for IdInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = only_parameter(parts, state).await?;
        NotificationId::parse(&raw).map(Self).map_err(|error| invalid(error.to_string()))
    }
}

/// The user of the path.
pub(super) struct UserInPath(pub(super) UserId);

impl<S: Send + Sync> FromRequestParts<S> for UserInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = only_parameter(parts, state).await?;
        UserId::parse(&raw).map(Self).map_err(|error| invalid(error.to_string()))
    }
}

async fn only_parameter(parts: &mut Parts, state: &(impl Send + Sync)) -> Result<String, Problem> {
    match Path::<String>::from_request_parts(parts, state).await {
        Ok(Path(raw)) => Ok(raw),
        Err(_) => Err(invalid("an id must be percent-encoded UTF-8")),
    }
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::IdInvalid, detail)
}
