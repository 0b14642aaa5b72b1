//! The way of an event from the store to the devices: through RabbitMQ, or in-process.

use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::Context;
use belfry_adapters::amqp::{AmqpSettings, AmqpUrl, Publisher, Topology, TopologySettings};
use belfry_adapters::inbound::amqp::{
    ForwardHere, ForwardToNodes, Ingest, IngestSettings, MessageHandler, NodeQueue,
    NodeQueueSettings, NodeQueueState, StoreCommands,
};
use belfry_adapters::inbound::in_process::InProcessEvents;
use belfry_adapters::outbound::amqp::AmqpEventPublisher;
use belfry_application::ports::{Clock, EventPublisher, IdGenerator, RealtimeDelivery};
use belfry_application::use_cases::{
    DeliverEvent, ForwardEvent, HandleCommands, RelayOutbox, RelaySettings, RevokeTokens,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Amqp, Config, IngestMode};
use crate::store::Store;

/// How many events may be on their way to this node's devices, in-process.
const ON_THE_WAY: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");

/// All parts that an event passes between the store and the devices.
pub(super) struct Events {
    relay: RelayOutbox,
    hearing: Hearing,
    /// Where `amqp.url` is set.
    broker: Option<Broker>,
}

/// How this node hears what it tells its devices.
enum Hearing {
    /// By its queue at the events exchange.
    ByNodeQueue(Box<NodeQueue>),
    /// It is the only node.
    InProcess(InProcessEvents),
}

/// What there is to do at RabbitMQ besides.
struct Broker {
    publisher: Publisher,
    ingest: IngestBy,
}

enum IngestBy {
    Storing(Ingest<StoreCommands>),
    ForwardingToNodes(Ingest<ForwardToNodes>),
    ForwardingHere(Ingest<ForwardHere>),
}

/// What events need of the rest of the application.
pub(super) struct Needs<'a> {
    pub(super) store: &'a Store,
    pub(super) delivery: Arc<dyn RealtimeDelivery>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<dyn IdGenerator>,
    pub(super) revoke_tokens: RevokeTokens,
}

impl Events {
    /// Through RabbitMQ if `amqp.url` is set, else in-process.
    pub(super) fn build(config: &Config, node: &str, needs: Needs<'_>) -> anyhow::Result<Self> {
        let outbox = needs.store.outbox();
        let relay = |events: Arc<dyn EventPublisher>| {
            RelayOutbox::new(outbox, events, RelaySettings::default())
        };
        let in_process =
            || InProcessEvents::new(ON_THE_WAY, DeliverEvent::new(needs.delivery.clone()));
        let Some(url) = &config.amqp.url else {
            let (publisher, events) = in_process();
            return Ok(Self {
                relay: relay(Arc::new(publisher)),
                hearing: Hearing::InProcess(events),
                broker: None,
            });
        };
        let url = AmqpUrl::parse(url.reveal()).context("setting amqp.url")?;
        let amqp =
            AmqpSettings { connection_name: format!("belfry {node}"), ..AmqpSettings::new(url) };
        let topology = topology(&config.amqp, node)?;
        let publisher = Publisher::new(amqp.clone(), topology.clone());
        let ingest = ingest(&config.amqp, &amqp, &topology, &publisher, &needs);
        let (relay, hearing) = if config.amqp.ingest.only_node {
            let (publisher, events) = in_process();
            (relay(Arc::new(publisher)), Hearing::InProcess(events))
        } else {
            let events = AmqpEventPublisher::new(&publisher, &topology);
            let node_queue = NodeQueue::new(
                amqp,
                topology,
                NodeQueueSettings::default(),
                needs.clock,
                DeliverEvent::new(needs.delivery.clone()),
                ForwardEvent::new(needs.delivery),
            );
            (relay(Arc::new(events)), Hearing::ByNodeQueue(Box::new(node_queue)))
        };
        Ok(Self { relay, hearing, broker: Some(Broker { publisher, ingest }) })
    }

    /// Whether this node hears of events; `None` where there is no broker between.
    pub(super) fn node_queue_state(&self) -> Option<watch::Receiver<NodeQueueState>> {
        match &self.hearing {
            Hearing::ByNodeQueue(node_queue) => Some(node_queue.state()),
            Hearing::InProcess(_) => None,
        }
    }

    /// Runs all parts until told to stop, then lets each finish what it has begun. Needs a store
    /// whose schema is up to date.
    pub(super) async fn run(self, stop: CancellationToken) {
        let Self { relay, hearing, broker } = self;
        let parts = TaskTracker::new();
        // What the parts hand over until they end is taken for as long.
        let taken = CancellationToken::new();
        let takers = TaskTracker::new();
        let (until, told_to_stop) = (taken.clone(), stop.clone());
        match hearing {
            Hearing::ByNodeQueue(node_queue) => {
                parts.spawn(async move { node_queue.run(told_to_stop).await });
            }
            Hearing::InProcess(events) => {
                takers.spawn(async move { events.run(until).await });
            }
        }
        if let Some(Broker { publisher, ingest }) = broker {
            let (until, told_to_stop) = (taken.clone(), stop.clone());
            parts.spawn(async move { ingest.run(told_to_stop).await });
            takers.spawn(async move { publisher.run(until).await });
        }
        parts.spawn(async move { relay.run(stop).await });
        for tracker in [&parts, &takers] {
            tracker.close();
        }
        parts.wait().await;
        taken.cancel();
        takers.wait().await;
    }
}

/// Where the broker is and what is called how there; `None` without `amqp.url`. For an errand that is no
/// node: the topology's node queue is nobody's.
pub(crate) fn broker(amqp: &Amqp) -> anyhow::Result<Option<(AmqpSettings, Topology)>> {
    let Some(url) = &amqp.url else { return Ok(None) };
    let url = AmqpUrl::parse(url.reveal()).context("setting amqp.url")?;
    Ok(Some((AmqpSettings::new(url), topology(amqp, "none")?)))
}

fn topology(amqp: &Amqp, node: &str) -> anyhow::Result<Topology> {
    let settings = TopologySettings {
        ingest_queue: amqp.ingest.queue.clone(),
        ingest_exchange: Some(amqp.ingest.queue.clone()),
        events_exchange: amqp.events.exchange.clone(),
        node_queue_prefix: amqp.node.queue_prefix.clone(),
        node_queue_expires: amqp.node.expires,
        node_queue_max_length: amqp.node.max_length,
        ..TopologySettings::new(node)
    };
    Topology::new(&settings).context("settings amqp.* and node.name")
}

fn ingest(
    settings: &Amqp,
    amqp: &AmqpSettings,
    topology: &Topology,
    publisher: &Publisher,
    needs: &Needs<'_>,
) -> IngestBy {
    let (mode, only_node) = (settings.ingest.mode, settings.ingest.only_node);
    let broker = (amqp, topology, publisher);
    match mode {
        IngestMode::Store => {
            let commands = HandleCommands::new(
                needs.store.inboxes_of_events(),
                needs.clock.clone(),
                needs.revoke_tokens.clone(),
            );
            let handling = StoreCommands::new(commands, needs.ids.clone(), needs.clock.clone());
            let paced = IngestSettings::default();
            IngestBy::Storing(ingest_by(settings, broker, paced, needs, handling))
        }
        IngestMode::Forward if only_node => {
            let handling = ForwardHere::new(
                ForwardEvent::new(needs.delivery.clone()),
                needs.revoke_tokens.clone(),
            );
            let paced = IngestSettings::forwarding();
            IngestBy::ForwardingHere(ingest_by(settings, broker, paced, needs, handling))
        }
        IngestMode::Forward => {
            let handling = ForwardToNodes::new(publisher, topology, needs.revoke_tokens.clone());
            let paced = IngestSettings::forwarding();
            IngestBy::ForwardingToNodes(ingest_by(settings, broker, paced, needs, handling))
        }
    }
}

fn ingest_by<H: MessageHandler>(
    settings: &Amqp,
    (amqp, topology, publisher): (&AmqpSettings, &Topology, &Publisher),
    mut paced: IngestSettings,
    needs: &Needs<'_>,
    handling: H,
) -> Ingest<H> {
    paced.prefetch = settings.ingest.prefetch;
    let clock = needs.clock.clone();
    Ingest::new(amqp.clone(), topology.clone(), paced, publisher, clock, handling)
}

impl IngestBy {
    async fn run(&self, stop: CancellationToken) {
        match self {
            Self::Storing(ingest) => ingest.run(stop).await,
            Self::ForwardingToNodes(ingest) => ingest.run(stop).await,
            Self::ForwardingHere(ingest) => ingest.run(stop).await,
        }
    }
}
