use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};

use super::super::caller::{Caller, Reading};
use super::super::openapi::{CallerProblems, IdProblems};
use super::super::path::IdInPath;
use super::super::problem::{Kind, Problem};
use super::super::router::RestUseCases;
use crate::wire::NotificationForm;

/// One of your notifications
#[utoipa::path(
    get, path = "/v1/notifications/{id}", tag = "inbox", security(("bearer" = [])),
    operation_id = "get_notification",
    params(("id" = String, Path, description = "Its id, percent-encoded.")),
    responses(
        (status = 200, description = "The notification.", body = NotificationForm),
        CallerProblems, IdProblems,
    ),
)]
pub(super) async fn get(
    caller: Caller<Reading>,
    State(stories): State<RestUseCases>,
    IdInPath(id): IdInPath,
) -> Result<Response, Problem> {
    let notification = stories.get.run(caller.user(), &id).await?.ok_or(Kind::NotFound)?;
    Ok(Json(NotificationForm::from(&notification)).into_response())
}
