use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind, Queue};
use parking_lot::Mutex;
use tracing::warn;

/// How the queues and exchanges are called, and how large they grow.
#[derive(Debug, Clone)]
pub struct TopologySettings {
    /// The queue that other services send to.
    pub ingest_queue: String,
    /// A topic exchange for services that publish rather than send to a queue; bound to the ingest
    /// queue with `#`. `None` declares none. NestJS clients with `wildcards` expect it to have the
    /// queue's name.
    pub ingest_exchange: Option<String>,
    /// How long a message waits for each next attempt. There is a queue for each pause; attempts
    /// beyond the last take the last.
    pub retry_pauses: Vec<Duration>,
    /// The topic exchange that events are published to.
    pub events_exchange: String,
    /// What the queues of all nodes begin with; the node's name follows.
    pub node_queue_prefix: String,
    /// This node's name.
    pub node: String,
    /// How long a node's queue outlives its node.
    pub node_queue_expires: Duration,
    /// How many events a node's queue keeps while nobody takes them; the oldest give way.
    pub node_queue_max_length: u32,
}

impl TopologySettings {
    /// The usual names, for that node.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            ingest_queue: "belfry.ingest".to_owned(),
            ingest_exchange: Some("belfry.ingest".to_owned()),
            retry_pauses: [1, 5, 30, 120].map(Duration::from_secs).to_vec(),
            events_exchange: "belfry.events".to_owned(),
            node_queue_prefix: "belfry.node".to_owned(),
            node: node.into(),
            node_queue_expires: Duration::from_mins(10),
            node_queue_max_length: 100_000,
        }
    }
}

/// Every queue, exchange and binding of Belfry, declared nowhere else. Each part declares what it
/// needs whenever it connects, so that what was deleted is made again.
///
/// | what | |
/// |---|---|
/// | `<ingest>` | queue, durable, arguments `{}`: as NestJS clients assert it |
/// | `<ingest>` | topic exchange, durable, bound to that queue with `#` |
/// | `<ingest>.retry.<pause>` | queues, durable, whose messages return to the ingest queue after the pause (`x-message-ttl`, dead-lettered by the default exchange) |
/// | `<ingest>.dead` | queue, durable: what can never work, for people to look at |
/// | `<events>` | topic exchange, durable; routing key = the event's name |
/// | `<prefix>.<node>` | queue of one node, durable, bounded (`x-max-length`, oldest out first), gone when unused for a while (`x-expires`), bound to the events exchange with `notification.#` and `belfry.passed` |
///
/// What exists with other properties, or may not be declared by us, is used as it is.
#[derive(Debug, Clone)]
pub struct Topology {
    ingest_queue: ShortString,
    ingest_exchange: Option<ShortString>,
    dead_queue: ShortString,
    retries: Vec<Retry>,
    events_exchange: ShortString,
    node_queue: ShortString,
    node_queue_expires: Duration,
    node_queue_max_length: u32,
    as_it_is: Arc<Mutex<BTreeSet<ShortString>>>,
}

#[derive(Debug, Clone)]
struct Retry {
    queue: ShortString,
    pause: Duration,
}

/// Why names do not make a [`Topology`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopology {
    /// Empty, too long, or reserved.
    #[error(
        "{0:?} is no name for a queue or exchange: 1 to 255 bytes that do not begin with `amq.`"
    )]
    Name(String),
    /// No pause to retry after.
    #[error("there must be at least one pause to retry after, and none of zero")]
    RetryPauses,
    /// A node's queue that would hold nothing, or go at once.
    #[error("a node's queue must have room for one event and outlive its node by a millisecond")]
    NodeQueue,
}

/// Whether this node's queue held all that came since the node last consumed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeQueueFound {
    /// It was there, and not full.
    Kept,
    /// It was not there, or so full that the oldest may have been dropped.
    Lossy,
}

impl Topology {
    /// The routing key of events that are passed on without being stored.
    pub(crate) const PASSED: &str = "belfry.passed";

    /// Checks the names.
    pub fn new(settings: &TopologySettings) -> Result<Self, InvalidTopology> {
        let ingest = &settings.ingest_queue;
        let retries = settings.retry_pauses.iter().map(|&pause| {
            let queue = name(&format!("{ingest}.retry.{}", label(pause)))?;
            Ok(Retry { queue, pause })
        });
        if settings.retry_pauses.is_empty()
            || settings.retry_pauses.iter().any(|pause| pause.as_millis() == 0)
        {
            return Err(InvalidTopology::RetryPauses);
        }
        if settings.node_queue_max_length == 0 || settings.node_queue_expires.as_millis() == 0 {
            return Err(InvalidTopology::NodeQueue);
        }
        Ok(Self {
            ingest_queue: name(ingest)?,
            ingest_exchange: settings.ingest_exchange.as_deref().map(name).transpose()?,
            dead_queue: name(&format!("{ingest}.dead"))?,
            retries: retries.collect::<Result<_, _>>()?,
            events_exchange: name(&settings.events_exchange)?,
            node_queue: name(&format!("{}.{}", settings.node_queue_prefix, settings.node))?,
            node_queue_expires: settings.node_queue_expires,
            node_queue_max_length: settings.node_queue_max_length,
            as_it_is: Arc::default(),
        })
    }

    /// The queue that other services send to.
    pub fn ingest_queue(&self) -> &str {
        self.ingest_queue.as_str()
    }

    /// Where messages go that can never work.
    pub fn dead_queue(&self) -> &str {
        self.dead_queue.as_str()
    }

    /// Where a message waits that has failed so many times (1 for the first).
    pub fn retry_queue(&self, attempts: u32) -> &str {
        let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let last = self.retries.len() - 1;
        self.retries[index.min(last)].queue.as_str()
    }

    /// The exchange that events are published to.
    pub fn events_exchange(&self) -> &str {
        self.events_exchange.as_str()
    }

    /// This node's queue.
    pub fn node_queue(&self) -> &str {
        self.node_queue.as_str()
    }

    pub(crate) async fn declare_ingest(&self, connection: &Connection) -> lapin::Result<()> {
        let mut by = Declaring::on(connection, self).await?;
        by.queue(&self.ingest_queue, FieldTable::default()).await?;
        if let Some(exchange) = &self.ingest_exchange {
            by.topic_exchange(exchange).await?;
            by.bind(&self.ingest_queue, exchange, "#").await?;
        }
        Ok(())
    }

    pub(crate) async fn declare_retry_and_dead(
        &self,
        connection: &Connection,
    ) -> lapin::Result<()> {
        let mut by = Declaring::on(connection, self).await?;
        for Retry { queue, pause } in &self.retries {
            let mut back = FieldTable::default();
            back.insert("x-message-ttl".into(), millis(*pause));
            back.insert("x-dead-letter-exchange".into(), text(""));
            back.insert("x-dead-letter-routing-key".into(), text(self.ingest_queue.as_str()));
            by.queue(queue, back).await?;
        }
        by.queue(&self.dead_queue, FieldTable::default()).await
    }

    pub(crate) async fn declare_events(&self, connection: &Connection) -> lapin::Result<()> {
        Declaring::on(connection, self).await?.topic_exchange(&self.events_exchange).await
    }

    pub(crate) async fn declare_node(
        &self,
        connection: &Connection,
    ) -> lapin::Result<NodeQueueFound> {
        let mut by = Declaring::on(connection, self).await?;
        let found = match by.look_at(&self.node_queue).await? {
            Some(queue) if queue.message_count() < self.node_queue_max_length => {
                NodeQueueFound::Kept
            }
            _ => NodeQueueFound::Lossy,
        };
        let mut bounds = FieldTable::default();
        bounds.insert("x-expires".into(), millis(self.node_queue_expires));
        bounds.insert(
            "x-max-length".into(),
            AMQPValue::LongLongInt(self.node_queue_max_length.into()),
        );
        bounds.insert("x-overflow".into(), text("drop-head"));
        by.topic_exchange(&self.events_exchange).await?;
        by.queue(&self.node_queue, bounds).await?;
        by.bind(&self.node_queue, &self.events_exchange, "notification.#").await?;
        by.bind(&self.node_queue, &self.events_exchange, Self::PASSED).await?;
        Ok(found)
    }
}

fn name(raw: &str) -> Result<ShortString, InvalidTopology> {
    let invalid = || InvalidTopology::Name(raw.to_owned());
    if raw.is_empty() || raw.starts_with("amq.") {
        return Err(invalid());
    }
    ShortString::try_new(raw).map_err(|_| invalid())
}

fn label(pause: Duration) -> String {
    if pause.subsec_millis() == 0 {
        format!("{}s", pause.as_secs())
    } else {
        format!("{}ms", pause.as_millis())
    }
}

fn millis(duration: Duration) -> AMQPValue {
    // RabbitMQ takes at most 2^32 - 1 for an expiry.
    let millis = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    AMQPValue::LongLongInt(millis.into())
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Whether the broker refused what was asked in that way, and closed the channel for it.
pub(crate) fn is_refused(error: &lapin::Error, how: &[AMQPSoftError]) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(kind) => how.contains(kind),
            AMQPErrorKind::Hard(_) => false,
        },
        _ => false,
    }
}

/// Declares one thing after another. The broker closes the channel for each that it refuses.
struct Declaring<'a> {
    connection: &'a Connection,
    channel: Channel,
    /// What was refused before: existing with other properties, or not ours to declare.
    as_it_is: &'a Mutex<BTreeSet<ShortString>>,
}

impl<'a> Declaring<'a> {
    async fn on(connection: &'a Connection, topology: &'a Topology) -> lapin::Result<Self> {
        let channel = connection.create_channel().await?;
        Ok(Self { connection, channel, as_it_is: &topology.as_it_is })
    }

    async fn queue(&mut self, name: &ShortString, arguments: FieldTable) -> lapin::Result<()> {
        if self.as_it_is.lock().contains(name) && self.look_at(name).await?.is_some() {
            return Ok(());
        }
        let durable = QueueDeclareOptions::durable();
        match self.channel.queue_declare(name.clone(), durable, arguments).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_ours(&error) => {
                self.channel = self.connection.create_channel().await?;
                if self.look_at(name).await?.is_none() {
                    return Err(error);
                }
                self.takes_as_it_is(name, &error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The queue of that name, if there is one.
    async fn look_at(&mut self, name: &ShortString) -> lapin::Result<Option<Queue>> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match self.channel.queue_declare(name.clone(), passive, FieldTable::default()).await {
            Ok(queue) => Ok(Some(queue)),
            Err(error) if is_refused(&error, &[AMQPSoftError::NOTFOUND]) => {
                self.channel = self.connection.create_channel().await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn topic_exchange(&mut self, name: &ShortString) -> lapin::Result<()> {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        match self.exchange(name, durable).await {
            Err(error) if is_not_ours(&error) => {
                self.channel = self.connection.create_channel().await?;
                let passive =
                    ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
                self.exchange(name, passive).await?;
                self.takes_as_it_is(name, &error);
                Ok(())
            }
            other => other,
        }
    }

    async fn exchange(
        &self,
        name: &ShortString,
        options: ExchangeDeclareOptions,
    ) -> lapin::Result<()> {
        let arguments = FieldTable::default();
        self.channel.exchange_declare(name.clone(), ExchangeKind::Topic, options, arguments).await
    }

    async fn bind(
        &self,
        queue: &ShortString,
        exchange: &ShortString,
        key: &str,
    ) -> lapin::Result<()> {
        let options = QueueBindOptions::default();
        let arguments = FieldTable::default();
        self.channel
            .queue_bind(queue.clone(), exchange.clone(), key.into(), options, arguments)
            .await
    }

    fn takes_as_it_is(&self, name: &ShortString, why: &lapin::Error) {
        if self.as_it_is.lock().insert(name.clone()) {
            warn!(%name, %why, "used as it is, not as Belfry would declare it");
        }
    }
}

fn is_not_ours(error: &lapin::Error) -> bool {
    is_refused(error, &[AMQPSoftError::PRECONDITIONFAILED, AMQPSoftError::ACCESSREFUSED])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> TopologySettings {
        TopologySettings::new("a")
    }

    #[test]
    fn everything_is_named_after_the_queue_and_the_node() {
        let topology = Topology::new(&settings()).unwrap();
        assert_eq!(topology.dead_queue(), "belfry.ingest.dead");
        assert_eq!(topology.node_queue(), "belfry.node.a");
        let retries = [1, 2, 3, 4, 5, 99].map(|attempts| topology.retry_queue(attempts));
        let last = "belfry.ingest.retry.120s";
        assert_eq!(
            retries,
            [
                "belfry.ingest.retry.1s",
                "belfry.ingest.retry.5s",
                "belfry.ingest.retry.30s",
                last,
                last,
                last
            ]
        );
    }

    #[test]
    fn a_pause_below_a_second_is_named_in_milliseconds() {
        let retry_pauses = vec![Duration::from_millis(250)];
        let topology = Topology::new(&TopologySettings { retry_pauses, ..settings() }).unwrap();
        assert_eq!(topology.retry_queue(1), "belfry.ingest.retry.250ms");
    }

    #[test]
    fn names_that_the_broker_would_refuse_are_refused_before() {
        let with = |change: fn(&mut TopologySettings)| {
            let mut settings = settings();
            change(&mut settings);
            Topology::new(&settings).map(|_| ())
        };
        for change in [
            |s: &mut TopologySettings| s.ingest_queue = String::new(),
            |s: &mut TopologySettings| s.ingest_queue = "amq.gen-x".to_owned(),
            |s: &mut TopologySettings| s.ingest_queue = "q".repeat(253),
            |s: &mut TopologySettings| s.events_exchange = "e".repeat(256),
            |s: &mut TopologySettings| s.node = "n".repeat(255),
            |s: &mut TopologySettings| s.ingest_exchange = Some(String::new()),
        ] {
            assert!(matches!(with(change), Err(InvalidTopology::Name(_))));
        }
        let no_pause = |s: &mut TopologySettings| s.retry_pauses.clear();
        assert_eq!(with(no_pause), Err(InvalidTopology::RetryPauses));
        let zero = |s: &mut TopologySettings| s.retry_pauses[0] = Duration::ZERO;
        assert_eq!(with(zero), Err(InvalidTopology::RetryPauses));
        for change in [
            |s: &mut TopologySettings| s.node_queue_max_length = 0,
            |s: &mut TopologySettings| s.node_queue_expires = Duration::ZERO,
        ] {
            assert_eq!(with(change), Err(InvalidTopology::NodeQueue));
        }
    }
}
