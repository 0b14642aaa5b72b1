//! Consumes from RabbitMQ: the messages of other services, and the events for this node's devices.
//!
//! **Ingest.** All nodes consume one queue with the messages of other services. An [`Envelope`] has a
//! message's pattern (the name of its operation or event) and its data as JSON. A [`MessageHandler`] decodes
//! it into a command and executes the command:
//!
//! | mode | handler | effect of a command |
//! |---|---|---|
//! | `store` | [`StoreCommands`] | changes inboxes; the event of each change is published from the outbox |
//! | `forward` | [`ForwardToNodes`] | publishes the event to the events exchange, from which all nodes and other services receive it; stores nothing |
//! | `forward` on a single node | [`ForwardHere`] | delivers the event directly to this node's devices; stores and publishes nothing |
//!
//! [`ForwardToNodes`] publishes each event to the broker again, because only one node consumes a message of
//! the ingest queue, and only the broker knows all nodes. A single node does not need that. With several nodes,
//! [`ForwardHere`] would deliver each event only to the devices of the node that consumed it.
//!
//! **Acknowledgement.** A message is acknowledged only after its command has taken effect or expired, or after
//! the broker has confirmed the message in a retry queue or the dead queue.
//!
//! - While the store is down, all messages stay pending and are retried with backoff. None goes to another queue.
//! - A message that fails while others succeed goes to a retry queue. It returns to the ingest queue after a
//!   delay, at least once.
//! - A message that comes too early also goes to a retry queue: for example, it marks a notification as read that
//!   another node has not stored yet.
//! - A message that cannot succeed or failed too often goes to the dead queue, with a [`FailureReason`].
//! - A request (`ClientProxy.send` of NestJS) goes to neither queue. Its sender receives the result or the error,
//!   and then the request is acknowledged.
//!
//! Ingest does not use the broker's requeueing (`basic.nack`).
//!
//! **Dead letters.** [`DeadLetters`] lists, replays and deletes messages of the dead queue.
//!
//! **Node queue.** [`NodeQueue`] consumes this node's own queue and delivers the events to its devices.

mod batch_executor;
#[cfg(feature = "bench_support")]
pub(crate) mod bench_support;
mod command;
mod create;
mod dead_letters;
mod delivery_batcher;
mod disposition;
mod failure_router;
mod forward_handlers;
mod forward_rule;
mod forwarded;
mod forwarded_link;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod headers;
mod ingest;
mod ingest_settings;
mod invalid_message;
mod json_fields;
mod json_object;
mod lenient_time;
mod message;
mod message_handler;
mod message_mapping;
mod node_queue;
mod pattern;
mod publication_time;
mod reason;
mod request;
mod retry_queues;
mod store_commands;
mod surrogates;

pub use command::{StoreMessage, UserChange};
pub use dead_letters::{DeadLetter, DeadLetterSelection, DeadLetters, DeadLettersError};
pub use forward_handlers::{EncodedEvent, ForwardCommand, ForwardHere, ForwardToNodes};
pub use forward_rule::{ForwardRule, InvalidForwardRule};
pub use ingest::Ingest;
pub use ingest_settings::IngestSettings;
pub use invalid_message::InvalidMessage;
pub use json_fields::{FieldPath, InvalidFieldPath};
pub use message::Envelope;
pub use message_handler::{HandlerError, MessageHandler};
pub use message_mapping::MessageMapping;
pub use node_queue::{NodeQueue, NodeQueueSettings, NodeQueueState};
pub use pattern::{Pattern, PatternNames};
pub use reason::{FailureReason, UnknownReason};
pub use store_commands::{InboxQueries, StoreCommands};
