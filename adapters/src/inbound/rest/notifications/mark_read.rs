use std::slice;

use axum::Json;
use axum::response::{IntoResponse as _, Response};

use super::super::authorized::{Authorized, ChangeInbox};
use super::super::path::IdInPath;
use super::super::problem::{Problem, ProblemKind};
use super::super::problem_sets::{CallerProblems, IdProblems};
use super::super::query::NoQuery;
use super::super::store_mode::StoreMode;
use crate::wire::NotificationForm;

/// Mark one of your notifications as read
///
/// Marking it again changes nothing: `readAt` stays the time of the first call.
#[utoipa::path(
    method(patch, post, put), path = "/v1/notifications/{id}/read", tag = "inbox",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "The notification's id, percent-encoded.")),
    responses(
        (status = 200, description = "The notification, marked as read.", body = NotificationForm),
        CallerProblems, IdProblems,
    ),
)]
pub(super) async fn mark_read(
    caller: Authorized<ChangeInbox>,
    StoreMode(use_cases): StoreMode,
    _: NoQuery,
    IdInPath(id): IdInPath,
) -> Result<Response, Problem> {
    use_cases.mark_read.run(caller.user(), slice::from_ref(&id)).await?;
    let notification = use_cases.get.run(caller.user(), &id).await?.ok_or(ProblemKind::NotFound)?;
    Ok(Json(NotificationForm::from(&notification)).into_response())
}
