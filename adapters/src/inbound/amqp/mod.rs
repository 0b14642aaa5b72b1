//! Consumes RabbitMQ: messages of other services, and the events for this node's devices.
//!
//! **Ingest.** All nodes consume one queue. [`Envelope`] determines the form of a message, and a
//! [`MessageHandler`] decodes and executes its command:
//!
//! | mode | handler | |
//! |---|---|---|
//! | `store` | [`StoreCommands`] | changes inboxes; the outbox publishes the events |
//! | `forward` | [`ForwardToNodes`] | stores nothing; publishes the event to the events exchange, transient and confirmed, with the routing key `belfry.passed`, so that every node's queue gets it |
//! | `forward` on a single node | [`ForwardHere`] | stores and publishes nothing; delivers directly to this node's devices |
//!
//! [`ForwardToNodes`] goes through the broker again because each message of a queue has only one consumer,
//! and only the broker knows all nodes. A single node does not need that. With two, [`ForwardHere`] would
//! deliver each event only to the devices of the node that consumed it.
//!
//! **Acknowledgement.** A message is acknowledged only when it is committed to the store or confirmed in
//! another queue. While the store is down, all messages wait, with growing backoff, and none is
//! republished. A message that fails while others succeed goes to a retry queue, and so does one that
//! comes too early, such as the read of a notification that another node is about to store. A message that
//! cannot succeed or failed too often goes to the dead queue, with a [`FailureReason`]. No message is
//! requeued or dropped.
//!
//! **Dead letters.** [`DeadLetters`] lists, replays and deletes messages of the dead queue.
//!
//! **Node queue.** [`NodeQueue`] consumes this node's own queue and delivers to its devices.

mod batch_executor;
#[cfg(feature = "bench_support")]
pub(crate) mod bench_support;
mod command;
mod dead_letters;
mod delivery_batcher;
mod disposition;
mod failure_router;
mod forward_handlers;
mod forwarded;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod headers;
mod ingest;
mod ingest_settings;
mod message;
mod message_handler;
mod node_queue;
mod reason;
mod store_commands;

pub use dead_letters::{DeadLetter, DeadLetterSelection, DeadLetters, DeadLettersError};
pub use forward_handlers::{ForwardCommand, ForwardHere, ForwardToNodes};
pub use ingest::Ingest;
pub use ingest_settings::IngestSettings;
pub use message::{Envelope, InvalidMessage, Pattern};
pub use message_handler::{HandlerError, MessageHandler};
pub use node_queue::{NodeQueue, NodeQueueSettings, NodeQueueState};
pub use reason::{FailureReason, UnknownReason};
pub use store_commands::StoreCommands;
