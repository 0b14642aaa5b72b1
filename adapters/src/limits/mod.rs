//! Limits of rates and of memory, and the logging and counting of exceeded limits.
//!
//! The limits use the machine's monotonic clock and not the `Clock` port, because rates are neither stored nor
//! published.

mod byte_limiter;
mod exceeded;
mod known_networks;
mod log_throttle;
mod network;
mod rates;
mod user_work;

pub(crate) use byte_limiter::ByteLimiter;
pub use exceeded::Limit;
pub(crate) use exceeded::describe_metrics;
pub(crate) use known_networks::KnownNetworks;
pub(crate) use log_throttle::ThrottledLog;
pub(crate) use network::{SITE_TIMES, network_of, site_of};
pub use rates::PerSecond;
pub(crate) use rates::{Rate, RateByKey};
pub use user_work::UserWork;
pub(crate) use user_work::{Cost, WorkPermit};
