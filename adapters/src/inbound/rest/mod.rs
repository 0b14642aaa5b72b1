//! REST, under `/v1`: services write notifications, users read and change their own inbox.
//!
//! A handler extracts, calls a use case and answers. Who is calling is an extractor (`caller`);
//! every failure is a `problem`, by one table. The contract is `contracts/openapi.json`, which the
//! routes themselves write (`openapi`).

mod base_path;
mod body;
mod caller;
mod cors;
mod health;
mod intake;
mod json;
mod limits;
mod notifications;
mod observe;
mod openapi;
mod origin;
mod path;
mod problem;
mod router;
mod users;

pub use base_path::{BasePath, InvalidBasePath};
pub use cors::{AllowedHeader, Cors, InvalidHeader, check_origin, layer as cors_layer};
pub use health::{Readiness, ReadinessCheck, routes as health_routes};
pub use intake::Intake;
pub use limits::RequestLimits;
pub use origin::{AllowedOrigin, InvalidOrigin};
pub use router::{RestParts, RestSettings, RestUseCases, router};

#[cfg(test)]
mod tests;
