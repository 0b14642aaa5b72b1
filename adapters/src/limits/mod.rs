//! Rate limits, and how exceeded limits are logged and counted.
//!
//! Time is the machine's own, monotonic: a rate is nothing that is stored or told, so it needs no
//! clock that others can set.

mod exceeded;
mod network;
mod rates;
mod user_work;

pub use exceeded::Limit;
pub(crate) use network::network_of;
pub use rates::PerSecond;
pub(crate) use rates::{Exceeded, Rate, RateByKey};
pub use user_work::UserWork;
pub(crate) use user_work::{Cost, WorkPermit};
