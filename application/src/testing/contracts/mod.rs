//! What every adapter of a port promises, stated once.
//!
//! A suite is a list of [`Promise`]s. Run each against a fresh adapter:
//!
//! ```
//! # use belfry_application::testing::{contracts::store, epoch, InMemoryStore};
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! for promise in store::promises() {
//!     promise.check(store::Store::of(InMemoryStore::new(epoch("e1")))).await;
//! }
//! # }
//! ```

#![expect(clippy::unwrap_used, reason = "a promise that is broken is told by a panic")]

pub mod store;
pub mod token_verifier;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// One promise of a port: a name that is a sentence, and a check that panics if it is broken.
pub struct Promise<S> {
    name: &'static str,
    check: fn(S) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<S> Promise<S> {
    /// The promise in words, with underscores for spaces.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Checks it against a fresh subject.
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

/// Writes a suite: each function in it is a promise, so none can be forgotten in the list.
macro_rules! promises {
    ($subject:ty: $($(#[$doc:meta])* async fn $name:ident($arg:pat_param) $body:block)+) => {
        /// Every promise, in the order in which they are stated.
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
