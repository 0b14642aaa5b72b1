use axum::Json;
use axum::extract::State;
use belfry_domain::InboxState;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::caller::{Caller, Reading};
use super::super::openapi::CallerProblems;
use super::super::problem::Problem;
use super::super::router::RestUseCases;

/// How many are unread, in JSON.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnreadCount)]
pub(super) struct CountForm {
    /// How many.
    #[schema(example = 3)]
    count: u64,
    /// As of which change of the inbox. Of two counts, the one with the greater revision is newer.
    #[schema(example = 17)]
    revision: u64,
}

impl From<InboxState> for CountForm {
    fn from(state: InboxState) -> Self {
        Self { count: state.unread.get(), revision: state.revision.get() }
    }
}

/// How many of your notifications are unread
#[utoipa::path(
    get, path = "/v1/notifications/unread-count", tag = "inbox", security(("bearer" = [])),
    responses((status = 200, description = "The count.", body = CountForm), CallerProblems),
)]
pub(super) async fn count_unread(
    caller: Caller<Reading>,
    State(stories): State<RestUseCases>,
) -> Result<Json<CountForm>, Problem> {
    let state = stories.count_unread.run(caller.user()).await?;
    Ok(Json(state.into()))
}
