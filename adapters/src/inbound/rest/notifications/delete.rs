use http::StatusCode;

use super::super::authorized::{Authorized, ChangeInbox};
use super::super::path::IdInPath;
use super::super::problem::{Problem, ProblemKind};
use super::super::problem_sets::{CallerProblems, IdProblems};
use super::super::query::NoQuery;
use super::super::store_mode::StoreMode;

/// Delete one of your notifications
///
/// It disappears from all your devices. A sender that retries does not restore it.
#[utoipa::path(
    delete, path = "/v1/notifications/{id}", tag = "inbox", security(("bearer" = [])),
    operation_id = "delete_notification",
    params(("id" = String, Path, description = "The notification's id, percent-encoded.")),
    responses((status = 204, description = "Deleted."), CallerProblems, IdProblems),
)]
pub(super) async fn delete(
    caller: Authorized<ChangeInbox>,
    StoreMode(use_cases): StoreMode,
    _: NoQuery,
    IdInPath(id): IdInPath,
) -> Result<StatusCode, Problem> {
    use_cases.delete.run(caller.user(), &id).await?.ok_or(ProblemKind::NotFound)?;
    Ok(StatusCode::NO_CONTENT)
}
