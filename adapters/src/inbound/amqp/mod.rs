//! Consumes from RabbitMQ: messages of other services, and the events for this node's devices.
//!
//! **Ingest.** All nodes consume one queue. An [`Envelope`] is a message's pattern and its data as
//! JSON. A [`MessageHandler`] decodes it into a command and executes it:
//!
//! | mode | handler | |
//! |---|---|---|
//! | `store` | [`StoreCommands`] | changes inboxes; the outbox publishes the events |
//! | `forward` | [`ForwardToNodes`] | stores nothing; publishes the event to the queues of all nodes and to other services: to the events exchange, as a transient message with a publisher confirm |
//! | `forward` on a single node | [`ForwardHere`] | stores and publishes nothing; delivers directly to this node's devices |
//!
//! [`ForwardToNodes`] publishes each event to the broker again, because only one node consumes a message of
//! the ingest queue, and only the broker knows all nodes. A single node does not need that. With several nodes,
//! [`ForwardHere`] would deliver each event only to the devices of the node that consumed it.
//!
//! **Acknowledgement.** A message is acknowledged only after its command has taken effect or expired, or after
//! the broker has confirmed it in a retry queue or the dead queue. While the store is down, all messages stay
//! pending and are retried with backoff; none is published to another queue. A message that fails while others
//! succeed goes to a retry queue, from which it returns after a delay, at least once. So does a message that
//! comes too early: for example, it marks a notification as read that another node has not stored yet. A message
//! that cannot succeed or failed too often goes to the dead queue, with a [`FailureReason`]. Ingest requeues no
//! message.
//!
//! A request (`ClientProxy.send` of NestJS) goes to neither queue: its sender receives the result or the error,
//! and then the request is acknowledged.
//!
//! **Dead letters.** [`DeadLetters`] lists, replays and deletes messages of the dead queue.
//!
//! **Node queue.** [`NodeQueue`] consumes this node's own queue and delivers to its devices.

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
