use axum::Json;
use axum::response::{IntoResponse as _, Response};

use super::super::authorized::{Authorized, ReadInbox};
use super::super::path::IdInPath;
use super::super::problem::{Problem, ProblemKind};
use super::super::problem_sets::{CallerProblems, IdProblems};
use super::super::query::NoQuery;
use super::super::store_mode::StoreMode;
use crate::wire::NotificationForm;

/// Get one of your notifications
#[utoipa::path(
    get, path = "/v1/notifications/{id}", tag = "inbox", security(("bearer" = [])),
    operation_id = "get_notification",
    params(("id" = String, Path, description = "The notification's id, percent-encoded.")),
    responses(
        (status = 200, description = "The notification.", body = NotificationForm),
        CallerProblems, IdProblems,
    ),
)]
pub(super) async fn get(
    caller: Authorized<ReadInbox>,
    StoreMode(use_cases): StoreMode,
    _: NoQuery,
    IdInPath(id): IdInPath,
) -> Result<Response, Problem> {
    let notification = use_cases.get.run(caller.user(), &id).await?.ok_or(ProblemKind::NotFound)?;
    Ok(Json(NotificationForm::from(&notification)).into_response())
}
