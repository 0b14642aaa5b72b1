use axum::Json;
use belfry_domain::InboxState;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::authorized::{Authorized, ReadInbox};
use super::super::problem::Problem;
use super::super::problem_sets::{CallerProblems, QueryProblems};
use super::super::query::NoQuery;
use super::super::store_mode::StoreMode;

/// An inbox's unread count.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnreadCount)]
pub(super) struct CountForm {
    /// The number of unread notifications.
    #[schema(example = 3)]
    count: u64,
    /// The inbox's revision that the count belongs to. Of two counts, the one with the greater revision
    /// is newer.
    #[schema(example = 17)]
    revision: u64,
}

impl From<InboxState> for CountForm {
    fn from(state: InboxState) -> Self {
        Self { count: state.unread.get(), revision: state.revision.get() }
    }
}

/// Count your unread notifications
#[utoipa::path(
    get, path = "/v1/notifications/unread-count", tag = "inbox", security(("bearer" = [])),
    responses((status = 200, description = "The count.", body = CountForm), CallerProblems, QueryProblems),
)]
pub(super) async fn count_unread(
    caller: Authorized<ReadInbox>,
    StoreMode(use_cases): StoreMode,
    _: NoQuery,
) -> Result<Json<CountForm>, Problem> {
    let state = use_cases.count_unread.run(caller.user()).await?;
    Ok(Json(state.into()))
}
