use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belfry_application::ports::{Clock, InboxRepository};
use belfry_application::use_cases::{DeliverEvent, ForwardEvent};
use belfry_domain::{Epoch, Timestamp};
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::{Channel, Consumer};
use metrics::Counter;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::forwarded::decode_forwarded;
use super::headers::text_of;
use super::message::Incoming;
use super::message_mapping::MessageMapping;
use crate::amqp::metrics::NODE_EVENTS;
use crate::amqp::{
    AmqpSettings, BrokerConnection, ConnectedTask, ConnectionError, ConnectionStatus, EPOCH_HEADER,
    FORWARDED_EPOCH, NodeQueueBacklog, Topology, accepted_at, close_channel, run_with_reconnect,
    subscribe,
};
use crate::inbound::socket_latency::SocketLatency;
use crate::wire::EventForm;

/// How this node's queue is consumed.
#[derive(Debug, Clone)]
pub struct NodeQueueSettings {
    /// The maximum number of events that the broker delivers before they are acknowledged.
    pub prefetch: u16,
    /// The limit on the bytes of the events in memory. When it is reached, Belfry stops reading from the
    /// connection before the next event.
    pub prefetch_bytes: usize,
    /// When this many events are unacknowledged, they are acknowledged without waiting for `ack_delay`. The
    /// number should be well below `prefetch`. If it is larger, the broker stops delivering until `ack_delay`
    /// has elapsed.
    pub ack_batch: u16,
    /// How long the acknowledgement of an event may be delayed. If the connection is lost before the
    /// acknowledgement, the event is redelivered. Devices recognise duplicates by their revisions.
    pub ack_delay: Duration,
    /// How forwarded events are decoded; the same as for the ingest queue.
    pub mapping: Arc<MessageMapping>,
}

impl Default for NodeQueueSettings {
    fn default() -> Self {
        Self {
            prefetch: 1_000,
            prefetch_bytes: 8 << 20,
            ack_batch: 250,
            ack_delay: Duration::from_millis(50),
            mapping: Arc::default(),
        }
    }
}

/// Whether this node receives events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeQueueState {
    /// This node does not receive events.
    Detached {
        /// When it stopped receiving events; `None` if it never received any.
        since: Option<Timestamp>,
    },
    /// This node receives events.
    Attached {
        /// When it started to receive events.
        since: Timestamp,
        /// Whether events may have been lost because the queue had expired, was deleted, or was full. If so,
        /// devices that stayed connected while the node was detached must catch up.
        missed: bool,
    },
}

/// Consumes this node's own queue and delivers the events to the devices connected here, in order.
pub struct NodeQueue {
    amqp: AmqpSettings,
    topology: Topology,
    settings: NodeQueueSettings,
    clock: Arc<dyn Clock>,
    inboxes: Arc<dyn InboxRepository>,
    deliver: DeliverEvent,
    forward: ForwardEvent,
    /// Whether it has been logged that events of another store are skipped.
    foreign_logged: AtomicBool,
    metrics: NodeQueueMetrics,
    state: watch::Sender<NodeQueueState>,
}

impl NodeQueue {
    /// `deliver` delivers the events of the store of `inboxes`. `forward` delivers the events that
    /// [`ForwardToNodes`](super::ForwardToNodes) publishes.
    pub fn new(
        amqp: AmqpSettings,
        topology: Topology,
        settings: NodeQueueSettings,
        clock: Arc<dyn Clock>,
        inboxes: Arc<dyn InboxRepository>,
        deliver: DeliverEvent,
        forward: ForwardEvent,
    ) -> Self {
        let (state, _) = watch::channel(NodeQueueState::Detached { since: None });
        let metrics = NodeQueueMetrics::register(&clock);
        Self {
            amqp,
            topology,
            settings,
            clock,
            inboxes,
            deliver,
            forward,
            foreign_logged: AtomicBool::new(false),
            metrics,
            state,
        }
    }

    /// The current state and its later changes.
    pub fn state(&self) -> watch::Receiver<NodeQueueState> {
        self.state.subscribe()
    }

    /// Consumes until `stop`. Then acknowledges the events that were delivered to devices.
    pub async fn run(&self, stop: CancellationToken) {
        run_with_reconnect(self, &self.amqp, &stop).await;
    }

    async fn subscribe(
        &self,
        connection: &BrokerConnection,
    ) -> Result<(Channel, Consumer, NodeQueueBacklog), ConnectionError> {
        let queue = self.topology.node_queue();
        let subscribing = async {
            let backlog = self.topology.declare_node(connection).await?;
            // The consumer is exclusive: with two consumers, each would receive only some of the events.
            let (channel, consumer) = subscribe(connection, queue, self.settings.prefetch, true)
                .await
                .map_err(|error| self.topology.consume_error(queue, error))?;
            Ok((channel, consumer, backlog))
        };
        connection.unless_ended(subscribing).await
    }

    /// Delivers an event to the devices, or skips it if it cannot be decoded. `epoch` is that of this node's
    /// store.
    async fn handle(&self, delivery: &Delivery, epoch: &Epoch) {
        let counter = match self.try_handle(delivery, epoch).await {
            Ok(counter) => counter,
            Err(error) => {
                let (routing_key, id) = (&delivery.routing_key, delivery.properties.message_id());
                warn!(%error, %routing_key, message_id = ?id, "skipping an event that cannot be decoded");
                &self.metrics.unreadable
            }
        };
        counter.increment(1);
    }

    /// Delivers an event to the devices, or skips it if it comes from another store. Returns the counter of the
    /// outcome. An error means that the event cannot be decoded.
    async fn try_handle(
        &self,
        delivery: &Delivery,
        epoch: &Epoch,
    ) -> Result<&Counter, Box<dyn Error + Send + Sync>> {
        let event_epoch = event_epoch(delivery);
        if event_epoch == Some(FORWARDED_EPOCH) {
            let mut devices = 0;
            for event in decode_forwarded(&Incoming::from(delivery), &self.settings.mapping)? {
                devices += self.forward.run(event).await;
            }
            self.metrics.since_publication.record(accepted_at(&delivery.properties), devices);
        } else if let Some(other) = event_epoch.filter(|other| *other != epoch.as_str()) {
            if !self.foreign_logged.swap(true, Ordering::Relaxed) {
                warn!(epoch = %other, own_epoch = epoch.as_str(), "skipping events of another store");
            }
            return Ok(&self.metrics.foreign);
        } else {
            let devices = self.deliver.run(EventForm::read(&delivery.data)?).await;
            self.metrics.since_commit.record(accepted_at(&delivery.properties), devices);
        }
        Ok(&self.metrics.delivered)
    }

    /// Delivers events and acknowledges them in batches, until `stop`.
    async fn consume(
        &self,
        connection: &BrokerConnection,
        channel: &Channel,
        consumer: Consumer,
        epoch: &Epoch,
        stop: &CancellationToken,
    ) -> Result<(), ConnectionError> {
        let NodeQueueSettings { ack_batch, ack_delay, .. } = self.settings;
        let ack_batch = usize::from(ack_batch).max(1);
        let queue = consumer.queue();
        let mut deliveries = consumer.ready_chunks(ack_batch);
        let mut stopped = pin!(stop.cancelled());
        let mut ended = pin!(connection.ended());
        let mut ack_due = pin!(sleep_until(Instant::now()));
        // The delivery tag of the newest unacknowledged event.
        let mut newest = None;
        // The number of unacknowledged events.
        let mut unacked = 0;
        loop {
            let chunk = tokio::select! {
                biased;
                () = &mut stopped => None,
                () = &mut ack_due, if newest.is_some() => Some(Vec::new()),
                chunk = deliveries.next() => {
                    Some(chunk.ok_or_else(|| ConnectionError::ConsumerCancelled(queue.to_string()))?)
                }
                () = &mut ended => return Err(ConnectionError::Closed),
            };
            let Some(chunk) = chunk else {
                return connection.unless_ended(acknowledge(channel, &mut newest)).await;
            };
            // A chunk is empty only if `ack_due` has completed.
            let is_ack_due = chunk.is_empty();
            for delivery in chunk {
                let delivery = connection.budget().hold(delivery?);
                self.handle(&delivery, epoch).await;
                if newest.is_none() {
                    ack_due.as_mut().reset(Instant::now() + ack_delay);
                }
                newest = Some(delivery.delivery_tag);
                unacked += 1;
            }
            if is_ack_due || unacked >= ack_batch {
                connection.unless_ended(acknowledge(channel, &mut newest)).await?;
                unacked = 0;
            }
        }
    }
}

impl ConnectedTask for NodeQueue {
    const NAME: &'static str = "node_queue";

    fn max_held_bytes(&self) -> usize {
        self.settings.prefetch_bytes
    }

    async fn serve(
        &self,
        connection: &Arc<BrokerConnection>,
        status: &ConnectionStatus,
        stop: &CancellationToken,
    ) -> Result<(), ConnectionError> {
        let epoch = self.inboxes.epoch().await.map_err(ConnectionError::NoEpoch)?;
        let (channel, consumer, backlog) = self.subscribe(connection).await?;
        let missed = backlog == NodeQueueBacklog::Lossy;
        self.state.send_replace(NodeQueueState::Attached { since: self.clock.now(), missed });
        status.set_connected();
        let result = self.consume(connection, &channel, consumer, &epoch, stop).await;
        self.state.send_replace(NodeQueueState::Detached { since: Some(self.clock.now()) });
        if result.is_ok() {
            // At its limit, the stream would not read the broker's reply to the close behind further deliveries.
            connection.budget().lift();
            close_channel(&channel).await;
        }
        result
    }
}

/// The metrics of events. They are registered once, because a lookup for each event would be slow.
struct NodeQueueMetrics {
    delivered: Counter,
    /// Events that cannot be decoded.
    unreadable: Counter,
    /// Events of another store, which are skipped.
    foreign: Counter,
    /// The latency of the events of the store.
    since_commit: SocketLatency,
    /// The latency of forwarded events.
    since_publication: SocketLatency,
}

impl NodeQueueMetrics {
    fn register(clock: &Arc<dyn Clock>) -> Self {
        let events = |outcome| metrics::counter!(NODE_EVENTS, "outcome" => outcome);
        Self {
            delivered: events("delivered"),
            unreadable: events("unreadable"),
            foreign: events("foreign"),
            since_commit: SocketLatency::since_commit(clock.clone()),
            since_publication: SocketLatency::since_publication(clock.clone()),
        }
    }
}

/// The epoch of the event's store, or [`FORWARDED_EPOCH`]. Events of earlier versions of Belfry have no epoch.
fn event_epoch(delivery: &Delivery) -> Option<&str> {
    text_of(delivery.properties.headers().as_ref()?, EPOCH_HEADER)
}

/// Acknowledges all deliveries up to `newest`, and sets it to `None`.
async fn acknowledge(channel: &Channel, newest: &mut Option<u64>) -> Result<(), ConnectionError> {
    if let Some(tag) = newest.take() {
        channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
    }
    Ok(())
}
