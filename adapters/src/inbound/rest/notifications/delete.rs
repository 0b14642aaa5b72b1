use axum::extract::State;
use http::StatusCode;

use super::super::caller::{Caller, Changing};
use super::super::openapi::{CallerProblems, IdProblems};
use super::super::path::IdInPath;
use super::super::problem::{Kind, Problem};
use super::super::router::RestUseCases;

/// Delete one of your notifications
///
/// It is gone from all your devices, and a sender who tries again does not bring it back.
#[utoipa::path(
    delete, path = "/v1/notifications/{id}", tag = "inbox", security(("bearer" = [])),
    operation_id = "delete_notification",
    params(("id" = String, Path, description = "Its id, percent-encoded.")),
    responses((status = 204, description = "It is gone."), CallerProblems, IdProblems),
)]
pub(super) async fn delete(
    caller: Caller<Changing>,
    State(stories): State<RestUseCases>,
    IdInPath(id): IdInPath,
) -> Result<StatusCode, Problem> {
    stories.delete.run(caller.user(), &id).await?.ok_or(Kind::NotFound)?;
    Ok(StatusCode::NO_CONTENT)
}
