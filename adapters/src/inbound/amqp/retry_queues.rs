use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use belfry_application::Backoff;
use belfry_application::ports::Clock;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::{Channel, Consumer};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::headers::{LAST_FAILED_AT, text_of};
use crate::amqp::{
    AmqpSettings, BrokerConnection, ConfirmChannel, ConnectedTask, ConnectionError,
    ConnectionStatus, HeldDelivery, Publish, Publisher, RequiredTopology, Topology, close_channel,
    subscribe,
};
use crate::wire::Rfc3339;

/// Returns messages from the retry queues to the ingest queue when their delay is over.
///
/// A message leaves its retry queue only after the broker has confirmed it in the ingest queue: at-least-once
/// delivery. RabbitMQ's own mechanism, a TTL with dead-lettering, is at-most-once for classic queues: a message
/// is lost if the ingest queue does not exist or is full, or if the broker crashes at that moment.
///
/// All messages of a retry queue have the same delay, so they are due in the order of the queue. Therefore the
/// consumer of a queue waits for its oldest message only.
pub(super) struct RetryQueues {
    topology: Topology,
    clock: Arc<dyn Clock>,
    channel: ConfirmChannel,
    /// The delays before a message that the ingest queue does not accept is published again.
    backoff: Backoff,
}

impl RetryQueues {
    /// The maximum number of unacknowledged messages of each queue. A small number is sufficient: each
    /// message that is received in advance only saves a round trip.
    const PREFETCH: u16 = 8;
    /// The limit on the bytes of the message bodies in memory, of all queues together.
    const MAX_HELD_BYTES: usize = 8 << 20;

    /// `amqp` sets the backoff for messages that the ingest queue does not accept.
    pub(super) fn new(
        amqp: &AmqpSettings,
        topology: Topology,
        publisher: &Publisher,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let channel = publisher.channel(RequiredTopology::Ingest);
        let backoff = Backoff::new(amqp.initial_backoff, amqp.max_backoff);
        Self { topology, clock, channel, backoff }
    }

    async fn subscribe(
        &self,
        connection: &BrokerConnection,
    ) -> Result<Vec<RetryConsumer>, ConnectionError> {
        let subscribing = async {
            self.topology.declare_retry_and_dead(connection).await?;
            let mut consumers = Vec::new();
            for (queue, delay) in self.topology.retry_queues() {
                match subscribe(connection, queue, Self::PREFETCH, false).await {
                    Ok((channel, consumer)) => {
                        consumers.push(RetryConsumer { channel, consumer, delay });
                    }
                    Err(error) => {
                        close_all(&consumers).await;
                        return Err(self.topology.consume_error(queue, error));
                    }
                }
            }
            Ok(consumers)
        };
        connection.unless_ended(subscribing).await
    }

    /// Moves the messages of one retry queue to the ingest queue, until its consumer ends.
    async fn consume(
        &self,
        connection: &BrokerConnection,
        retry: &mut RetryConsumer,
    ) -> Result<(), ConnectionError> {
        while let Some(delivery) = retry.consumer.next().await {
            let delivery = connection.budget().hold(delivery?);
            sleep(self.remaining_delay(&delivery, retry.delay)).await;
            self.publish_until_confirmed(&delivery).await;
            retry.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await?;
        }
        Err(ConnectionError::ConsumerCancelled(retry.consumer.queue().to_string()))
    }

    /// How much of its delay a message must still wait. The whole delay if the time of its failure is unknown, or
    /// in the future because the clocks of the nodes differ.
    fn remaining_delay(&self, delivery: &Delivery, delay: Duration) -> Duration {
        let headers = delivery.properties.headers().as_ref();
        let failed_at = headers.and_then(|headers| text_of(headers, LAST_FAILED_AT));
        let Some(Rfc3339(failed_at)) = failed_at.and_then(Rfc3339::parse) else { return delay };
        let now = self.clock.now().unix_millis();
        let waited = now.saturating_sub(failed_at.unix_millis());
        delay.saturating_sub(Duration::from_millis(waited.try_into().unwrap_or_default()))
    }

    async fn publish_until_confirmed(&self, delivery: &HeldDelivery) {
        let mut backoff = self.backoff.clone();
        let mut is_logged = false;
        loop {
            let message = Publish {
                exchange: "",
                routing_key: self.topology.ingest_queue(),
                mandatory: true,
                properties: delivery.properties.clone(),
                body: &delivery.data,
            };
            let Some(error) = self.channel.publish(&[message]).await.error else { return };
            if !is_logged {
                let error = &error as &dyn Error;
                warn!(error, "cannot return a message to the ingest queue; retrying");
            }
            is_logged = true;
            sleep(backoff.next_delay()).await;
        }
    }
}

/// The consumer of one retry queue.
struct RetryConsumer {
    channel: Channel,
    consumer: Consumer,
    delay: Duration,
}

async fn close_all(consumers: &[RetryConsumer]) {
    for RetryConsumer { channel, .. } in consumers {
        close_channel(channel).await;
    }
}

impl ConnectedTask for RetryQueues {
    const NAME: &'static str = "retry_queues";

    fn max_held_bytes(&self) -> usize {
        Self::MAX_HELD_BYTES
    }

    async fn serve(
        &self,
        connection: &Arc<BrokerConnection>,
        status: &ConnectionStatus,
        stop: &CancellationToken,
    ) -> Result<(), ConnectionError> {
        let mut consumers = self.subscribe(connection).await?;
        status.set_connected();
        let consuming =
            try_join_all(consumers.iter_mut().map(|retry| self.consume(connection, retry)));
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = connection.ended() => return Err(ConnectionError::Closed),
            ended = consuming => return ended.map(drop),
        }
        // At its limit, the stream would not read the broker's replies to the closes behind further deliveries.
        connection.budget().lift();
        close_all(&consumers).await;
        Ok(())
    }
}
