//! Contract suites: the promises of the ports, as tests that every adapter must pass.
//!
//! A suite is a list of [`Promise`]s. Check each against a new, empty adapter:
//!
//! ```
//! # use belfry_application::testing::{contracts::store, epoch, InMemoryStore};
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! for promise in store::promises() {
//!     let store = InMemoryStore::new(epoch("e1"));
//!     promise.check(store::Store::of(store, InMemoryStore::encode_event)).await;
//! }
//! # }
//! ```

#![expect(clippy::unwrap_used, reason = "a broken promise panics")]

pub mod store;
pub mod token_verifier;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// One promise of a port, and its test. `S` is the adapter under test.
pub struct Promise<S> {
    name: &'static str,
    check: fn(S) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<S> Promise<S> {
    /// The promise in words, with underscores for spaces.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Tests the promise with a new, empty adapter.
    ///
    /// # Panics
    /// If the promise is broken.
    pub async fn check(&self, subject: S) {
        (self.check)(subject).await;
    }
}

impl<S> fmt::Debug for Promise<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Defines a suite. Each function is a promise and is added to the list, so none can be forgotten.
macro_rules! promises {
    ($subject:ty: $($(#[$doc:meta])* async fn $name:ident($arg:pat_param) $body:block)+) => {
        /// All promises, in the order of their definition.
        pub fn promises() -> Vec<$crate::testing::contracts::Promise<$subject>> {
            vec![$($crate::testing::contracts::Promise {
                name: stringify!($name),
                check: |subject| Box::pin($name(subject)),
            }),+]
        }

        $($(#[$doc])* async fn $name($arg: $subject) $body)+
    };
}
pub(crate) use promises;
