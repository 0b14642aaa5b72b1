use axum::Json;

use super::super::authorized::{Authorized, ChangeInbox};
use super::super::problem::Problem;
use super::super::problem_sets::{CallerProblems, QueryProblems};
use super::super::query::NoQuery;
use super::super::store_mode::StoreMode;
use super::count::CountForm;

/// Mark all your notifications as read
#[utoipa::path(
    method(patch, post, put), path = "/v1/notifications/read-all", tag = "inbox",
    security(("bearer" = [])),
    responses((status = 200, description = "The unread count, zero.", body = CountForm), CallerProblems, QueryProblems),
)]
pub(super) async fn mark_all_read(
    caller: Authorized<ChangeInbox>,
    StoreMode(use_cases): StoreMode,
    _: NoQuery,
) -> Result<Json<CountForm>, Problem> {
    let state = use_cases.mark_all_read.run(caller.user()).await?;
    Ok(Json(state.into()))
}
