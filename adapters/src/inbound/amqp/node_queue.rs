use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use belfry_application::ports::Clock;
use belfry_application::use_cases::{DeliverEvent, ForwardEvent};
use belfry_domain::Timestamp;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::forwarded::read_passed;
use crate::amqp::{
    AmqpSettings, Link, Lost, NodeQueueFound, Role, Topology, Up, is_refused, keep, measures,
};
use crate::wire::EventForm;

/// How this node's queue is consumed.
#[derive(Debug, Clone)]
pub struct NodeQueueSettings {
    /// How many events the broker hands out ahead of their acknowledgement.
    pub prefetch: u16,
    /// How many are acknowledged together at most. Below `prefetch`, or the queue stands still until
    /// `acknowledge_after` is over.
    pub acknowledge_every: u16,
    /// How long an event may wait for its acknowledgement. A connection that is lost within it brings
    /// those events once more; devices know them by their revisions.
    pub acknowledge_after: Duration,
}

impl Default for NodeQueueSettings {
    fn default() -> Self {
        Self {
            prefetch: 1_000,
            acknowledge_every: 250,
            acknowledge_after: Duration::from_millis(50),
        }
    }
}

/// Whether this node hears of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeQueueState {
    /// It does not.
    Detached {
        /// Since when; `None` if it never did.
        since: Option<Timestamp>,
    },
    /// It does.
    Attached {
        /// Since when.
        since: Timestamp,
        /// Whether events may have passed it by before: its queue had expired or was deleted, or
        /// was full. Devices that stayed connected through it must catch up.
        missed: bool,
    },
}

/// Consumes this node's own queue: what happened to any inbox, told to the devices that are connected
/// here, in order.
pub struct NodeQueue {
    amqp: AmqpSettings,
    topology: Topology,
    settings: NodeQueueSettings,
    clock: Arc<dyn Clock>,
    deliver: DeliverEvent,
    forward: ForwardEvent,
    state: watch::Sender<NodeQueueState>,
}

impl NodeQueue {
    /// Consumes from that broker. Stored events go to `deliver`, those passed on by
    /// [`ForwardToNodes`](super::ForwardToNodes) to `forward`.
    pub fn new(
        amqp: AmqpSettings,
        topology: Topology,
        settings: NodeQueueSettings,
        clock: Arc<dyn Clock>,
        deliver: DeliverEvent,
        forward: ForwardEvent,
    ) -> Self {
        let (state, _) = watch::channel(NodeQueueState::Detached { since: None });
        Self { amqp, topology, settings, clock, deliver, forward, state }
    }

    /// Whether this node hears of events, now and from now on.
    pub fn state(&self) -> watch::Receiver<NodeQueueState> {
        self.state.subscribe()
    }

    /// Consumes until told to stop. What is delivered by then is acknowledged.
    pub async fn run(&self, stop: CancellationToken) {
        keep(self, &self.amqp, &stop).await;
    }

    async fn attach(&self, link: &Link) -> Result<(Channel, Consumer, bool), Lost> {
        let found = self.topology.declare_node(link).await?;
        let channel = link.create_channel().await?;
        // None would be no bound at all.
        let prefetch = self.settings.prefetch.max(1);
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let queue = self.topology.node_queue();
        // Two that consume one queue would each tell half of the events to their devices.
        let alone = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let consumer = channel
            .basic_consume(queue.into(), "".into(), alone, FieldTable::default())
            .await
            .map_err(|error| {
                if is_refused(&error, &[AMQPSoftError::ACCESSREFUSED]) {
                    Lost::Taken(queue.to_owned())
                } else {
                    error.into()
                }
            })?;
        Ok((channel, consumer, found == NodeQueueFound::Lossy))
    }

    async fn tell(&self, delivery: &Delivery) {
        let outcome = match self.try_to_tell(delivery).await {
            Ok(()) => "delivered",
            Err(error) => {
                let (key, id) = (&delivery.routing_key, delivery.properties.message_id());
                warn!(%error, %key, ?id, "an event that cannot be read is passed over");
                "unreadable"
            }
        };
        metrics::counter!(measures::NODE_EVENTS, "outcome" => outcome).increment(1);
    }

    async fn try_to_tell(&self, delivery: &Delivery) -> Result<(), Box<dyn Error + Send + Sync>> {
        if delivery.routing_key.as_str() == Topology::PASSED {
            self.forward.run(read_passed(&delivery.data)?).await;
        } else {
            self.deliver.run(EventForm::read(&delivery.data)?).await;
        }
        Ok(())
    }
}

impl Role for NodeQueue {
    const NAME: &'static str = "node_queue";

    async fn serve(&self, link: &Arc<Link>, up: &Up, stop: &CancellationToken) -> Result<(), Lost> {
        let (channel, consumer, missed) = link.answered(self.attach(link)).await?;
        self.state.send_replace(NodeQueueState::Attached { since: self.clock.now(), missed });
        up.now();
        let end = self.consume(link, channel, consumer, stop).await;
        self.state.send_replace(NodeQueueState::Detached { since: Some(self.clock.now()) });
        end
    }
}

impl NodeQueue {
    async fn consume(
        &self,
        link: &Link,
        channel: Channel,
        consumer: Consumer,
        stop: &CancellationToken,
    ) -> Result<(), Lost> {
        let NodeQueueSettings { acknowledge_every, acknowledge_after, .. } = self.settings;
        let every = usize::from(acknowledge_every).max(1);
        let queue = consumer.queue();
        let mut deliveries = consumer.ready_chunks(every);
        let mut stopped = pin!(stop.cancelled());
        let mut gone = pin!(link.gone());
        let mut due = pin!(sleep_until(Instant::now()));
        let mut newest = None;
        let mut told = 0;
        loop {
            let chunk = tokio::select! {
                biased;
                () = &mut stopped => None,
                () = &mut due, if newest.is_some() => Some(Vec::new()),
                chunk = deliveries.next() => {
                    Some(chunk.ok_or_else(|| Lost::ConsumerCancelled(queue.to_string()))?)
                }
                () = &mut gone => return Err(Lost::Closed),
            };
            let Some(chunk) = chunk else {
                return link.answered(acknowledge(&channel, &mut newest)).await;
            };
            let is_due = chunk.is_empty();
            for delivery in chunk {
                let delivery = delivery?;
                self.tell(&delivery).await;
                if newest.is_none() {
                    due.as_mut().reset(Instant::now() + acknowledge_after);
                }
                newest = Some(delivery.delivery_tag);
                told += 1;
            }
            if is_due || told >= every {
                link.answered(acknowledge(&channel, &mut newest)).await?;
                told = 0;
            }
        }
    }
}

async fn acknowledge(channel: &Channel, newest: &mut Option<u64>) -> Result<(), Lost> {
    if let Some(tag) = newest.take() {
        channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
    }
    Ok(())
}
