use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use belfry_adapters::amqp::{AmqpSettings, AmqpUrl, Publisher, Topology, TopologySettings};
use belfry_adapters::inbound::amqp::{
    Envelope, Failure, Handling, Ingest, IngestSettings, NodeQueue, NodeQueueSettings,
    StoreCommands, Unreadable,
};
use belfry_adapters::outbound::amqp::AmqpEventPublisher;
use belfry_application::ports::{InboxRepository, ListFilter, PageLimit, PortError};
use belfry_application::testing::{
    InMemoryStore, ManualClock, MockInboxRepository, RecordingDelivery, SequentialIds, epoch, user,
};
use belfry_application::use_cases::{DeliverEvent, ForwardEvent, HandleCommands, RevokeTokens};
use belfry_domain::{Draft, Notification};
use belfry_tests::amqp::Amqp;
use belfry_tests::rabbit::{Broker, fresh_prefix};
use belfry_tests::wait::{PATIENCE, until_true};
use futures_util::FutureExt;
use lapin::options::QueueDeleteOptions;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A broker, a hand on it, and names for one test.
pub(super) struct Rig {
    pub(super) broker: Broker,
    pub(super) amqp: Amqp,
    url: String,
}

/// A part of Belfry at work.
pub(super) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(super) fn start<F>(work: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(work(stop.clone())), stop }
    }

    /// Stops it in good order.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        let ended = timeout(PATIENCE, self.task).await.expect("it stops when it is told to");
        ended.expect("it does not panic");
    }
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::on(fresh_prefix().await).await
    }

    pub(super) async fn on(broker: Broker) -> Self {
        let amqp = Amqp::connect(broker.url()).await;
        for retry in ["retry.100ms", "retry.200ms"] {
            broker.will_delete_queue(format!("{}.{retry}", broker.ingest_queue()));
        }
        Self { url: broker.url().to_owned(), amqp, broker }
    }

    /// Has Belfry take another way to the broker.
    pub(super) fn by_way_of(mut self, url: &str) -> Self {
        url.clone_into(&mut self.url);
        self
    }

    pub(super) fn settings(&self) -> AmqpSettings {
        AmqpSettings {
            shortest_pause: Duration::from_millis(20),
            longest_pause: Duration::from_millis(300),
            ..AmqpSettings::new(AmqpUrl::parse(&self.url).unwrap())
        }
    }

    pub(super) fn topology(&self, node: &str) -> Topology {
        let settings = TopologySettings {
            ingest_queue: self.broker.ingest_queue(),
            ingest_exchange: Some(self.broker.ingest_queue()),
            retry_pauses: vec![Duration::from_millis(100), Duration::from_millis(200)],
            events_exchange: self.broker.events_exchange(),
            node_queue_prefix: self.broker.name("node"),
            ..TopologySettings::new(node)
        };
        self.broker.will_delete_queue(self.broker.node_queue(node));
        Topology::new(&settings).unwrap()
    }

    /// A publisher that is connected.
    pub(super) async fn publisher(&self) -> (Publisher, Running) {
        let publisher = Publisher::new(self.settings(), self.topology("a"));
        let running = Running::start(|stop| {
            let publisher = publisher.clone();
            async move { publisher.run(stop).await }
        });
        until_true("the publisher is connected", async || publisher.is_ready()).await;
        (publisher, running)
    }

    pub(super) fn event_publisher(&self, publisher: &Publisher) -> AmqpEventPublisher {
        AmqpEventPublisher::new(publisher, &self.topology("a"))
    }

    /// Consumes the ingest queue.
    pub(super) fn ingest<H: Handling + 'static>(
        &self,
        publisher: &Publisher,
        handling: H,
    ) -> Running {
        let settings = IngestSettings {
            max_attempts: 3,
            max_early_attempts: 3,
            shortest_pause: Duration::from_millis(10),
            longest_pause: Duration::from_millis(200),
            ..IngestSettings::default()
        };
        let clock = Arc::new(ManualClock::at(0));
        let (amqp, topology) = (self.settings(), self.topology("a"));
        let ingest = Ingest::new(amqp, topology, settings, publisher, clock, handling);
        Running::start(|stop| async move { ingest.run(stop).await })
    }

    pub(super) fn node_queue(&self, node: &str) -> NodeQueue {
        self.node_queue_for(node, Arc::new(RecordingDelivery::default()))
    }

    pub(super) fn node_queue_for(&self, node: &str, delivery: Arc<RecordingDelivery>) -> NodeQueue {
        NodeQueue::new(
            self.settings(),
            self.topology(node),
            NodeQueueSettings::default(),
            Arc::new(ManualClock::at(0)),
            DeliverEvent::new(delivery.clone()),
            ForwardEvent::new(delivery),
        )
    }

    /// Consumes a node's queue, and is attached to it.
    pub(super) async fn node(&self, name: &str) -> (Arc<RecordingDelivery>, Running) {
        let delivery = Arc::new(RecordingDelivery::default());
        let node = self.node_queue_for(name, delivery.clone());
        let mut state = node.state();
        let running = Running::start(|stop| async move { node.run(stop).await });
        let attached = |state: &_| matches!(state, NodeQueueState::Attached { .. });
        timeout(PATIENCE, state.wait_for(attached)).await.unwrap().unwrap();
        (delivery, running)
    }

    /// Sends straight to the ingest queue, as NestJS does by default, once the queue is there.
    pub(super) async fn send(&self, pattern: &str, data: Value) {
        self.amqp
            .send(&self.broker.ingest_queue(), &json!({ "pattern": pattern, "data": data }))
            .await;
    }

    /// Waits until all that messages come by is there; the dead queue is made last.
    pub(super) async fn ingest_is_declared(&self) {
        self.exists(&self.broker.dead_queue()).await;
    }

    pub(super) async fn exists(&self, queue: &str) {
        let what = format!("there is a queue {queue}");
        until_true(&what, async || self.amqp.count(queue).await.is_some()).await;
    }

    pub(super) async fn delete(&self, queue: &str) {
        let options = QueueDeleteOptions::default();
        self.amqp.channel().queue_delete(queue.into(), options).await.unwrap();
    }

    /// Stops what consumes the ingest queue. To be called once it is known to have come to the last
    /// message: what was in hand and not acknowledged would come back.
    pub(super) async fn leaves_nothing(&self, ingest: Running) {
        ingest.stop().await;
        let queue = self.broker.ingest_queue();
        assert_eq!(self.amqp.count(&queue).await, Some(0), "all that was consumed is acknowledged");
    }

    /// The same, and the publisher stops as well.
    pub(super) async fn ends_with_nothing_left(&self, ingest: Running, publisher: Running) {
        self.leaves_nothing(ingest).await;
        publisher.stop().await;
    }
}

pub(super) use belfry_adapters::inbound::amqp::NodeQueueState;

/// A store that is up or down, and that some notifications never work for.
pub(super) struct Store {
    pub(super) inner: Arc<InMemoryStore>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Faults {
    down: bool,
    calls_while_down: usize,
    done: usize,
    fails: Vec<String>,
    refuses: Vec<String>,
}

impl Store {
    pub(super) fn new() -> Self {
        Self { inner: Arc::new(InMemoryStore::new(epoch("e1"))), faults: Arc::default() }
    }

    pub(super) fn goes_down(&self, down: bool) {
        self.faults.lock().unwrap().down = down;
    }

    pub(super) fn calls_while_down(&self) -> usize {
        self.faults.lock().unwrap().calls_while_down
    }

    /// How many creations it was asked for and could do, the same ones again included.
    pub(super) fn done(&self) -> usize {
        self.faults.lock().unwrap().done
    }

    /// Fails for this one, as long as it is told to, and works for others.
    pub(super) fn fails_for(&self, ids: &[&str]) {
        self.faults.lock().unwrap().fails = ids.iter().map(|&id| id.to_owned()).collect();
    }

    pub(super) fn refuses(&self, id: &str) {
        self.faults.lock().unwrap().refuses.push(id.to_owned());
    }

    pub(super) fn handling(&self) -> StoreCommands {
        let mut store = MockInboxRepository::new();
        let (inner, faults) = (self.inner.clone(), self.faults.clone());
        store.expect_create().returning(move |drafts| {
            faults.lock().unwrap().check(&drafts)?;
            at_once(inner.create(drafts))
        });
        let inner = self.inner.clone();
        store
            .expect_mark_read()
            .returning(move |user, ids, at| at_once(inner.mark_read(user, ids, at)));
        let inner = self.inner.clone();
        store
            .expect_mark_all_read()
            .returning(move |user, at| at_once(inner.mark_all_read(user, at)));
        let clock = Arc::new(ManualClock::at(1_000));
        let commands = HandleCommands::new(Arc::new(store), clock.clone(), revoke_tokens());
        StoreCommands::new(commands, Arc::new(SequentialIds::default()), clock)
    }

    /// What is in a user's inbox, oldest first.
    pub(super) async fn inbox(&self, name: &str) -> Vec<Notification> {
        let all = ListFilter::default();
        let mut inbox =
            self.inner.list(&user(name), &all, PageLimit::rows(usize::MAX)).await.unwrap().items;
        inbox.reverse();
        inbox
    }

    pub(super) async fn ids(&self, name: &str) -> Vec<String> {
        self.inbox(name).await.iter().map(|one| one.id.to_string()).collect()
    }
}

/// Lets nothing be done until it is opened.
#[derive(Clone)]
pub(super) struct Gate {
    open: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
}

impl Gate {
    pub(super) fn closed() -> Self {
        Self { open: watch::Sender::new(false), waiting: Arc::default() }
    }

    pub(super) fn open(&self) {
        self.open.send_replace(true);
    }

    /// How often somebody came to the closed gate.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    pub(super) fn before<H>(&self, handling: H) -> Gated<H> {
        Gated { gate: self.clone(), handling }
    }
}

/// A handling behind a [`Gate`].
pub(super) struct Gated<H> {
    gate: Gate,
    handling: H,
}

/// A way to revoke tokens that nobody looks at.
pub(super) fn revoke_tokens() -> RevokeTokens {
    let store = Arc::new(InMemoryStore::new(epoch("e1")));
    RevokeTokens::new(store, Arc::new(ManualClock::at(1_000)))
}

impl<H: Handling> Handling for Gated<H> {
    type Order = H::Order;
    type Lane = H::Lane;

    fn lane(order: &H::Order) -> H::Lane {
        H::lane(order)
    }

    fn read(&self, envelope: &Envelope<'_>) -> Result<H::Order, Unreadable> {
        self.handling.read(envelope)
    }

    async fn run(&self, orders: Vec<H::Order>) -> Vec<Result<(), Failure>> {
        if !*self.gate.open.borrow() {
            self.gate.waiting.fetch_add(1, Ordering::SeqCst);
        }
        self.gate.open.subscribe().wait_for(|open| *open).await.expect("the gate is there");
        self.handling.run(orders).await
    }
}

impl Faults {
    fn check(&mut self, drafts: &[Draft]) -> Result<(), PortError> {
        if self.down {
            self.calls_while_down += 1;
            return Err(PortError::unavailable("the store is down"));
        }
        let any =
            |ids: &[String]| drafts.iter().any(|one| ids.iter().any(|id| *id == one.id.as_str()));
        if any(&self.fails) {
            return Err(PortError::failed("a lock that is never freed"));
        }
        if any(&self.refuses) {
            return Err(PortError::rejected("a value that no column takes"));
        }
        self.done += drafts.len();
        Ok(())
    }
}

/// The in-memory store never waits.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("nothing to wait for in memory")
}
