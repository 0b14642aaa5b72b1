//! The contract of a store: [`InboxRepository`](crate::ports::InboxRepository),
//! [`Outbox`](crate::ports::Outbox), [`Revocations`](crate::ports::Revocations),
//! [`Retention`](crate::ports::Retention) and [`Erasure`](crate::ports::Erasure) on the same data.

pub mod changing;
pub mod creating;
pub mod erasing;
pub mod outbox;
pub mod reading;
pub mod retention;
pub mod revoking;
mod subject;

pub use subject::Store;

use super::Promise;

/// All promises, port by port.
pub fn promises() -> Vec<Promise<Store>> {
    [
        reading::promises(),
        creating::promises(),
        changing::promises(),
        outbox::promises(),
        retention::promises(),
        revoking::promises(),
        erasing::promises(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
