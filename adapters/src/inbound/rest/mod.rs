//! REST, under `/v1`: services create notifications, users read and change their own inbox.
//!
//! A handler extracts its input, calls a use case and returns a response. `authorized` authenticates the
//! caller; `problem` maps every error to a response. `openapi` generates the contract
//! `contracts/openapi.json` from the routes.

mod allowed_origin;
mod authorized;
mod base_path;
mod cookie_token;
mod cors;
mod draft_factory;
mod headers;
mod health;
mod json;
mod json_body;
mod limits;
mod notifications;
mod openapi;
mod origin;
mod path;
mod problem;
mod problem_sets;
mod query;
mod readiness;
mod request_telemetry;
mod router;
mod state;
mod store_mode;
mod users;

pub use allowed_origin::{AllowedOrigin, InvalidOrigin};
pub use base_path::{BasePath, InvalidBasePath};
pub(crate) use cookie_token::CookieToken;
pub use cookie_token::{CookieName, InvalidCookieName, with_cookie_tokens};
pub use cors::{AllowedHeader, Cors, InvalidHeader, check_origin, layer as cors_layer};
pub use draft_factory::DraftFactory;
pub use health::routes as health_routes;
pub use limits::RequestLimits;
pub use readiness::{Readiness, ReadinessCheck};
pub(crate) use request_telemetry::{REQUEST_DURATION, describe_metrics};
pub use router::router;
pub use state::{RestParts, RestSettings, RestUseCases};

#[cfg(test)]
mod tests;
