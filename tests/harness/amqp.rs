//! A producer's and an operator's client of the broker: publishes with confirms, reads queues.

use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind, Queue};
use serde_json::Value;
use tokio::time::timeout;

use crate::wait::{PATIENCE, until, until_true};

/// A connection with one channel in confirm mode.
#[derive(Debug)]
pub struct Amqp {
    connection: Connection,
    channel: Channel,
}

/// A message taken from a queue.
#[derive(Debug, Clone)]
pub struct Message {
    /// The exchange it was published to; empty for the default one.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// All properties, headers included.
    pub properties: BasicProperties,
    /// The body, unchanged.
    pub body: Vec<u8>,
}

impl Message {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{:?}: {error}", String::from_utf8_lossy(&self.body)))
    }

    /// A header of any type as text; `None` if there is no header of that name.
    pub fn header(&self, name: &str) -> Option<String> {
        let headers = self.properties.headers().as_ref()?;
        Some(match headers.inner().get(name)? {
            AMQPValue::LongString(text) => text.to_string(),
            AMQPValue::ShortString(text) => text.to_string(),
            AMQPValue::Boolean(value) => value.to_string(),
            AMQPValue::ShortShortInt(value) => value.to_string(),
            AMQPValue::ShortShortUInt(value) => value.to_string(),
            AMQPValue::ShortInt(value) => value.to_string(),
            AMQPValue::ShortUInt(value) => value.to_string(),
            AMQPValue::LongInt(value) => value.to_string(),
            AMQPValue::LongUInt(value) => value.to_string(),
            AMQPValue::LongLongInt(value) => value.to_string(),
            AMQPValue::Timestamp(value) => value.to_string(),
            other => format!("{other:?}"),
        })
    }
}

impl Amqp {
    /// Connects.
    ///
    /// # Panics
    /// When the broker cannot be reached.
    pub async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .unwrap_or_else(|error| panic!("no connection to the test broker: {error}"));
        let channel = connection.create_channel().await.expect("a connection has channels");
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .expect("confirms can be turned on");
        Self { connection, channel }
    }

    /// The channel, for operations that have no method here.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Publishes a message and waits until the broker has confirmed it.
    ///
    /// # Panics
    /// When the broker refuses it, or routes it to no queue.
    pub async fn publish(
        &self,
        exchange: &str,
        routing_key: &str,
        body: impl AsRef<[u8]>,
        properties: BasicProperties,
    ) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publishing = async {
            self.channel
                .basic_publish(
                    exchange.into(),
                    routing_key.into(),
                    options,
                    body.as_ref(),
                    properties,
                )
                .await?
                .await
        };
        let confirm = timeout(PATIENCE, publishing)
            .await
            .unwrap_or_else(|_| panic!("no confirm within {PATIENCE:?}"))
            .unwrap_or_else(|error| panic!("not published: {error}"));
        // The broker returns a mandatory message that no queue took, and confirms it all the same.
        assert!(
            confirm.is_ack() && confirm.take_message().is_none(),
            "no queue took {routing_key:?} from exchange {exchange:?}"
        );
    }

    /// Publishes persistent JSON directly to a queue, like a producer in NestJS.
    ///
    /// # Panics
    /// As [`publish`](Self::publish).
    pub async fn send(&self, queue: &str, body: &Value) {
        let properties = BasicProperties::default().with_delivery_mode(2);
        self.publish("", queue, body.to_string(), properties).await;
    }

    /// Declares a durable queue with these arguments.
    ///
    /// # Panics
    /// When the queue exists with other arguments.
    pub async fn declare_queue(&self, name: &str, arguments: FieldTable) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel
            .queue_declare(name.into(), options, arguments)
            .await
            .unwrap_or_else(|error| panic!("queue {name:?} cannot be declared: {error}"));
    }

    /// Waits for an exchange, binds a new exclusive queue to it, and returns the name of the queue. The queue
    /// receives the messages whose routing key matches `pattern`, and is deleted with the connection.
    ///
    /// # Panics
    /// When there is no such exchange within [`PATIENCE`].
    pub async fn tap(&self, exchange: &str, pattern: &str) -> String {
        let what = format!("the exchange {exchange} exists");
        until_true(&what, async || self.has_exchange(exchange).await).await;
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = self
            .channel
            .queue_declare("".into(), options, FieldTable::default())
            .await
            .expect("an exclusive queue can be declared");
        let name = queue.name().to_string();
        self.channel
            .queue_bind(
                name.as_str().into(),
                exchange.into(),
                pattern.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap_or_else(|error| panic!("exchange {exchange:?} cannot be bound: {error}"));
        name
    }

    async fn has_exchange(&self, name: &str) -> bool {
        // On a separate channel: a passive declare of a missing exchange closes the channel.
        let channel = self.connection.create_channel().await.expect("a connection has channels");
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let arguments = FieldTable::default();
        let exists = channel
            .exchange_declare(name.into(), ExchangeKind::Topic, passive, arguments)
            .await
            .is_ok();
        let _ = channel.close(200, "done".into()).await;
        exists
    }

    /// Waits for the next message of a queue and takes it.
    ///
    /// # Panics
    /// When there is no such queue, or no message arrives within [`PATIENCE`].
    pub async fn next(&self, queue: &str) -> Message {
        until(&format!("a message in {queue}"), async || self.take(queue).await).await
    }

    /// Takes the next message from a queue; `None` if the queue is empty.
    ///
    /// # Panics
    /// When there is no such queue.
    pub async fn take(&self, queue: &str) -> Option<Message> {
        let message = self
            .channel
            .basic_get(queue.into(), BasicGetOptions::default())
            .await
            .unwrap_or_else(|error| panic!("queue {queue:?} cannot be read: {error}"))?;
        let delivery = message.delivery;
        delivery.ack(BasicAckOptions::default()).await.expect("it can be acked");
        Some(Message {
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            properties: delivery.properties,
            body: delivery.data,
        })
    }

    /// The number of messages that are ready in a queue; `None` if there is no such queue.
    ///
    /// # Panics
    /// When the broker does not answer.
    pub async fn count(&self, queue: &str) -> Option<u32> {
        Some(self.inspect(queue).await?.message_count())
    }

    /// The number of consumers of a queue; `None` if there is no such queue.
    ///
    /// # Panics
    /// When the broker does not answer.
    pub async fn consumers(&self, queue: &str) -> Option<u32> {
        Some(self.inspect(queue).await?.consumer_count())
    }

    /// The broker's counts of a queue; `None` if there is no such queue.
    async fn inspect(&self, queue: &str) -> Option<Queue> {
        // On a separate channel: a passive declare of a missing queue closes the channel.
        let channel = self.connection.create_channel().await.expect("a connection has channels");
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declaring = channel.queue_declare(queue.into(), options, FieldTable::default());
        let queue =
            timeout(Duration::from_secs(10), declaring).await.expect("the broker answers").ok()?;
        let _ = channel.close(200, "done".into()).await;
        Some(queue)
    }
}
