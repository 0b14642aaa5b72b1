//! The parts that the tests of the RabbitMQ adapters share: Belfry's tasks on a real broker, and a store in memory
//! that fails when a test wants.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use belfry_adapters::amqp::{AmqpSettings, AmqpUrl, Publisher, Topology, TopologySettings};
pub(super) use belfry_adapters::inbound::amqp::NodeQueueState;
use belfry_adapters::inbound::amqp::{
    Envelope, HandlerError, InboxQueries, Ingest, IngestSettings, InvalidMessage, MessageHandler,
    MessageMapping, NodeQueue, NodeQueueSettings, StoreCommands,
};
use belfry_adapters::outbound::amqp::AmqpEventPublisher;
use belfry_adapters::wire::EventForm;
use belfry_application::ports::{InboxRepository, ListFilter, PageLimit, PortError};
use belfry_application::revoked_tokens::RevokedTokens;
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

/// A broker with names for one test, a client of it, and the settings for Belfry's tasks.
pub(super) struct Rig {
    pub(super) broker: Broker,
    /// The test's own connection to the broker.
    pub(super) amqp: Amqp,
    /// The URL through which Belfry's tasks connect.
    url: String,
}

/// A running task of Belfry.
pub(super) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(super) fn start<F>(run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(run(stop.clone())), stop }
    }

    /// Stops the task gracefully.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        let ended = timeout(PATIENCE, self.task).await.expect("the task stops in time");
        ended.expect("the task does not panic");
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

    /// Belfry's tasks connect to the broker through this URL, such as that of a proxy.
    pub(super) fn via(mut self, url: &str) -> Self {
        url.clone_into(&mut self.url);
        self
    }

    pub(super) fn settings(&self) -> AmqpSettings {
        AmqpSettings {
            initial_backoff: Duration::from_millis(20),
            max_backoff: Duration::from_millis(300),
            ..AmqpSettings::new(AmqpUrl::parse(&self.url).unwrap())
        }
    }

    pub(super) fn topology(&self, node: &str) -> Topology {
        self.broker.will_delete_queue(self.broker.node_queue(node));
        Topology::new(&self.topology_settings(node)).unwrap()
    }

    fn topology_settings(&self, node: &str) -> TopologySettings {
        TopologySettings {
            ingest_queue: self.broker.ingest_queue(),
            ingest_exchange: Some(self.broker.ingest_queue()),
            retry_delays: vec![Duration::from_millis(100), Duration::from_millis(200)],
            events_exchange: self.broker.events_exchange(),
            devices_exchange: Some(self.broker.devices_exchange()),
            node_queue_prefix: self.broker.name("node"),
            ..TopologySettings::new(node)
        }
    }

    /// A connected publisher, and the task that keeps its connection.
    pub(super) async fn publisher(&self) -> (Publisher, Running) {
        self.publisher_with(|_| {}).await
    }

    /// Like [`Self::publisher`], with changed settings.
    pub(super) async fn publisher_with(
        &self,
        change: impl FnOnce(&mut TopologySettings),
    ) -> (Publisher, Running) {
        let mut topology = self.topology_settings("a");
        change(&mut topology);
        let publisher = Publisher::new(self.settings(), Topology::new(&topology).unwrap());
        let running = Running::start(|stop| {
            let publisher = publisher.clone();
            async move { publisher.run(stop).await }
        });
        until_true("the publisher is connected", async || publisher.is_ready()).await;
        (publisher, running)
    }

    pub(super) fn event_publisher(&self, publisher: &Publisher) -> AmqpEventPublisher {
        self.event_publisher_of(publisher, "e1")
    }

    /// Publishes events of the store with this epoch.
    pub(super) fn event_publisher_of(
        &self,
        publisher: &Publisher,
        store_epoch: &str,
    ) -> AmqpEventPublisher {
        let inboxes = Arc::new(InMemoryStore::new(epoch(store_epoch)));
        AmqpEventPublisher::new(publisher, &self.topology("a"), inboxes)
    }

    /// Starts to consume the ingest queue.
    pub(super) fn ingest<H: MessageHandler + 'static>(
        &self,
        publisher: &Publisher,
        handler: H,
    ) -> Running {
        self.ingest_with(publisher, handler, |_, _| {})
    }

    /// Like [`Self::ingest`], with changed settings.
    pub(super) fn ingest_with<H: MessageHandler + 'static>(
        &self,
        publisher: &Publisher,
        handler: H,
        change: impl FnOnce(&mut TopologySettings, &mut IngestSettings),
    ) -> Running {
        let mut settings = IngestSettings {
            max_attempts: 3,
            max_early_attempts: 3,
            initial_backoff: Duration::from_millis(10),
            max_backoff: Duration::from_millis(200),
            ..IngestSettings::default()
        };
        let mut topology = self.topology_settings("a");
        change(&mut topology, &mut settings);
        let clock = Arc::new(ManualClock::at(0));
        let (amqp, topology) = (self.settings(), Topology::new(&topology).unwrap());
        let ingest = Ingest::new(amqp, topology, settings, publisher, clock, handler);
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
            Arc::new(InMemoryStore::new(epoch("e1"))),
            DeliverEvent::new(delivery.clone()),
            ForwardEvent::new(delivery),
        )
    }

    /// Starts a node that consumes its queue, and waits until it is attached to the queue.
    pub(super) async fn node(&self, name: &str) -> (Arc<RecordingDelivery>, Running) {
        let delivery = Arc::new(RecordingDelivery::default());
        let node = self.node_queue_for(name, delivery.clone());
        let mut state = node.state();
        let running = Running::start(|stop| async move { node.run(stop).await });
        let attached = |state: &_| matches!(state, NodeQueueState::Attached { .. });
        timeout(PATIENCE, state.wait_for(attached)).await.unwrap().unwrap();
        (delivery, running)
    }

    /// Sends directly to the ingest queue, as NestJS does by default. The queue must exist.
    pub(super) async fn send(&self, pattern: &str, data: Value) {
        self.amqp
            .send(&self.broker.ingest_queue(), &json!({ "pattern": pattern, "data": data }))
            .await;
    }

    /// Waits until the ingest queue has a consumer. Then all queues and bindings exist.
    pub(super) async fn wait_for_ingest(&self) {
        let queue = self.broker.ingest_queue();
        until_true("the ingest queue is consumed", async || {
            self.amqp.consumers(&queue).await.is_some_and(|count| count > 0)
        })
        .await;
    }

    pub(super) async fn wait_for_queue(&self, queue: &str) {
        let what = format!("the queue {queue} exists");
        until_true(&what, async || self.amqp.count(queue).await.is_some()).await;
    }

    pub(super) async fn delete(&self, queue: &str) {
        let options = QueueDeleteOptions::default();
        self.amqp.channel().queue_delete(queue.into(), options).await.unwrap();
    }

    /// Stops the ingest and checks that no message returns to the queue. A test calls this after the last message
    /// took effect.
    pub(super) async fn stop_ingest(&self, ingest: Running) {
        ingest.stop().await;
        let queue = self.broker.ingest_queue();
        assert_eq!(
            self.amqp.count(&queue).await,
            Some(0),
            "consumed messages are not acknowledged"
        );
    }

    /// Like [`Self::stop_ingest`], and stops the publisher.
    pub(super) async fn stop_all(&self, ingest: Running, publisher: Running) {
        self.stop_ingest(ingest).await;
        publisher.stop().await;
    }
}

/// A store in memory that can be down, and that can fail for some notifications.
pub(super) struct Store {
    pub(super) inner: Arc<InMemoryStore>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Faults {
    down: bool,
    calls_while_down: usize,
    created: usize,
    /// Ids of the notifications whose creation fails in a way that may pass.
    fails: Vec<String>,
    /// Ids of the notifications whose creation can never succeed.
    rejects: Vec<String>,
}

impl Store {
    pub(super) fn new() -> Self {
        let inner = InMemoryStore::with_encoder(epoch("e1"), EventForm::write);
        Self { inner: Arc::new(inner), faults: Arc::default() }
    }

    pub(super) fn set_down(&self, down: bool) {
        self.faults.lock().unwrap().down = down;
    }

    pub(super) fn calls_while_down(&self) -> usize {
        self.faults.lock().unwrap().calls_while_down
    }

    /// The number of creations that succeeded, duplicates included.
    pub(super) fn created(&self) -> usize {
        self.faults.lock().unwrap().created
    }

    /// From now on, creations of these notifications fail, and of no others. The next call replaces the ids.
    pub(super) fn fail_for(&self, ids: &[&str]) {
        self.faults.lock().unwrap().fails = ids.iter().map(|&id| id.to_owned()).collect();
    }

    /// The store rejects the creation of this notification.
    pub(super) fn reject(&self, id: &str) {
        self.faults.lock().unwrap().rejects.push(id.to_owned());
    }

    pub(super) fn handler(&self) -> StoreCommands {
        let mut store = MockInboxRepository::new();
        let (inner, faults) = (self.inner.clone(), self.faults.clone());
        store.expect_create().returning(move |drafts| {
            faults.lock().unwrap().check(&drafts)?;
            ready(inner.create(drafts))
        });
        let inner = self.inner.clone();
        store
            .expect_mark_read()
            .returning(move |user, ids, at| ready(inner.mark_read(user, ids, at)));
        let inner = self.inner.clone();
        store.expect_delete().returning(move |user, ids, at| ready(inner.delete(user, ids, at)));
        let inner = self.inner.clone();
        store
            .expect_mark_all_read()
            .returning(move |user, at| ready(inner.mark_all_read(user, at)));
        let clock = Arc::new(ManualClock::at(1_000));
        let queries = InboxQueries::new(self.inner.clone());
        let commands = HandleCommands::new(Arc::new(store), clock.clone(), revoke_tokens());
        StoreCommands::new(commands, queries, Arc::new(SequentialIds::default()), clock)
    }

    /// A user's inbox, oldest first.
    pub(super) async fn inbox(&self, name: &str) -> Vec<Notification> {
        let all = ListFilter::default();
        let mut inbox =
            self.inner.list(&user(name), &all, PageLimit::rows(usize::MAX)).await.unwrap().items;
        inbox.reverse();
        inbox
    }

    pub(super) async fn ids(&self, name: &str) -> Vec<String> {
        self.inbox(name).await.iter().map(|notification| notification.id.to_string()).collect()
    }
}

/// Blocks all commands of a handler until it is opened.
#[derive(Clone)]
pub(super) struct Latch {
    open: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
}

impl Latch {
    pub(super) fn closed() -> Self {
        Self { open: watch::Sender::new(false), waiting: Arc::default() }
    }

    pub(super) fn open(&self) {
        self.open.send_replace(true);
    }

    /// The number of runs that have reached the closed latch.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    pub(super) fn before<H>(&self, handler: H) -> LatchedHandler<H> {
        LatchedHandler { latch: self.clone(), handler }
    }
}

/// A handler behind a [`Latch`].
pub(super) struct LatchedHandler<H> {
    latch: Latch,
    handler: H,
}

/// A use case for revocations whose result no test inspects.
pub(super) fn revoke_tokens() -> RevokeTokens {
    let store = Arc::new(InMemoryStore::new(epoch("e1")));
    let revoked = Arc::new(RevokedTokens::empty());
    RevokeTokens::new(store, revoked, Arc::new(ManualClock::at(1_000)))
}

impl<H: MessageHandler> MessageHandler for LatchedHandler<H> {
    type Command = H::Command;
    type OrderingKey = H::OrderingKey;

    fn ordering_key(command: &H::Command) -> H::OrderingKey {
        H::ordering_key(command)
    }

    fn decode(
        &self,
        envelope: &Envelope<'_>,
        mapping: &MessageMapping,
    ) -> Result<H::Command, InvalidMessage> {
        self.handler.decode(envelope, mapping)
    }

    fn has_expired(&self, command: &H::Command) -> bool {
        self.handler.has_expired(command)
    }

    async fn run(&self, commands: Vec<H::Command>) -> Vec<Result<(), HandlerError>> {
        if !*self.latch.open.borrow() {
            self.latch.waiting.fetch_add(1, Ordering::SeqCst);
        }
        self.latch.open.subscribe().wait_for(|open| *open).await.expect("the latch exists");
        self.handler.run(commands).await
    }
}

impl Faults {
    fn check(&mut self, drafts: &[Draft]) -> Result<(), PortError> {
        if self.down {
            self.calls_while_down += 1;
            return Err(PortError::unavailable("the store is down"));
        }
        let is_any_in = |ids: &[String]| {
            drafts.iter().any(|draft| ids.iter().any(|id| *id == draft.id.as_str()))
        };
        if is_any_in(&self.fails) {
            return Err(PortError::failed("a lock that is never released"));
        }
        if is_any_in(&self.rejects) {
            return Err(PortError::rejected("a value that no column takes"));
        }
        self.created += drafts.len();
        Ok(())
    }
}

/// The result of an operation of the in-memory store, which never waits.
fn ready<T>(operation: impl Future<Output = T>) -> T {
    operation.now_or_never().expect("the in-memory store never waits")
}
