//! Time and unique ids from the operating system, and the work budgets of this process.

mod clock;
mod id_generator;
mod work_budget;

pub use clock::SystemClock;
pub use id_generator::UuidV7Ids;
