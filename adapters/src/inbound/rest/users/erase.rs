use axum::extract::State;
use belfry_application::use_cases::EraseUser;
use http::StatusCode;

use super::super::authorized::{Authorized, Erase};
use super::super::path::UserInPath;
use super::super::problem::Problem;
use super::super::problem_sets::EraserProblems;
use super::super::query::NoQuery;

/// Erase a user
///
/// Removes everything that Belfry has stored of a user: the inbox with all notifications, events that are not
/// published yet, and idempotency keys. All devices of the user, on every node, start over with an empty list,
/// and other services receive the event `notification.all_erased`. Cannot be undone. Erasing a user of whom
/// nothing is stored succeeds too.
///
/// A revocation of the user's tokens stays for `retention.revocations`. Tokens stay valid: revoke them first.
/// A notification that is created afterwards starts a new inbox, even if its id was used before.
#[utoipa::path(
    delete, path = "/v1/users/{userId}", tag = "users", operation_id = "erase_user",
    security(("bearer" = ["users:erase"])),
    params(("userId" = String, Path, description = "The user's id, percent-encoded.")),
    responses((status = 204, description = "Erased, or there was nothing to erase."), EraserProblems),
)]
pub(super) async fn erase(
    _caller: Authorized<Erase>,
    _: NoQuery,
    State(erase): State<EraseUser>,
    UserInPath(user): UserInPath,
) -> Result<StatusCode, Problem> {
    erase.run(&user).await?;
    Ok(StatusCode::NO_CONTENT)
}
