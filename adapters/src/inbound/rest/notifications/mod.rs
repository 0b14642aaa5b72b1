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

use axum::routing::{delete, get};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::RestState;

pub(super) fn routes() -> OpenApiRouter<RestState> {
    OpenApiRouter::default()
        .routes(routes!(create::create, list::list))
        .routes(routes!(create_batch::create_batch))
        .routes(routes!(count::count_unread))
        .routes(routes!(mark_all_read::mark_all_read))
        .routes(routes!(get::get, delete::delete))
        .routes(routes!(mark_read::mark_read))
        .merge(routes_that_are_ids())
}

/// `batch`, `read-all` and `unread-count` may also be ids of notifications. At these paths, the methods that
/// the routes above do not use serve the notification with this id.
fn routes_that_are_ids() -> OpenApiRouter<RestState> {
    let notification = || get(get::get).delete(delete::delete);
    OpenApiRouter::default()
        .route("/v1/notifications/batch", notification())
        .route("/v1/notifications/read-all", notification())
        .route(COUNT_PATH, delete(delete::delete))
}

/// The only path at which GET does not return the notification with this id. See `create_response::location`,
/// which encodes the hyphen.
const COUNT_PATH: &str = "/v1/notifications/unread-count";
