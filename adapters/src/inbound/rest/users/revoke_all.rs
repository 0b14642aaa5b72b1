use axum::Json;
use axum::extract::State;
use belfry_application::ports::{Revocation, TokenOwner};
use belfry_application::use_cases::RevokeTokens;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::authorized::{Authorized, Revoke};
use super::super::json;
use super::super::json_body::JsonBody;
use super::super::problem::Problem;
use super::super::problem_sets::GlobalRevokerProblems;
use super::super::query::NoQuery;
use super::revoke::RevocationForm;
use crate::wire::Rfc3339;

/// Revoke the tokens of all users
///
/// Revokes every token that was issued before an instant, those of services and the caller's own included.
/// They are rejected from now on, and sessions that were opened with one are disconnected, on every node and
/// within a second. A revocation cannot be undone; of several, the one with the latest instant applies. A
/// token without an issue time counts as issued before, and so does one that was issued within the tolerated
/// clock difference (`auth.leeway`) after the instant.
#[utoipa::path(
    post, path = "/v1/revocations", tag = "users", operation_id = "revoke_all_tokens",
    security(("bearer" = ["tokens:revoke"])),
    request_body = RevocationForm,
    responses(
        (status = 200, description = "The revocation that applies.", body = AllRevokedForm),
        GlobalRevokerProblems,
    ),
)]
pub(super) async fn revoke_all(
    _caller: Authorized<Revoke>,
    _: NoQuery,
    State(revoke): State<RevokeTokens>,
    body: JsonBody,
) -> Result<Json<AllRevokedForm>, Problem> {
    let form: RevocationForm = json::parse(&body.bytes)?;
    let Revocation { issued_before, .. } = revoke.run(TokenOwner::Everyone, form.instant()).await?;
    Ok(Json(AllRevokedForm { issued_before: Rfc3339(issued_before) }))
}

/// The revocation that applies to all users.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AllRevoked)]
pub(super) struct AllRevokedForm {
    /// Tokens issued before this instant are revoked.
    #[schema(value_type = String, format = DateTime)]
    issued_before: Rfc3339,
}
