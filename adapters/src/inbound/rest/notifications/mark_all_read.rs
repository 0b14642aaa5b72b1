use axum::Json;
use axum::extract::State;

use super::super::caller::{Caller, Changing};
use super::super::openapi::CallerProblems;
use super::super::problem::Problem;
use super::super::router::RestUseCases;
use super::count::CountForm;

/// Mark all your notifications as read
#[utoipa::path(
    method(patch, post, put), path = "/v1/notifications/read-all", tag = "inbox",
    security(("bearer" = [])),
    responses((status = 200, description = "The count, zero.", body = CountForm), CallerProblems),
)]
pub(super) async fn mark_all_read(
    caller: Caller<Changing>,
    State(stories): State<RestUseCases>,
) -> Result<Json<CountForm>, Problem> {
    let state = stories.mark_all_read.run(caller.user()).await?;
    Ok(Json(state.into()))
}
