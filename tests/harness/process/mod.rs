//! The real `belfry`, run as a child process.

mod belfry;
mod launch;
#[cfg(test)]
mod tests;

pub use belfry::Belfry;
pub use launch::{Builder, Finished, StartFailure};
