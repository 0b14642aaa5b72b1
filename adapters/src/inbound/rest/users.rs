//! Operations on users rather than inboxes: `/v1/users` for one user, and `/v1/revocations` for all users.

mod erase;
mod revoke;
mod revoke_all;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::RestState;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::default()
        .routes(routes!(revoke::revoke))
        .routes(routes!(revoke_all::revoke_all))
        .routes(routes!(erase::erase))
}
