//! `/v1/users`: what is done with a user rather than with an inbox.

mod revoke;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::router::RestParts;

/// All routes of it.
pub(super) fn routes() -> OpenApiRouter<RestParts> {
    OpenApiRouter::default().routes(routes!(revoke::revoke))
}
