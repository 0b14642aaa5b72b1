//! What the machine itself provides: the time, and ids that nobody else has.

mod clock;
mod id_generator;

pub use clock::SystemClock;
pub use id_generator::UuidV7Ids;
