//! What the doors to and from RabbitMQ have in common (AMQP 0-9-1).
//!
//! Three parts speak to the broker, each over a connection of its own, so that none waits for
//! another, and a broker that stops its publishers (a memory or disk alarm) still hands out messages
//! and takes acknowledgements:
//!
//! | part | does |
//! |---|---|
//! | [`Publisher`] | publishes with confirms: events, and messages that go to the retry and dead queues |
//! | [`Ingest`](crate::inbound::amqp::Ingest) | consumes what other services send |
//! | [`NodeQueue`](crate::inbound::amqp::NodeQueue) | consumes what this node's devices shall hear |
//!
//! Each is run as a task, never gives up, and comes back by itself: it connects, declares what it
//! needs of the [`Topology`], works, and starts over when anything of it is lost.

mod connection;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hash;
mod link;
pub(crate) mod measures;
mod mending;
mod pauses;
#[cfg(feature = "pieces")]
pub(crate) mod pieces;
mod publisher;
mod random;
mod settings;
mod topology;
mod transport;
mod url;

pub use measures::describe_metrics;
pub use publisher::Publisher;
pub use settings::AmqpSettings;
pub use topology::{InvalidTopology, Topology, TopologySettings};
pub use url::{AmqpUrl, InvalidAmqpUrl};

pub(crate) use connection::{Errand, Lost, Role, Up, keep};
pub(crate) use hash::hash;
pub(crate) use link::Link;
pub(crate) use pauses::Pauses;
pub(crate) use publisher::{Lane, Needs, NotSent, Outgoing, publish_one, verdict};
pub(crate) use random::random;
pub(crate) use topology::{NodeQueueFound, is_refused};
