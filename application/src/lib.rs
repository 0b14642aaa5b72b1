//! What Belfry does, told without naming a technology.
//!
//! - [`ports`]: the roles it needs filled, each with its promises;
//! - [`use_cases`]: the stories, each a struct of ports with one `run`;
//! - [`session`]: the rules of a device's session: sign-in, guard, catch-up, expiry;
//! - [`testing`] (feature `testing`): mocks, in-memory fakes and contract suites, for those who
//!   write adapters of their own.

pub mod access;
pub mod ports;
pub mod push;
pub mod revoked_tokens;
pub mod session;
pub mod trace;
pub mod use_cases;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
