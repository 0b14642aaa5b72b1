use std::sync::Arc;
use std::time::Duration;

use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Connection, ExchangeKind};

use super::connection_error::ConnectionError;
use super::declare::{Declarer, Presence, Refusals, is_access_refused, is_channel_error};
use super::ingest_queue::{ExchangeBinding, QueueDeclaration};
use super::missing_right::{MissingRight, Right};

/// The names and limits of the queues and exchanges.
#[derive(Debug, Clone)]
pub struct TopologySettings {
    /// The queue that other services send commands to.
    pub ingest_queue: String,
    /// A topic exchange for services that publish to an exchange instead of sending to the queue. The ingest queue
    /// is bound to it with `#`, unless `ingest_bindings` names this exchange. `None` declares no such exchange.
    /// NestJS clients with `wildcards` expect it to have the queue's name.
    pub ingest_exchange: Option<String>,
    /// How the ingest queue is declared.
    pub ingest_declaration: QueueDeclaration,
    /// Exchanges of other services that the ingest queue is bound to. A missing exchange is declared.
    pub ingest_bindings: Vec<ExchangeBinding>,
    /// The delay before each retry. Each delay has its own queue. Further retries use the last delay.
    pub retry_delays: Vec<Duration>,
    /// The topic exchange for events.
    pub events_exchange: String,
    /// In forward mode, the topic exchange for the requests of devices to the service that keeps the inboxes.
    /// `None` if such requests are refused.
    pub devices_exchange: Option<String>,
    /// The prefix of the node queues' names; the node's name follows.
    pub node_queue_prefix: String,
    /// The name of this node.
    pub node: String,
    /// How long a node's queue continues to exist without a consumer.
    pub node_queue_expires: Duration,
    /// How many events a node's queue holds. When it is full, the oldest are dropped.
    pub node_queue_max_length: u32,
}

impl TopologySettings {
    /// The default settings for the node.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            ingest_queue: "belfry.ingest".to_owned(),
            ingest_exchange: Some("belfry.ingest".to_owned()),
            ingest_declaration: QueueDeclaration::default(),
            ingest_bindings: Vec::new(),
            retry_delays: [1, 5, 30, 120].map(Duration::from_secs).to_vec(),
            events_exchange: "belfry.events".to_owned(),
            devices_exchange: None,
            node_queue_prefix: "belfry.node".to_owned(),
            node: node.into(),
            node_queue_expires: Duration::from_mins(10),
            node_queue_max_length: 100_000,
        }
    }
}

/// Every queue, exchange and binding of Belfry. Each task declares its part whenever it connects, so
/// deleted queues and exchanges are created again.
///
/// | name | declared as |
/// |---|---|
/// | `<ingest_queue>` | queue, by default durable and without arguments, as NestJS clients declare it |
/// | [`ingest_exchange`](TopologySettings::ingest_exchange) | durable topic exchange; the ingest queue is bound to it with `#` |
/// | [`ingest_bindings`](TopologySettings::ingest_bindings) | durable exchanges; the ingest queue is bound to them |
/// | `<ingest_queue>.retry.<delay>` | durable queues; Belfry returns their messages to the ingest queue after the delay |
/// | `<ingest_queue>.dead` | durable queue for messages that cannot succeed or failed too often; an operator handles them |
/// | `<events_exchange>` | durable topic exchange for events; the routing key is the event's name |
/// | [`devices_exchange`](TopologySettings::devices_exchange) | durable topic exchange for requests of devices; the routing key is the pattern |
/// | `<node_queue_prefix>.<node>` | durable queue of one node, bound to the events exchange with `notification.#` (stored events) and `belfry.passed` (forwarded events). When it is full (`x-max-length`), the oldest events are dropped. It is deleted after some time without a consumer (`x-expires`) |
///
/// A queue or exchange that exists with other properties, or that Belfry may not declare, is used unchanged. A
/// binding that Belfry may not create is assumed to exist.
#[derive(Debug, Clone)]
pub struct Topology {
    ingest_queue: ShortString,
    ingest_declaration: QueueDeclaration,
    ingest_bindings: Vec<ExchangeBinding>,
    dead_queue: ShortString,
    retry_queues: Vec<RetryQueue>,
    events_exchange: ShortString,
    devices_exchange: Option<ShortString>,
    node_queue: ShortString,
    node_queue_expires: Duration,
    node_queue_max_length: u32,
    refusals: Arc<Refusals>,
}

#[derive(Debug, Clone)]
struct RetryQueue {
    name: ShortString,
    delay: Duration,
}

/// Why [`TopologySettings`] are invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopology {
    /// A name is empty, too long, or reserved for the broker.
    #[error(
        "{0:?} is not a valid name of a queue or exchange: 1 to 255 bytes that do not start with `amq.`"
    )]
    Name(String),
    /// There is no retry delay, or one of them is zero.
    #[error("at least one retry delay is needed, and each must be longer than zero")]
    RetryDelays,
    /// The node queue would hold no event, or would expire at once.
    #[error("a node queue must hold at least one event and expire after at least one millisecond")]
    NodeQueue,
}

/// Whether this node's queue holds every event since the node last consumed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeQueueBacklog {
    /// The queue existed and was not full.
    Complete,
    /// The queue did not exist, was so full that the oldest events may have been dropped, or could not be
    /// checked.
    Lossy,
}

impl Topology {
    /// The second routing key of every forwarded event. All node queues are bound with this key, because the first
    /// one, the pattern that a service uses, can be any text.
    pub(crate) const FORWARDED: &str = "belfry.passed";

    /// Validates the settings.
    pub fn new(settings: &TopologySettings) -> Result<Self, InvalidTopology> {
        let ingest = &settings.ingest_queue;
        let retry_queues = settings.retry_delays.iter().map(|&delay| {
            let name = parse_name(&format!("{ingest}.retry.{}", delay_label(delay)))?;
            Ok(RetryQueue { name, delay })
        });
        if settings.retry_delays.is_empty()
            || settings.retry_delays.iter().any(|delay| delay.as_millis() == 0)
        {
            return Err(InvalidTopology::RetryDelays);
        }
        if settings.node_queue_max_length == 0 || settings.node_queue_expires.as_millis() == 0 {
            return Err(InvalidTopology::NodeQueue);
        }
        let mut ingest_bindings = settings.ingest_bindings.clone();
        if let Some(exchange) = &settings.ingest_exchange {
            let exchange = parse_name(exchange)?;
            if ingest_bindings.iter().all(|binding| binding.exchange != exchange) {
                let (kind, key) = (ExchangeKind::Topic, "#".to_owned());
                ingest_bindings.push(ExchangeBinding { kind, exchange, key });
            }
        }
        Ok(Self {
            ingest_queue: parse_name(ingest)?,
            ingest_declaration: settings.ingest_declaration.clone(),
            ingest_bindings,
            dead_queue: parse_name(&format!("{ingest}.dead"))?,
            retry_queues: retry_queues.collect::<Result<_, _>>()?,
            events_exchange: parse_name(&settings.events_exchange)?,
            devices_exchange: settings.devices_exchange.as_deref().map(parse_name).transpose()?,
            node_queue: parse_name(&format!("{}.{}", settings.node_queue_prefix, settings.node))?,
            node_queue_expires: settings.node_queue_expires,
            node_queue_max_length: settings.node_queue_max_length,
            refusals: Arc::default(),
        })
    }

    /// The queue that other services send commands to.
    pub fn ingest_queue(&self) -> &str {
        self.ingest_queue.as_str()
    }

    /// The exchanges that the ingest queue is bound to.
    pub(crate) fn ingest_bindings(&self) -> &[ExchangeBinding] {
        &self.ingest_bindings
    }

    /// The queue for messages that cannot succeed.
    pub fn dead_queue(&self) -> &str {
        self.dead_queue.as_str()
    }

    /// The retry queue for a message after `attempts` failed attempts (at least 1).
    pub fn retry_queue(&self, attempts: u32) -> &str {
        let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let last = self.retry_queues.len() - 1;
        self.retry_queues[index.min(last)].name.as_str()
    }

    /// The retry queues and their delays.
    pub(crate) fn retry_queues(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.retry_queues.iter().map(|RetryQueue { name, delay }| (name.as_str(), *delay))
    }

    /// The exchange for events.
    pub fn events_exchange(&self) -> &str {
        self.events_exchange.as_str()
    }

    /// The exchange for the requests of devices.
    pub fn devices_exchange(&self) -> Option<&str> {
        self.devices_exchange.as_ref().map(ShortString::as_str)
    }

    /// This node's queue.
    pub fn node_queue(&self) -> &str {
        self.node_queue.as_str()
    }

    /// Converts the error with which the broker refused to start a consumer of `queue`.
    pub(crate) fn consume_error(&self, queue: &str, error: lapin::Error) -> ConnectionError {
        let missing = |right, error| {
            let object = match right {
                Right::Configure => format!("queue {queue}, which does not exist"),
                _ => format!("queue {queue}"),
            };
            ConnectionError::from(Box::new(MissingRight { right, object, error }))
        };
        if is_access_refused(&error) {
            // RabbitMQ uses the same code if another consumer has exclusive access.
            if error.to_string().contains("in exclusive use") {
                return ConnectionError::QueueInUse(queue.to_owned());
            }
            return missing(Right::Read, error);
        }
        // If the queue is missing because Belfry's declaration was refused, Belfry lacks the right to declare it.
        let is_missing = is_channel_error(&error, &[AMQPSoftError::NOTFOUND]);
        if is_missing && self.refusals.has_queue(&queue.into()) {
            return missing(Right::Configure, error);
        }
        error.into()
    }

    pub(crate) async fn declare_ingest(
        &self,
        connection: &Connection,
    ) -> Result<(), ConnectionError> {
        let mut declarer = Declarer::open(connection, &self.refusals).await?;
        let declaring = async {
            declarer.shared_queue(&self.ingest_queue, &self.ingest_declaration).await?;
            for ExchangeBinding { kind, exchange, key } in &self.ingest_bindings {
                declarer.durable_exchange(exchange, kind.clone()).await?;
                declarer.bind(&self.ingest_queue, exchange, key).await?;
            }
            Ok(())
        };
        let result = declaring.await;
        declarer.finish(result).await
    }

    pub(crate) async fn declare_retry_and_dead(
        &self,
        connection: &Connection,
    ) -> Result<(), ConnectionError> {
        let mut declarer = Declarer::open(connection, &self.refusals).await?;
        let declaring = async {
            for RetryQueue { name, .. } in &self.retry_queues {
                declarer.durable_queue(name, FieldTable::default()).await?;
            }
            declarer.durable_queue(&self.dead_queue, FieldTable::default()).await?;
            Ok(())
        };
        let result = declaring.await;
        declarer.finish(result).await
    }

    pub(crate) async fn declare_events(
        &self,
        connection: &Connection,
    ) -> Result<(), ConnectionError> {
        let mut declarer = Declarer::open(connection, &self.refusals).await?;
        let declaring = async {
            declarer.durable_exchange(&self.events_exchange, ExchangeKind::Topic).await?;
            Ok(())
        };
        let result = declaring.await;
        declarer.finish(result).await
    }

    pub(crate) async fn declare_devices(
        &self,
        connection: &Connection,
    ) -> Result<(), ConnectionError> {
        let Some(exchange) = &self.devices_exchange else { return Ok(()) };
        let mut declarer = Declarer::open(connection, &self.refusals).await?;
        let result = declarer.durable_exchange(exchange, ExchangeKind::Topic).await;
        declarer.finish(result).await
    }

    /// Declares the queue of this node. Also returns whether it may have lost events, which is checked before the
    /// declaration.
    pub(crate) async fn declare_node(
        &self,
        connection: &Connection,
    ) -> Result<NodeQueueBacklog, ConnectionError> {
        let mut declarer = Declarer::open(connection, &self.refusals).await?;
        let declaring = async {
            let backlog = match declarer.find_queue(&self.node_queue).await? {
                Presence::Exists(messages) if messages < self.node_queue_max_length => {
                    NodeQueueBacklog::Complete
                }
                _ => NodeQueueBacklog::Lossy,
            };
            let mut arguments = FieldTable::default();
            arguments.insert("x-expires".into(), millis(self.node_queue_expires));
            arguments.insert(
                "x-max-length".into(),
                AMQPValue::LongLongInt(self.node_queue_max_length.into()),
            );
            arguments.insert("x-overflow".into(), text("drop-head"));
            declarer.durable_exchange(&self.events_exchange, ExchangeKind::Topic).await?;
            declarer.durable_queue(&self.node_queue, arguments).await?;
            declarer.bind(&self.node_queue, &self.events_exchange, "notification.#").await?;
            declarer.bind(&self.node_queue, &self.events_exchange, Self::FORWARDED).await?;
            Ok(backlog)
        };
        let result = declaring.await;
        declarer.finish(result).await
    }
}

fn parse_name(raw: &str) -> Result<ShortString, InvalidTopology> {
    let invalid = || InvalidTopology::Name(raw.to_owned());
    if raw.is_empty() || raw.starts_with("amq.") {
        return Err(invalid());
    }
    ShortString::try_new(raw).map_err(|_| invalid())
}

/// The delay as a part of a queue's name, such as `30s` or `250ms`.
fn delay_label(delay: Duration) -> String {
    if delay.subsec_millis() == 0 {
        format!("{}s", delay.as_secs())
    } else {
        format!("{}ms", delay.as_millis())
    }
}

fn millis(duration: Duration) -> AMQPValue {
    // RabbitMQ accepts an expiry of at most 2^32 - 1 milliseconds.
    let millis = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    AMQPValue::LongLongInt(millis.into())
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

#[cfg(test)]
mod tests;
