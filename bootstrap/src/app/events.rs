//! The path of an event from the store to the devices: through RabbitMQ or in-process.

use std::num::NonZeroUsize;
use std::sync::Arc;

use belfry_adapters::amqp::{AmqpSettings, Publisher, Topology};
use belfry_adapters::inbound::amqp::{
    ForwardHere, ForwardToNodes, InboxQueries, Ingest, IngestSettings, MessageHandler,
    MessageMapping, NodeQueue, NodeQueueSettings, NodeQueueState, StoreCommands,
};
use belfry_adapters::inbound::in_process::{InProcessEvents, QueueLimit};
use belfry_adapters::outbound::amqp::{AmqpEventPublisher, AmqpInboxOwner};
use belfry_application::ports::{EventPublisher, InboxOwner, RealtimeDelivery};
use belfry_application::use_cases::{
    DeliverEvent, ForwardEvent, HandleCommands, RelayOutbox, RelaySettings, RevokeTokens,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::context::AppContext;
use super::tasks::{Supervisor, Task};
use crate::config::{BadSettings, IngestMode};
use crate::store::Store;

/// The maximum size of the queue of in-process events that wait for delivery. While it is full, the relay
/// waits, and further events stay in the outbox.
const IN_PROCESS_QUEUE: QueueLimit =
    QueueLimit { events: NonZeroUsize::new(1_024).expect("not zero"), bytes: 2 * 1024 * 1024 };

/// The dependencies of the event pipeline on the rest of the server.
pub(super) struct EventDeps<'a> {
    pub(super) context: &'a AppContext,
    pub(super) store: &'a Store,
    pub(super) delivery: Arc<dyn RealtimeDelivery>,
    pub(super) revoke_tokens: &'a RevokeTokens,
}

/// The tasks of the event pipeline.
pub(super) struct Events {
    /// Tasks that end at `stop`, such as the ingest and the outbox relay.
    producers: Vec<Task>,
    /// Tasks that finish the work of the producers, and end after them: the AMQP publisher, in-process
    /// delivery.
    consumers: Vec<Task>,
    stop: CancellationToken,
    /// Cancelled when all producers have ended. Then the consumers end.
    producers_ended: CancellationToken,
    node_queue_state: Option<watch::Receiver<NodeQueueState>>,
    inbox_owner: Option<Arc<dyn InboxOwner>>,
}

/// The access to RabbitMQ that several tasks of the pipeline share.
struct Broker {
    amqp: AmqpSettings,
    topology: Topology,
    publisher: Publisher,
    /// The rules for decoding messages of other services.
    mapping: Arc<MessageMapping>,
}

impl Events {
    /// Builds the pipeline: through RabbitMQ if `amqp.url` is set, otherwise in-process.
    pub(super) fn build(node: &str, deps: &EventDeps<'_>) -> anyhow::Result<Self> {
        let settings = &deps.context.config.amqp;
        let mut events = Self {
            producers: Vec::new(),
            consumers: Vec::new(),
            stop: deps.context.stop.clone(),
            producers_ended: CancellationToken::new(),
            node_queue_state: None,
            inbox_owner: None,
        };
        let Some((amqp, topology)) = settings.broker(node)? else {
            let publisher = events.add_in_process_delivery(deps);
            events.add_relay(publisher, deps);
            return Ok(events);
        };
        events.producers.push(watch_rights(&amqp, deps));
        let amqp = AmqpSettings { connection_name: format!("belfry {node}"), ..amqp };
        let publisher = Publisher::new(amqp.clone(), topology.clone());
        let broker = Broker { amqp, topology, publisher, mapping: mapping(deps)? };
        events.producers.push(ingest(&broker, deps));
        if let Some(owner) = AmqpInboxOwner::new(&broker.publisher, &broker.topology) {
            events.inbox_owner = Some(Arc::new(owner));
        }
        let publisher: Arc<dyn EventPublisher> = if settings.ingest.only_node {
            events.add_in_process_delivery(deps)
        } else {
            events.add_node_queue(&broker, deps);
            let inboxes = deps.store.event_inboxes.clone();
            Arc::new(AmqpEventPublisher::new(&broker.publisher, &broker.topology, inboxes))
        };
        events.add_relay(publisher, deps);
        let (publisher, stop) = (broker.publisher, events.producers_ended.clone());
        events
            .consumers
            .push(Task::new("AMQP publisher", async move { publisher.run(stop).await }));
        Ok(events)
    }

    /// The state of this node's queue: whether it receives events. `None` if the node has no queue.
    pub(super) fn node_queue_state(&self) -> Option<watch::Receiver<NodeQueueState>> {
        self.node_queue_state.clone()
    }

    /// The service that keeps the inboxes in forward mode. `None` if `amqp.devices.exchange` is not set.
    pub(super) fn inbox_owner(&self) -> Option<Arc<dyn InboxOwner>> {
        self.inbox_owner.clone()
    }

    /// The whole pipeline as one task. It starts once the store is usable.
    pub(super) fn into_task(self, store: &Store) -> Task {
        let (store, stop) = (store.clone(), self.stop.clone());
        Task::fallible("events", async move {
            store.run_when_usable(&stop, self.run()).await.unwrap_or(Ok(()))
        })
    }

    /// Runs until `stop`, then lets first the producers and then the consumers finish.
    async fn run(self) -> anyhow::Result<()> {
        let mut producers = Supervisor::spawn(self.producers);
        let mut consumers = Supervisor::spawn(self.consumers);
        tokio::select! {
            result = producers.run_until(&self.stop) => result?,
            result = consumers.run_until(&self.stop) => result?,
        }
        producers.join().await;
        self.producers_ended.cancel();
        consumers.join().await;
        Ok(())
    }

    fn add_relay(&mut self, publisher: Arc<dyn EventPublisher>, deps: &EventDeps<'_>) {
        let relay =
            RelayOutbox::new(deps.store.outbox.clone(), publisher, RelaySettings::default());
        let stop = self.stop.clone();
        self.producers.push(Task::new("outbox relay", async move { relay.run(stop).await }));
    }

    fn add_node_queue(&mut self, broker: &Broker, deps: &EventDeps<'_>) {
        let prefetch_bytes = deps.context.config.amqp.node.prefetch_bytes;
        let prefetch_bytes = prefetch_bytes.try_into().unwrap_or(usize::MAX);
        let node_queue = NodeQueue::new(
            broker.amqp.clone(),
            broker.topology.clone(),
            NodeQueueSettings {
                prefetch_bytes,
                mapping: broker.mapping.clone(),
                ..NodeQueueSettings::default()
            },
            deps.context.clock.clone(),
            deps.store.event_inboxes.clone(),
            deliver_event(deps),
            ForwardEvent::new(deps.delivery.clone()),
        );
        self.node_queue_state = Some(node_queue.state());
        let stop = self.stop.clone();
        self.producers.push(Task::new("node queue", async move { node_queue.run(stop).await }));
    }

    fn add_in_process_delivery(&mut self, deps: &EventDeps<'_>) -> Arc<dyn EventPublisher> {
        let clock = deps.context.clock.clone();
        let (publisher, events) =
            InProcessEvents::new(IN_PROCESS_QUEUE, deliver_event(deps), clock);
        let stop = self.producers_ended.clone();
        let run = async move {
            events.run(stop.clone()).await;
            // `events.run` ends early when the relay ends and drops the publisher. The supervisor requires
            // that a task runs until its stop.
            stop.cancelled().await;
        };
        self.consumers.push(Task::new("in-process delivery", run));
        Arc::new(publisher)
    }
}

fn deliver_event(deps: &EventDeps<'_>) -> DeliverEvent {
    match deps.context.config.amqp.ingest.mode {
        IngestMode::Store => DeliverEvent::new(deps.delivery.clone()),
        IngestMode::Forward => DeliverEvent::for_forward_mode(),
    }
}

/// Keeps the readiness check `broker_rights` up to date: it is down while RabbitMQ denies a right that Belfry
/// needs. An outage of the broker does not change it.
fn watch_rights(amqp: &AmqpSettings, deps: &EventDeps<'_>) -> Task {
    let check = deps.context.readiness.register("broker_rights");
    check.up();
    let (mut missing, stop) = (amqp.missing_rights.subscribe(), deps.context.stop.clone());
    Task::new("broker rights", async move {
        while let Some(Ok(())) = stop.run_until_cancelled(missing.changed()).await {
            if missing.borrow_and_update().is_empty() {
                check.up();
            } else {
                check.down("RabbitMQ refuses access: a right is missing");
            }
        }
    })
}

fn ingest(broker: &Broker, deps: &EventDeps<'_>) -> Task {
    let settings = &deps.context.config.amqp.ingest;
    let revoke_tokens = deps.revoke_tokens.clone();
    match settings.mode {
        IngestMode::Store => {
            let inboxes = deps.store.event_inboxes.clone();
            let (clock, ids) = (deps.context.clock.clone(), deps.context.ids.clone());
            let queries = InboxQueries::new(inboxes.clone());
            let commands = HandleCommands::new(inboxes, clock.clone(), revoke_tokens);
            let handler = StoreCommands::new(commands, queries, ids, clock);
            consume(broker, deps, IngestSettings::default(), handler)
        }
        IngestMode::Forward if settings.only_node => {
            let forward = ForwardEvent::new(deps.delivery.clone());
            let clock = deps.context.clock.clone();
            let handler = ForwardHere::new(forward, revoke_tokens, clock);
            consume(broker, deps, IngestSettings::forwarding(), handler)
        }
        IngestMode::Forward => {
            let (publisher, topology) = (&broker.publisher, &broker.topology);
            let handler = ForwardToNodes::new(publisher, topology, revoke_tokens);
            consume(broker, deps, IngestSettings::forwarding(), handler)
        }
    }
}

/// The rules for decoding messages of other services. The schemes of links come from `[notifications]`,
/// everything else from `[amqp]`.
fn mapping(deps: &EventDeps<'_>) -> Result<Arc<MessageMapping>, BadSettings> {
    let config = &deps.context.config;
    let links = config.notifications.links();
    Ok(Arc::new(MessageMapping { links, ..config.amqp.mapping()? }))
}

fn consume<H: MessageHandler + 'static>(
    broker: &Broker,
    deps: &EventDeps<'_>,
    mut settings: IngestSettings,
    handler: H,
) -> Task {
    let configured = &deps.context.config.amqp.ingest;
    settings.prefetch = configured.prefetch;
    settings.revocations = configured.revocations;
    // In forward mode `reads` is on already: the handler rejects reads of an inbox with an error of its own.
    settings.reads |= configured.reads;
    settings.mapping = broker.mapping.clone();
    settings.prefetch_bytes = configured.prefetch_bytes.try_into().unwrap_or(usize::MAX);
    let ingest = Ingest::new(
        broker.amqp.clone(),
        broker.topology.clone(),
        settings,
        &broker.publisher,
        deps.context.clock.clone(),
        handler,
    );
    let stop = deps.context.stop.clone();
    Task::new("ingest", async move { ingest.run(stop).await })
}
