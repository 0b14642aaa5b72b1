//! The nodes, users, devices and servers of a fault test, and the check at its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belfry_tests::clients::Device;
use belfry_tests::http::Http;
use belfry_tests::postgres::{Database, PostgresServer, fresh_database};
use belfry_tests::process::Belfry;
use belfry_tests::proxy::Proxy;
use belfry_tests::rabbit::{RabbitServer, fresh_prefix};
use belfry_tests::wait::until_within;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::Value;
use tokio::sync::{Mutex, RwLock};
use tokio::time::{Instant, sleep};

use super::fault::Fault;
use super::injector::FaultInjector;
use super::ledger::Ledger;
use super::observed::{DeviceView, Rows};
use super::producer::{Confirmed, Producer};
use crate::setup::{Backends, User, key, ready, signed_in};

/// How long it may take after the faults until all devices have received everything. Normally it takes far
/// less.
const DELIVERY_LIMIT: Duration = Duration::from_mins(2);

/// How long a node or device may take to recover after a fault.
pub(super) const RECOVERY_LIMIT: Duration = Duration::from_mins(2);

/// The rate of notifications for each user.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    Fast,
    /// Half a minute has fewer changes than `socket.catch_up_limit`, so that a device that is offline for so
    /// long recovers all of them.
    Slow,
}

impl Pace {
    /// The pause between two notifications for a user.
    fn pause(self) -> Duration {
        Duration::from_millis(match self {
            Self::Fast => 20,
            Self::Slow => 60,
        })
    }
}

/// Nodes, users with devices, and servers. Fields are dropped in this order: devices and nodes before their
/// servers.
pub(super) struct FaultTest {
    participants: Vec<Participant>,
    ledgers: Vec<Ledger>,
    pub(super) nodes: Vec<Node>,
    pub(super) proxy: Proxy,
    pub(super) backends: Backends,
    pub(super) broker_server: Option<RabbitServer>,
    pub(super) database_server: Option<PostgresServer>,
    pace: Pace,
    /// Whether the messages of one producer are stored in order. They are not if several nodes consume the
    /// queue.
    keeps_order_of_messages: bool,
}

/// A node. Only one fault at a time kills or restarts it.
pub(super) struct Node {
    pub(super) name: String,
    url: String,
    belfry: Mutex<Belfry>,
}

/// A user with a device on the first node and one on the last.
pub(super) struct Participant {
    user: User,
    pub(super) devices: [Endpoint; 2],
    /// Whether the user's producer sends REST requests instead of messages.
    by_requests: bool,
}

/// A device and the network between it and its node.
pub(super) struct Endpoint {
    pub(super) device: Device,
    pub(super) network: Proxy,
}

impl FaultTest {
    /// Starts the nodes, the users' devices, and the servers that these faults need.
    pub(super) async fn new(nodes: usize, users: usize, pace: Pace, faults: &[Fault]) -> Self {
        let broker_server = async {
            if !faults.iter().any(|fault| fault.needs_own_broker()) {
                return None;
            }
            Some(RabbitServer::start_own().await)
        };
        let database_server = async {
            if !faults.iter().any(|fault| fault.needs_own_database()) {
                return None;
            }
            Some(PostgresServer::start_own().await)
        };
        let (broker_server, database_server) = tokio::join!(broker_server, database_server);
        let broker = match &broker_server {
            Some(server) => server.fresh_prefix(),
            None => fresh_prefix().await,
        };
        let database = match &database_server {
            Some(server) => Database::on(server.url()).await,
            None => fresh_database().await,
        };
        let proxy = Proxy::to(broker.url()).await;
        let backends = Backends { database: Some(database), broker: Some(broker) };
        let keeps_order_of_messages = nodes == 1;
        let nodes = join_all((0..nodes).map(|n| Node::start(n, &backends, &proxy))).await;
        let participants: Vec<_> = join_all((0..users).map(|n| Participant::at(&nodes, n))).await;
        let ledgers = participants.iter().map(|_| Ledger::default()).collect();
        Self {
            participants,
            ledgers,
            nodes,
            proxy,
            backends,
            broker_server,
            database_server,
            pace,
            keeps_order_of_messages,
        }
    }

    /// How many notifications were created.
    pub(super) fn created(&self) -> usize {
        self.ledgers.iter().map(|ledger| ledger.created).sum()
    }

    /// Injects one group of faults after the other. The faults of a group are injected at the same time.
    ///
    /// Until the last fault is over, each producer creates notifications, and at least `min_created` of them.
    pub(super) async fn inject(&mut self, min_created: usize, faults: &[&[Fault]]) {
        let mut ledgers = std::mem::take(&mut self.ledgers);
        let faults_over = AtomicBool::new(false);
        let confirmed = RwLock::new(Confirmed {
            created: ledgers.iter().map(|ledger| ledger.created).sum::<usize>().into(),
            changed: ledgers.iter().map(Ledger::changed).sum::<usize>().into(),
        });
        let urls: Vec<_> = self.nodes.iter().map(|node| node.url.clone()).collect();
        let producing =
            join_all(self.participants.iter().zip(&mut ledgers).map(|(participant, ledger)| {
                let producer = Producer {
                    user: &participant.user,
                    by_requests: participant.by_requests,
                    pace: self.pace.pause(),
                    broker: self.proxy.url(),
                    queue: self.backends.broker().ingest_queue(),
                    nodes: &urls,
                    confirmed: &confirmed,
                    channel: None,
                };
                producer.produce(ledger, min_created, &faults_over)
            }));
        let injector =
            FaultInjector { test: self, participants: &self.participants, confirmed: &confirmed };
        let injecting = async {
            sleep(Duration::from_millis(400)).await;
            for group in faults {
                join_all(group.iter().map(|fault| injector.inject(*fault))).await;
            }
            faults_over.store(true, Ordering::SeqCst);
        };
        let reconnecting = async {
            while !faults_over.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(100)).await;
                self.participants.iter().for_each(Participant::reconnect_stuck);
            }
        };
        tokio::join!(producing, injecting, reconnecting);
        self.ledgers = ledgers;
    }

    /// Waits until the database and all devices have everything that was confirmed, and checks order and
    /// counts. Returns a summary.
    pub(super) async fn check(&self) -> String {
        let deadline = Instant::now() + DELIVERY_LIMIT;
        let mut summary = Summary::default();
        for (participant, ledger) in self.participants.iter().zip(&self.ledgers) {
            let rows = self.rows(participant, ledger, deadline).await;
            rows.assert_exact_count(&participant.user);
            // Requests are stored in order, because a producer waits for each response.
            if self.keeps_order_of_messages || participant.by_requests {
                rows.assert_in_order(&participant.user);
            }
            for endpoint in &participant.devices {
                let mut view = DeviceView::of(&endpoint.device);
                while !view.matches(&rows) {
                    let late = Instant::now() > deadline;
                    assert!(
                        !late,
                        "{}: {}",
                        participant.user.id(),
                        view.describe_differences(&rows)
                    );
                    sleep(Duration::from_millis(50)).await;
                    participant.reconnect_stuck();
                    view = DeviceView::of(&endpoint.device);
                }
                view.assert_in_order(&participant.user, &rows);
                summary.add_device(&view);
            }
            summary.add_ledger(ledger);
        }
        summary.text()
    }

    /// Waits until the user's rows in the database match the ledger, and returns them.
    async fn rows(&self, participant: &Participant, ledger: &Ledger, deadline: Instant) -> Rows {
        let (database, user) = (self.database(), participant.user.id());
        loop {
            let rows = Rows::of(database, user).await;
            match rows {
                Some(rows) if rows.match_ledger(ledger) => return rows,
                _ if Instant::now() > deadline => {
                    panic!("{user}: the ledger has {ledger:?}, but the database has {rows:?}")
                }
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub(super) fn database(&self) -> &str {
        self.backends.database.as_ref().expect("a fault test has a database").url()
    }

    pub(super) async fn until_all_ready(&self) {
        join_all(self.nodes.iter().map(Node::until_ready)).await;
    }
}

impl Node {
    async fn start(n: usize, backends: &Backends, proxy: &Proxy) -> Self {
        let name = format!("node-{n}");
        backends.broker().will_delete_queue(backends.broker().node_queue(&name));
        let builder = backends.belfry().amqp(proxy.url()).setting("node.name", &name);
        let belfry = ready(builder.start().await).await;
        Self { name, url: belfry.url().to_owned(), belfry: Mutex::new(belfry) }
    }

    /// SIGKILL. Panics if the node has exited before.
    pub(super) async fn kill(&self) {
        let mut belfry = self.belfry.lock().await;
        assert!(belfry.is_running(), "{} had exited before the kill", self.name);
        belfry.kill();
    }

    /// Restarts it and waits until it is ready.
    pub(super) async fn restart(&self) {
        self.belfry.lock().await.restart().await;
        self.until_ready().await;
    }

    pub(super) async fn until_ready(&self) {
        let http = Http::new(&*self.url);
        until_within(RECOVERY_LIMIT, &format!("{} is ready", self.name), async || {
            // Without a response the wait goes on: another fault may have killed the node.
            let answer = http.request(Method::GET, "/health/ready").send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// The time in the log at which this node last became the leader; `None` if the node does not run or has
    /// not been the leader since its start.
    pub(super) async fn leader_since(&self) -> Option<String> {
        let mut belfry = self.belfry.lock().await;
        let log = if belfry.is_running() { belfry.log() } else { return None };
        let line = log.lines().rfind(|line| line.contains("outbox lease acquired"))?;
        let line: Value = serde_json::from_str(line).ok()?;
        Some(line["timestamp"].as_str()?.to_owned())
    }
}

impl Participant {
    async fn at(nodes: &[Node], n: usize) -> Self {
        let user = {
            let first = nodes[0].belfry.lock().await;
            User::new("participant", &first)
        };
        // The delays before the client libraries reconnect, in milliseconds.
        let delays = [100, 300, 1_200, 2_000];
        let delay = |n: usize| delays[n % delays.len()];
        let networks =
            tokio::join!(Proxy::to(&nodes[0].url), Proxy::to(&nodes[nodes.len() - 1].url));
        let token = key().token(user.id()).sign();
        let first = Device::node(networks.0.url());
        let second = if n == 0 { Device::python } else { Device::node }(networks.1.url());
        let first = first.token(&token).track(true).option("reconnectionDelay", delay(n));
        let second = second
            .token(&token)
            .track(true)
            .namespace("/notifications")
            .option("reconnectionDelay", delay(n + 1));
        let (first, second) = tokio::join!(signed_in(first), signed_in(second));
        let devices = [
            Endpoint { device: first, network: networks.0 },
            Endpoint { device: second, network: networks.1 },
        ];
        // Every third user's producer sends requests instead of messages.
        Self { user, devices, by_requests: n % 3 == 2 }
    }

    /// Reconnects the devices whose library has given up, as an application does.
    fn reconnect_stuck(&self) {
        for Endpoint { device, .. } in &self.devices {
            let last = device.last_of(&["connect", "connect_error", "disconnect"]);
            let Some(last) = last else { continue };
            let gave_up = last.rest.get("active") == Some(&Value::Bool(false));
            let was_disconnected = last.reason.as_deref() == Some("io server disconnect");
            if last.kind != "connect" && (gave_up || was_disconnected) {
                device.reconnect();
            }
        }
    }
}

/// The numbers in the summary of a fault test.
#[derive(Debug, Default)]
struct Summary {
    created: usize,
    changed: usize,
    retries: usize,
    received: usize,
    syncs: usize,
    devices: usize,
}

impl Summary {
    fn add_device(&mut self, view: &DeviceView<'_>) {
        self.received += view.received();
        self.syncs += view.syncs();
        self.devices += 1;
    }

    fn add_ledger(&mut self, ledger: &Ledger) {
        self.created += ledger.created;
        self.changed += ledger.changed();
        self.retries += ledger.retries;
    }

    fn text(&self) -> String {
        let Self { created, changed, retries, received, syncs, devices } = self;
        let resyncs = syncs - devices;
        format!(
            "{created} created, {changed} of them read or deleted ({retries} retries), {received} \
             received by {devices} devices ({resyncs} resyncs), none lost, none twice, all in order, \
             exact counts"
        )
    }
}
