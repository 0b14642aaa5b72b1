//! The application layer of Belfry: its use cases and session rules, independent of any technology.
//!
//! - [`use_cases`]: one struct per use case. It holds the ports that it needs and has one `run` method.
//! - [`ports`]: the interfaces that use cases need and adapters implement. Their docs are contracts.
//! - [`session`]: the rules of a connected device: sign-in, authorization, catch-up and expiry.
//! - [`push`]: the messages to devices.
//! - [`access`]: scopes and authentication errors; [`revoked_tokens`]: the revocations that a node knows.
//! - [`trace`]: the trace context of a request; [`Backoff`]: the delays between attempts.
//! - `testing` (feature `testing`): mocks, in-memory fakes and contract suites.
//!
//! **To add an adapter**, implement the port's trait in a file named after the port's file, run the
//! suite of `testing::contracts` against it, and construct it in `bootstrap`.
//!
//! **To test a use case**, give it fakes for behaviour and mocks for failures:
//!
//! ```
//! use std::sync::Arc;
//!
//! use belfry_application::ports::PortError;
//! use belfry_application::testing::{InMemoryStore, MockInboxRepository, a_draft, epoch, user};
//! use belfry_application::use_cases::{CountUnread, CreateNotification};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), PortError> {
//! let store = Arc::new(InMemoryStore::new(epoch("e1")));
//! CreateNotification::new(store.clone()).run(vec![a_draft("ada", "n1")], None).await?;
//! assert_eq!(CountUnread::new(store).run(&user("ada")).await?.unread.get(), 1);
//!
//! let mut outage = MockInboxRepository::new();
//! outage.expect_state().returning(|_| Err(PortError::unavailable("down")));
//! let result = CountUnread::new(Arc::new(outage)).run(&user("ada")).await;
//! assert!(matches!(result, Err(PortError::Unavailable(_))));
//! # Ok(())
//! # }
//! ```

pub mod access;
mod backoff;
mod port_error;
pub mod ports;
pub mod push;
pub mod revoked_tokens;
pub mod session;
pub mod trace;
pub mod use_cases;

pub use backoff::Backoff;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
