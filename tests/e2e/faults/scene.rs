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
use super::ledger::Ledger;
use super::observed::{Heard, Rows};
use super::producer::{Producer, Safe};
use super::strike::Strike;
use crate::setup::{Ground, User, key, ready, signed_in};

/// How long the last of what was accepted may take to reach the last device, once nothing is broken any
/// more: far longer than it takes.
const ARRIVES: Duration = Duration::from_mins(2);

/// How long a node may take to be ready once nothing is broken any more.
const RECOVERS: Duration = Duration::from_mins(2);

/// How fast each user is told something.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    Fast,
    /// So that what happens in half a minute is less than `socket.catch_up_limit`: a device that is
    /// away for so long shall get all of it and not be told to start over.
    Slow,
}

impl Pace {
    fn pause(self) -> Duration {
        Duration::from_millis(match self {
            Self::Fast => 20,
            Self::Slow => 60,
        })
    }
}

/// Who takes part. Fields are dropped in this order: devices and nodes before what they stand on.
pub(super) struct Scene {
    people: Vec<Person>,
    ledgers: Vec<Ledger>,
    pub(super) nodes: Vec<Node>,
    pub(super) proxy: Proxy,
    pub(super) ground: Ground,
    pub(super) broker_server: Option<RabbitServer>,
    pub(super) database_server: Option<PostgresServer>,
    pace: Pace,
    /// Whether what one producer sends as messages is stored in its order. Several nodes that consume
    /// one queue store what they took in the order in which each comes to it.
    keeps_order_of_messages: bool,
}

/// A node, which one fault at a time kills or starts.
pub(super) struct Node {
    pub(super) name: String,
    url: String,
    belfry: Mutex<Belfry>,
}

/// A user with a device on the first node and one on the last.
pub(super) struct Person {
    user: User,
    pub(super) devices: [Endpoint; 2],
    by_requests: bool,
}

/// A device and the network between it and its node.
pub(super) struct Endpoint {
    pub(super) device: Device,
    pub(super) network: Proxy,
}

impl Scene {
    /// With what these faults need.
    pub(super) async fn of(nodes: usize, people: usize, pace: Pace, faults: &[Fault]) -> Self {
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
        let ground = Ground { database: Some(database), broker: Some(broker) };
        let keeps_order_of_messages = nodes == 1;
        let nodes = join_all((0..nodes).map(|n| Node::start(n, &ground, &proxy))).await;
        let people: Vec<_> = join_all((0..people).map(|n| Person::at(&nodes, n))).await;
        let ledgers = people.iter().map(|_| Ledger::default()).collect();
        Self {
            people,
            ledgers,
            nodes,
            proxy,
            ground,
            broker_server,
            database_server,
            pace,
            keeps_order_of_messages,
        }
    }

    /// How many notifications are known to be safe.
    pub(super) fn told(&self) -> usize {
        self.ledgers.iter().map(|ledger| ledger.told).sum()
    }

    /// Tells each user at least so much more, and goes on as long as something is broken. Groups of
    /// faults strike one after the other, those of a group at the same time.
    pub(super) async fn endure(&mut self, least: usize, faults: &[&[Fault]]) {
        let mut ledgers = std::mem::take(&mut self.ledgers);
        let over = AtomicBool::new(false);
        let safe = RwLock::new(Safe {
            told: ledgers.iter().map(|ledger| ledger.told).sum::<usize>().into(),
            changed: ledgers.iter().map(Ledger::changed).sum::<usize>().into(),
        });
        let urls: Vec<_> = self.nodes.iter().map(|node| node.url.clone()).collect();
        let producing = join_all(self.people.iter().zip(&mut ledgers).map(|(person, ledger)| {
            let producer = Producer {
                user: &person.user,
                by_requests: person.by_requests,
                pace: self.pace.pause(),
                broker: self.proxy.url(),
                queue: self.ground.broker().ingest_queue(),
                nodes: &urls,
                safe: &safe,
                channel: None,
            };
            producer.produce(ledger, least, &over)
        }));
        let strike = Strike { scene: self, people: &self.people, safe: &safe };
        let breaking = async {
            sleep(Duration::from_millis(400)).await;
            for group in faults {
                join_all(group.iter().map(|fault| strike.with(*fault))).await;
            }
            over.store(true, Ordering::SeqCst);
        };
        let nursing = async {
            while !over.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(100)).await;
                self.people.iter().for_each(Person::nurse);
            }
        };
        tokio::join!(producing, breaking, nursing);
        self.ledgers = ledgers;
    }

    /// Waits until everything that was told is where it belongs, and checks how it came there.
    pub(super) async fn check(&self) -> String {
        let deadline = Instant::now() + ARRIVES;
        let mut summary = Summary::default();
        for (person, ledger) in self.people.iter().zip(&self.ledgers) {
            let rows = self.rows(person, ledger, deadline).await;
            rows.must_have_no_drift(&person.user);
            // A request is answered before the next one is sent.
            if self.keeps_order_of_messages || person.by_requests {
                rows.must_be_in_order(&person.user);
            }
            for endpoint in &person.devices {
                let mut heard = Heard::by(&endpoint.device);
                while !heard.is_all_of(&rows) {
                    let late = Instant::now() > deadline;
                    assert!(!late, "{}: {}", person.user.id(), heard.lacks(&rows));
                    sleep(Duration::from_millis(50)).await;
                    person.nurse();
                    heard = Heard::by(&endpoint.device);
                }
                heard.must_be_in_order(&person.user, &rows);
                summary.add_device(&heard);
            }
            summary.add_ledger(ledger);
        }
        summary.text()
    }

    async fn rows(&self, person: &Person, ledger: &Ledger, deadline: Instant) -> Rows {
        let (database, user) = (self.database(), person.user.id());
        loop {
            let rows = Rows::of(database, user).await;
            match rows {
                Some(rows) if rows.are_all_of(ledger) => return rows,
                _ if Instant::now() > deadline => {
                    panic!("{user}: {ledger:?} is safe, but stored is {rows:?}")
                }
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub(super) fn database(&self) -> &str {
        self.ground.database.as_ref().expect("a scene has one").url()
    }

    pub(super) async fn all_ready(&self) {
        join_all(self.nodes.iter().map(Node::until_ready)).await;
    }
}

impl Node {
    async fn start(n: usize, ground: &Ground, proxy: &Proxy) -> Self {
        let name = format!("node-{n}");
        ground.broker().will_delete_queue(ground.broker().node_queue(&name));
        let builder = ground.belfry().amqp(proxy.url()).setting("node.name", &name);
        let belfry = ready(builder.start().await).await;
        Self { name, url: belfry.url().to_owned(), belfry: Mutex::new(belfry) }
    }

    pub(super) async fn kill(&self) {
        self.belfry.lock().await.kill();
    }

    /// Starts it again and waits until it can work.
    pub(super) async fn restart(&self) {
        self.belfry.lock().await.restart().await;
        self.until_ready().await;
    }

    pub(super) async fn until_ready(&self) {
        let http = Http::new(&*self.url);
        until_within(RECOVERS, &format!("{} is ready", self.name), async || {
            // There may be no answer: something else may have killed it.
            let answer = http.request(Method::GET, "/health/ready").send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Since when it has relayed the outbox as it says, if it runs and ever has.
    pub(super) async fn relays_since(&self) -> Option<String> {
        let mut belfry = self.belfry.lock().await;
        let log = if belfry.is_running() { belfry.log() } else { return None };
        let line = log.lines().rfind(|line| line.contains("outbox lease acquired"))?;
        let line: Value = serde_json::from_str(line).ok()?;
        Some(line["timestamp"].as_str()?.to_owned())
    }
}

impl Person {
    async fn at(nodes: &[Node], n: usize) -> Self {
        let user = {
            let first = nodes[0].belfry.lock().await;
            User::new("person", &first)
        };
        // How long a device's library waits before it tries again: from 0.1 s to 2 s.
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
        // Every third has services that ask instead of sending messages.
        Self { user, devices, by_requests: n % 3 == 2 }
    }

    /// Brings back a device whose library has given up, as an application does.
    fn nurse(&self) {
        for Endpoint { device, .. } in &self.devices {
            let last = device.last_of(&["connect", "connect_error", "disconnect"]);
            let Some(last) = last else { continue };
            let gave_up = last.rest.get("active") == Some(&Value::Bool(false));
            let sent_away = last.reason.as_deref() == Some("io server disconnect");
            if last.kind != "connect" && (gave_up || sent_away) {
                device.reconnect();
            }
        }
    }
}

/// What came of it, in numbers.
#[derive(Debug, Default)]
struct Summary {
    told: usize,
    changed: usize,
    again: usize,
    heard: usize,
    syncs: usize,
    devices: usize,
}

impl Summary {
    fn add_device(&mut self, heard: &Heard<'_>) {
        self.heard += heard.new_ones();
        self.syncs += heard.syncs();
        self.devices += 1;
    }

    fn add_ledger(&mut self, ledger: &Ledger) {
        self.told += ledger.told;
        self.changed += ledger.changed();
        self.again += ledger.again;
    }

    fn text(&self) -> String {
        let Self { told, changed, again, heard, syncs, devices } = self;
        let back = syncs - devices;
        format!(
            "{told} told and {changed} of them read or deleted ({again} tries again), {heard} heard \
             by {devices} devices ({back} times caught up), none lost, none twice, all in order, \
             counts as of the rows"
        )
    }
}
