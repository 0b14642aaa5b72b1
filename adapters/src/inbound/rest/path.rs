use axum::extract::{FromRequestParts, Path};
use belfry_domain::{NotificationId, UserId};
use http::request::Parts;

use super::problem::{Kind, Problem};

/// The `{id}` of a path, percent-decoded and valid.
pub(super) struct IdInPath(pub(super) NotificationId);

impl<S: Send + Sync> FromRequestParts<S> for IdInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = only_part(parts, state).await?;
        let id = NotificationId::parse(&raw);
        id.map(Self).map_err(|problem| Problem::new(Kind::IdInvalid, problem.to_string()))
    }
}

/// The `{userId}` of a path, percent-decoded and valid.
pub(super) struct UserInPath(pub(super) UserId);

impl<S: Send + Sync> FromRequestParts<S> for UserInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = only_part(parts, state).await?;
        let user = UserId::parse(&raw);
        user.map(Self).map_err(|problem| Problem::new(Kind::IdInvalid, problem.to_string()))
    }
}

async fn only_part(parts: &mut Parts, state: &(impl Send + Sync)) -> Result<String, Problem> {
    let raw = Path::<String>::from_request_parts(parts, state).await;
    let Path(raw) =
        raw.map_err(|_| Problem::new(Kind::IdInvalid, "an id is UTF-8, percent-encoded"))?;
    Ok(raw)
}
