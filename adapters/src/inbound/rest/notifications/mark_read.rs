use std::slice;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};

use super::super::caller::{Caller, Changing};
use super::super::openapi::{CallerProblems, IdProblems};
use super::super::path::IdInPath;
use super::super::problem::{Kind, Problem};
use super::super::router::RestUseCases;
use crate::wire::NotificationForm;

/// Mark one of your notifications as read
///
/// Marking it again changes nothing: it was read when it was read first.
#[utoipa::path(
    method(patch, post, put), path = "/v1/notifications/{id}/read", tag = "inbox",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "Its id, percent-encoded.")),
    responses(
        (status = 200, description = "The notification, read.", body = NotificationForm),
        CallerProblems, IdProblems,
    ),
)]
pub(super) async fn mark_read(
    caller: Caller<Changing>,
    State(stories): State<RestUseCases>,
    IdInPath(id): IdInPath,
) -> Result<Response, Problem> {
    stories.mark_read.run(caller.user(), slice::from_ref(&id)).await?;
    let notification = stories.get.run(caller.user(), &id).await?.ok_or(Kind::NotFound)?;
    Ok(Json(NotificationForm::from(&notification)).into_response())
}
