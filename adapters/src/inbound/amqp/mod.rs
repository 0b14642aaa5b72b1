//! What comes in by RabbitMQ: messages of other services, and the events that this node's devices
//! shall hear.
//!
//! **Ingest.** One queue, consumed by all nodes side by side. What a message asks for is read by
//! [`Envelope`]; what is done with it is a [`Handling`]:
//!
//! | mode | handling | |
//! |---|---|---|
//! | `store` | [`StoreCommands`] | inboxes change, and the outbox tells of it |
//! | `forward` | [`ForwardToNodes`] | nothing is stored; the event is published to the events exchange once more, transient and confirmed, with the routing key `belfry.passed`, so that every node's queue gets it |
//! | `forward`, on one node only | [`ForwardHere`] | nothing is stored and nothing published: this node's devices are told at once |
//!
//! Forwarding takes the extra way through the broker because a message in a queue goes to one of its
//! consumers, and only the broker knows all nodes. Where there is one node and never another, that
//! way can be spared; with two, each would keep half of the events to its own devices.
//!
//! **What becomes of a message.** It is acknowledged only when it is done with: stored and committed,
//! or confirmed in another queue. A store that is down holds everything up, with growing pauses, and
//! nothing is published anew. A message that fails while others work waits in a retry queue, and so
//! does one that comes too early, such as the read of a notification that another node is about to
//! store. One that can never work, or has failed too often, goes to the dead queue, with headers that
//! say why ([`Reason`]). None is requeued, none is dropped.
//!
//! **Dead letters.** [`DeadLetters`] looks into the dead queue for an operator, sends messages again or
//! deletes them.
//!
//! **Node queue.** [`NodeQueue`] consumes this node's own queue and tells its devices.

mod command;
mod dead_letters;
mod forwarded;
mod forwarding;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handling;
mod inflow;
mod ingest;
mod letters;
mod message;
mod node_queue;
#[cfg(feature = "pieces")]
pub(crate) mod pieces;
mod sieve;

pub use dead_letters::{DeadLetter, DeadLetterSelection, DeadLetters, DeadLettersError};
pub use forwarding::{ForwardHere, ForwardToNodes, Forwarding};
pub use handling::{Failure, Handling, StoreCommands};
pub use ingest::{Ingest, IngestSettings};
pub use letters::{Reason, UnknownReason};
pub use message::{Envelope, Pattern, Unreadable};
pub use node_queue::{NodeQueue, NodeQueueSettings, NodeQueueState};
