use axum::extract::{FromRequestParts, Path};
use belfry_domain::NotificationId;
use http::request::Parts;

use super::problem::{Kind, Problem};

/// The `{id}` of a path, percent-decoded and valid.
pub(super) struct IdInPath(pub(super) NotificationId);

impl<S: Send + Sync> FromRequestParts<S> for IdInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(raw) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::new(Kind::IdInvalid, "an id is UTF-8, percent-encoded"))?;
        NotificationId::parse(&raw)
            .map(Self)
            .map_err(|problem| Problem::new(Kind::IdInvalid, problem.to_string()))
    }
}
