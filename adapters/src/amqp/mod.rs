//! Connections, topology and publishing for the inbound and outbound adapters of RabbitMQ (AMQP 0-9-1).
//!
//! Four tasks use the broker. Each has its own connection, so that none waits for another: during a memory or
//! disk alarm, the broker blocks publishing connections only, and still delivers messages and accepts
//! acknowledgements on the others.
//!
//! | task | work |
//! |---|---|
//! | [`Publisher`] | publishes with confirms: events, the requests of devices, and messages for the retry and dead queues |
//! | [`Ingest`](crate::inbound::amqp::Ingest) | consumes the messages of other services from the ingest queue |
//! | `RetryQueues` of [`Ingest`](crate::inbound::amqp::Ingest) | returns failed messages to the ingest queue |
//! | [`NodeQueue`](crate::inbound::amqp::NodeQueue) | consumes the events for this node's devices |
//!
//! Each task connects, declares its part of the [`Topology`] (queues, exchanges and bindings), and works. When it
//! loses the connection, a channel or its queue, it starts over with backoff.

mod accepted_at;
#[cfg(feature = "bench_support")]
pub(crate) mod bench_support;
mod broker_connection;
mod byte_budget;
mod channels;
mod confirm_channel;
mod connection_error;
mod declare;
mod frame_sanitizer;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hash;
mod ingest_queue;
pub(crate) mod metrics;
mod missing_right;
mod one_shot;
mod publish_error;
mod publisher;
mod publisher_connection;
mod reconnect;
mod sanitized_stream;
mod settings;
mod tls;
mod topology;
mod transport;
mod url;

pub use ingest_queue::{
    ExchangeBinding, InvalidExchangeBinding, InvalidQueueArgument, QueueArgument, QueueDeclaration,
};
pub use missing_right::MissingRights;
pub use publisher::Publisher;
pub use settings::AmqpSettings;
pub use tls::{AmqpTlsFiles, ClientCertificateFiles, InvalidAmqpTls};
pub use topology::{InvalidTopology, Topology, TopologySettings};
pub use url::{AmqpUrl, InvalidAmqpUrl};

/// The header of an event that identifies the store that it comes from, by the store's epoch.
pub(crate) const EPOCH_HEADER: &str = "x-belfry-epoch";

/// The value of [`EPOCH_HEADER`] for a forwarded event, which comes from no store. Versions of Belfry that do not
/// know this value skip the event as one of another store.
pub(crate) const FORWARDED_EPOCH: &str = "forwarded";

/// The AMQP delivery mode of a persistent message.
pub(crate) const PERSISTENT: u8 = 2;

pub(crate) use accepted_at::{accepted_at, set_accepted_at};
pub(crate) use broker_connection::BrokerConnection;
pub(crate) use byte_budget::{ByteBudget, HeldDelivery};
pub(crate) use channels::{close_channel, open_confirm_channel, subscribe};
pub(crate) use confirm_channel::{
    ConfirmChannel, Confirmation, Publish, RequiredTopology, publish_one,
};
pub(crate) use connection_error::ConnectionError;
pub(crate) use declare::is_channel_error;
pub(crate) use hash::hash;
pub(crate) use one_shot::OneShotConnection;
pub(crate) use publish_error::PublishError;
pub(crate) use reconnect::{ConnectedTask, ConnectionStatus, run_with_reconnect};
pub(crate) use topology::NodeQueueBacklog;
