//! `/v1/notifications`, one file per operation.

mod count;
mod create;
mod create_batch;
mod create_response;
mod delete;
mod get;
mod list;
mod mark_all_read;
mod mark_read;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::RestParts;

pub(super) fn routes() -> OpenApiRouter<RestParts> {
    OpenApiRouter::default()
        .routes(routes!(create::create, list::list))
        .routes(routes!(create_batch::create_batch))
        .routes(routes!(count::count_unread))
        .routes(routes!(mark_all_read::mark_all_read))
        .routes(routes!(get::get, delete::delete))
        .routes(routes!(mark_read::mark_read))
}
