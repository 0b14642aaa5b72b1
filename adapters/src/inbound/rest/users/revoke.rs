use axum::Json;
use axum::extract::State;
use belfry_application::ports::{Revocation, TokenOwner};
use belfry_application::use_cases::RevokeTokens;
use belfry_domain::{Timestamp, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::authorized::{Authorized, Revoke};
use super::super::json;
use super::super::json_body::JsonBody;
use super::super::path::UserInPath;
use super::super::problem::Problem;
use super::super::problem_sets::RevokerProblems;
use super::super::query::NoQuery;
use crate::wire::Rfc3339;

/// Revoke a user's tokens
///
/// Revokes the tokens that were issued before an instant. They are rejected from now on, and sessions that
/// were opened with one are disconnected, on every node and within a second. A revocation cannot be undone;
/// of several, the one with the latest instant applies. A token without an issue time counts as issued
/// before, and so does one that was issued within the tolerated clock difference (`auth.leeway`) after the
/// instant.
#[utoipa::path(
    post, path = "/v1/users/{userId}/revocations", tag = "users", operation_id = "revoke_tokens",
    security(("bearer" = ["tokens:revoke"])),
    params(("userId" = String, Path, description = "The user's id, percent-encoded.")),
    request_body = RevocationForm,
    responses(
        (status = 200, description = "The revocation that applies.", body = RevokedForm),
        RevokerProblems,
    ),
)]
pub(super) async fn revoke(
    _caller: Authorized<Revoke>,
    _: NoQuery,
    State(revoke): State<RevokeTokens>,
    UserInPath(user): UserInPath,
    body: JsonBody,
) -> Result<Json<RevokedForm>, Problem> {
    let form: RevocationForm = json::parse(&body.bytes)?;
    let owner = TokenOwner::User(user.clone());
    let Revocation { issued_before, .. } = revoke.run(owner, form.instant()).await?;
    let issued_before = Rfc3339(issued_before);
    Ok(Json(RevokedForm { user_id: UserIdForm(user), issued_before }))
}

/// Which tokens to revoke.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
#[schema(as = Revocation)]
pub(super) struct RevocationForm {
    /// Tokens issued before this instant are revoked. Default: now. An instant in the future counts as now.
    #[schema(value_type = Option<String>, format = DateTime)]
    issued_before: Option<Rfc3339>,
}

impl RevocationForm {
    pub(super) fn instant(self) -> Option<Timestamp> {
        self.issued_before.map(|Rfc3339(instant)| instant)
    }
}

/// Which tokens are revoked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Revoked)]
pub(super) struct RevokedForm {
    /// The user.
    #[schema(value_type = String, example = "u42")]
    user_id: UserIdForm,
    /// Tokens issued before this instant are revoked.
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
