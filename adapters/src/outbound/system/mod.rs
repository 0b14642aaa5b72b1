//! Time and unique ids from the operating system.

mod clock;
mod id_generator;

pub use clock::SystemClock;
pub use id_generator::UuidV7Ids;
