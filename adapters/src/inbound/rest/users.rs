//! `/v1/users`: operations on users rather than inboxes.

mod erase;
mod revoke;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::RestParts;

pub(super) fn routes() -> OpenApiRouter<RestParts> {
    OpenApiRouter::default().routes(routes!(revoke::revoke)).routes(routes!(erase::erase))
}
