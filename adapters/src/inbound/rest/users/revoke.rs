use axum::Json;
use axum::extract::State;
use belfry_application::ports::Revocation;
use belfry_application::use_cases::RevokeTokens;
use belfry_domain::UserId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::body::Posted;
use super::super::caller::{Caller, Revoking};
use super::super::json;
use super::super::openapi::RevokerProblems;
use super::super::path::UserInPath;
use super::super::problem::Problem;
use crate::wire::Rfc3339;

/// Revoke a user's tokens
///
/// Those that were issued before an instant: nobody who shows one is let in any more, and sessions
/// that live on one end, on every node and within a second. It is never taken back; of two
/// revocations the later instant holds. A token that does not say when it was issued counts as
/// issued before.
#[utoipa::path(
    post, path = "/v1/users/{userId}/revocations", tag = "users", operation_id = "revoke_tokens",
    security(("bearer" = ["tokens:revoke"])),
    params(("userId" = String, Path, description = "Whose, percent-encoded.")),
    request_body = RevocationForm,
    responses(
        (status = 200, description = "The revocation that holds.", body = RevokedForm),
        RevokerProblems,
    ),
)]
pub(super) async fn revoke(
    _caller: Caller<Revoking>,
    State(revoke): State<RevokeTokens>,
    UserInPath(user): UserInPath,
    posted: Posted,
) -> Result<Json<RevokedForm>, Problem> {
    let form: RevocationForm = json::read(&posted.body)?;
    let kept = revoke.run(user, form.issued_before.map(|Rfc3339(instant)| instant)).await?;
    Ok(Json(kept.into()))
}

/// Which tokens to revoke.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
#[schema(as = Revocation)]
pub(super) struct RevocationForm {
    /// Those that were issued before this instant. Now, unless an earlier one is named.
    #[schema(value_type = Option<String>, format = DateTime)]
    issued_before: Option<Rfc3339>,
}

/// Which tokens hold no more.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Revoked)]
pub(super) struct RevokedForm {
    /// Whose.
    #[schema(value_type = String, example = "u42")]
    user_id: UserIdForm,
    /// Those that were issued before this instant.
    #[schema(value_type = String, format = DateTime)]
    issued_before: Rfc3339,
}

#[derive(Debug)]
struct UserIdForm(UserId);

impl Serialize for UserIdForm {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl From<Revocation> for RevokedForm {
    fn from(Revocation { user, issued_before }: Revocation) -> Self {
        Self { user_id: UserIdForm(user), issued_before: Rfc3339(issued_before) }
    }
}
