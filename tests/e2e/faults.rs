//! What breaks while events flow: whatever it is, everybody gets everything, once and in order.
//!
//! A [`Scene`] has nodes, people with two devices each, and somebody who tells each of them something
//! every few milliseconds, most by messages and one by requests. Meanwhile a [`Fault`] strikes. Whatever
//! a producer was told is safe has then to be at each device: none lost, none twice, in its order,
//! and with the count that the database's rows have.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use belfry_tests::clients::{Device, Seen};
use belfry_tests::http::Http;
use belfry_tests::postgres::{Database, PostgresServer, fresh_database};
use belfry_tests::process::Belfry;
use belfry_tests::rabbit::{RabbitServer, fresh_prefix};
use belfry_tests::wait::{until, until_true};
use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeleteOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep, timeout};

use self::proxy::Proxy;
use crate::setup::{Ground, User, key, ready, signed_in, until_ready};

#[path = "../integration/amqp/proxy.rs"]
mod proxy;

/// How long the last of what was accepted may take to reach the last device, once nothing is broken any
/// more: far longer than it takes.
const ARRIVES: Duration = Duration::from_mins(1);

/// How long the outbox may be without somebody who relays it, once that one was killed.
const TAKEN_OVER: Duration = Duration::from_secs(10);

/// Between two notifications to one user.
const PACE: Duration = Duration::from_millis(20);

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// kill -9 of every node, one after the other, each started again on its port.
    KillNodes,
    /// kill -9 of the node that relays the outbox; it is started again when another does.
    KillLead,
    /// kill -9 of a node that does not relay.
    KillFollower,
    /// Each connection to the broker is cut, nodes' and producers', three times.
    CutBroker,
    /// The broker cannot be reached for a while.
    HideBroker,
    /// The broker is killed and started again.
    KillBroker,
    /// The queues of all nodes are deleted.
    DeleteNodeQueues,
    /// The queue that producers send to is deleted, three times.
    DeleteIngestQueue,
    /// Everybody's connections to the database are ended by it, again and again.
    TerminateBackends,
    /// The database's server is killed and started again.
    KillDatabase,
    /// Devices lose their connections, again and again, and are away for a while.
    CutDevices,
}

impl Fault {
    const ALL: [Self; 11] = [
        Self::KillNodes,
        Self::KillLead,
        Self::KillFollower,
        Self::CutBroker,
        Self::HideBroker,
        Self::KillBroker,
        Self::DeleteNodeQueues,
        Self::DeleteIngestQueue,
        Self::TerminateBackends,
        Self::KillDatabase,
        Self::CutDevices,
    ];
}

#[tokio::test]
async fn killed_and_started_again_on_its_port() {
    proves(1, &[Fault::KillNodes]).await;
}

#[tokio::test]
async fn the_node_that_relays_is_killed_and_another_takes_over() {
    proves(2, &[Fault::KillLead]).await;
}

#[tokio::test]
async fn one_of_two_nodes_is_killed_with_devices_on_both() {
    proves(2, &[Fault::KillFollower]).await;
}

#[tokio::test]
async fn connections_to_the_broker_are_cut_and_then_it_is_out_of_reach() {
    proves(1, &[Fault::CutBroker, Fault::HideBroker]).await;
}

#[tokio::test]
async fn the_broker_is_killed() {
    proves(1, &[Fault::KillBroker]).await;
}

#[tokio::test]
async fn queues_of_nodes_are_deleted_under_way() {
    proves(2, &[Fault::DeleteNodeQueues]).await;
}

#[tokio::test]
async fn the_ingest_queue_is_deleted_under_way() {
    proves(1, &[Fault::DeleteIngestQueue]).await;
}

#[tokio::test]
async fn the_database_ends_connections_again_and_again() {
    proves(1, &[Fault::TerminateBackends]).await;
}

#[tokio::test]
async fn the_database_is_killed() {
    proves(1, &[Fault::KillDatabase]).await;
}

#[tokio::test]
async fn devices_lose_their_connections_again_and_again() {
    proves(2, &[Fault::CutDevices]).await;
}

/// Faults of all sorts in random order, until so many have been told.
#[tokio::test]
#[ignore = "a longer soak: BELFRY_SOAK=10000 says how many events, BELFRY_SEED repeats one"]
async fn soak() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let events = number("BELFRY_SOAK").unwrap_or(10_000);
    let seed = number("BELFRY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("BELFRY_SEED={seed} BELFRY_SOAK={events}");
    let mut dice = Dice(seed);
    let mut scene = Scene::of(2, 6, &Fault::ALL).await;
    let mut told = Vec::new();
    let started = Instant::now();
    while Scene::total(&told) < usize::try_from(events).unwrap() {
        let faults: Vec<_> = (0..3).map(|_| Fault::ALL[dice.below(Fault::ALL.len())]).collect();
        println!("{:>6.1} s: {} told, {faults:?}", since(started), Scene::total(&told));
        scene.endure(&mut told, 100, &faults).await;
        scene.check(&told).await;
    }
    println!("{}", scene.check(&told).await);
}

/// Has events flow while these faults strike, one after the other, and checks what everybody got.
async fn proves(nodes: usize, faults: &[Fault]) {
    let mut scene = Scene::of(nodes, 3, faults).await;
    let mut told = Vec::new();
    let started = Instant::now();
    scene.endure(&mut told, 80, faults).await;
    let endured = since(started);
    let report = scene.check(&told).await;
    println!(
        "{faults:?}: {report}, told within {endured:.1} s, all there after {:.1} s",
        since(started)
    );
}

fn since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

/// Numbers that look random and are the same for the same seed (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }
}

/// Who takes part. Fields are dropped in this order: devices and nodes before what they stand on.
struct Scene {
    people: Vec<Person>,
    nodes: Vec<Belfry>,
    proxy: Proxy,
    ground: Ground,
    broker_server: Option<RabbitServer>,
    database_server: Option<PostgresServer>,
}

/// A user with a device on the first node and one on the last.
struct Person {
    user: User,
    devices: [Device; 2],
    by_requests: bool,
}

/// What a user's producer knows to be safe.
#[derive(Debug, Default)]
struct Told {
    /// How many notifications; their numbers are in their data.
    count: usize,
    /// How many of them were marked as read.
    read: usize,
    /// How often something had to be said again.
    again: usize,
}

impl Scene {
    async fn of(nodes: usize, people: usize, faults: &[Fault]) -> Self {
        let broker_server = async {
            if !faults.contains(&Fault::KillBroker) {
                return None;
            }
            Some(RabbitServer::start_own().await)
        };
        let database_server = async {
            if !faults.contains(&Fault::KillDatabase) {
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
        let nodes = join_all((0..nodes).map(async |n| {
            let name = node_name(n);
            ground.broker().will_delete_queue(ground.broker().node_queue(&name));
            let builder = ground.belfry().amqp(proxy.url()).setting("node.name", name);
            ready(builder.start().await).await
        }))
        .await;
        let people = join_all((0..people).map(|n| Person::at(&nodes, n))).await;
        Self { people, nodes, proxy, ground, broker_server, database_server }
    }

    fn total(told: &[Told]) -> usize {
        told.iter().map(|told| told.count).sum()
    }

    /// Tells each user at least so much more, and goes on as long as something is broken.
    async fn endure(&mut self, told: &mut Vec<Told>, least: usize, faults: &[Fault]) {
        told.resize_with(self.people.len(), Told::default);
        let over = AtomicBool::new(false);
        let safe = RwLock::new(AtomicUsize::new(Self::total(told)));
        let Self { people, nodes, proxy, ground, broker_server, database_server } = self;
        let urls: Vec<_> = nodes.iter().map(|node| node.url().to_owned()).collect();
        let producing = join_all(people.iter().zip(told).map(async |(person, told)| {
            let producer = Producer {
                user: &person.user,
                broker: proxy.url(),
                queue: ground.broker().ingest_queue(),
                nodes: &urls,
                channel: None,
                safe: &safe,
            };
            producer.produce(person.by_requests, told, least, &over).await;
        }));
        let mut strike = Strike {
            people,
            nodes,
            proxy,
            ground,
            safe: &safe,
            broker_server: broker_server.as_ref(),
            database_server: database_server.as_ref(),
        };
        let breaking = async {
            sleep(Duration::from_millis(400)).await;
            for fault in faults {
                strike.with(*fault).await;
            }
            over.store(true, Ordering::SeqCst);
        };
        let nursing = async {
            while !over.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(100)).await;
                people.iter().for_each(Person::nurse);
            }
        };
        tokio::join!(producing, breaking, nursing);
    }

    /// Waits until everything that was told is where it belongs, and checks how it came there.
    async fn check(&self, told: &[Told]) -> String {
        let started = Instant::now();
        let database = self.ground.database.as_ref().unwrap().url();
        let mut summary = Summary::default();
        for (person, told) in self.people.iter().zip(told) {
            let rows = loop {
                let rows = Rows::of(database, person.user.id()).await;
                if let Some(rows) = rows.filter(|rows| rows.are_all_of(told)) {
                    break rows;
                }
                if started.elapsed() > ARRIVES {
                    let rows = Rows::of(database, person.user.id()).await;
                    panic!("{}: {told:?} was told, but stored is {rows:?}", person.user.id());
                }
                sleep(Duration::from_millis(50)).await;
            };
            assert_eq!(rows.unread, rows.count, "{}: the kept count drifts", person.user.id());
            let stored = order(database, person.user.id()).await;
            // Several nodes that consume one queue store what they took in the order in which each
            // comes to it; a request is answered before the next one is sent.
            if self.nodes.len() == 1 || person.by_requests {
                assert!(stored.is_sorted(), "{}: stored as {stored:?}", person.user.id());
            }
            for device in &person.devices {
                let mut heard = Heard::by(device);
                while !heard.is_all_of(told, &rows) {
                    let late = started.elapsed() > ARRIVES;
                    assert!(!late, "{}: {rows:?}, but {}", person.user.id(), heard.lacks(told));
                    sleep(Duration::from_millis(50)).await;
                    person.nurse();
                    heard = Heard::by(device);
                }
                heard.must_be_in_order(&person.user, &stored);
                summary.add(&heard);
            }
            summary.told += told.count;
            summary.again += told.again;
        }
        summary.text()
    }
}

fn node_name(n: usize) -> String {
    format!("node-{n}")
}

impl Person {
    async fn at(nodes: &[Belfry], n: usize) -> Self {
        let user = User::new("person", &nodes[0]);
        let elsewhere = user.at(&nodes[nodes.len() - 1]);
        // How long a device is away that lost its connection: from 0.1 s to 3 s.
        let away = [100, 300, 1_200, 2_000];
        let first = user.node().track(true).option("reconnectionDelay", away[n % away.len()]);
        let second = if n == 0 { elsewhere.python() } else { elsewhere.node() };
        let second = second
            .track(true)
            .namespace("/notifications")
            .option("reconnectionDelay", away[(n + 1) % away.len()]);
        let (first, second) = tokio::join!(signed_in(first), signed_in(second));
        // Every third has services that ask instead of sending messages.
        Self { user, devices: [first, second], by_requests: n % 3 == 2 }
    }

    /// Brings back a device whose library has given up, as an application does.
    fn nurse(&self) {
        for device in &self.devices {
            let seen = device.seen();
            let last = seen
                .iter()
                .rev()
                .find(|seen| matches!(&*seen.kind, "connect" | "connect_error" | "disconnect"));
            let Some(last) = last else { continue };
            let gave_up = last.rest.get("active") == Some(&Value::Bool(false));
            let sent_away = last.reason.as_deref() == Some("io server disconnect");
            if last.kind != "connect" && (gave_up || sent_away) {
                device.reconnect();
            }
        }
    }
}

/// Whoever tells a user something, one after the other, each until he knows it to be safe.
struct Producer<'a> {
    user: &'a User,
    broker: &'a str,
    queue: String,
    nodes: &'a [String],
    channel: Option<(Connection, Channel)>,
    /// How many notifications all producers know to be safe; held while one more is told.
    safe: &'a RwLock<AtomicUsize>,
}

impl Producer<'_> {
    async fn produce(
        mut self,
        by_requests: bool,
        told: &mut Told,
        least: usize,
        over: &AtomicBool,
    ) {
        let until = told.count + least;
        while told.count < until || !over.load(Ordering::SeqCst) {
            let safe = self.safe;
            let telling = safe.read().await;
            let number = told.count;
            let id = format!("{}-{number}", self.user.id());
            let data = json!({
                "userId": self.user.id(), "id": id, "title": format!("Number {number}"),
                "data": { "number": number },
            });
            let is_read = number % 5 == 4;
            if by_requests {
                told.again += self.request(Method::POST, "/v1/notifications", Some(&data)).await;
                if is_read {
                    let path = format!("/v1/notifications/{id}/read");
                    told.again += self.request(Method::PATCH, &path, None).await;
                }
            } else {
                told.again += self.send("notification.create", data).await;
                if is_read {
                    // Two nodes consume the queue: whoever reads it has to have seen it first.
                    let path = format!("/v1/notifications/{id}");
                    self.request(Method::GET, &path, None).await;
                    let data = json!({ "userId": self.user.id(), "id": id });
                    told.again += self.send("notification.mark_read", data).await;
                }
            }
            told.count += 1;
            told.read += usize::from(is_read);
            telling.fetch_add(1, Ordering::SeqCst);
            drop(telling);
            sleep(PACE).await;
        }
    }

    /// Sends a message until the broker has confirmed that a queue has it.
    async fn send(&mut self, pattern: &str, data: Value) -> usize {
        let body = json!({ "pattern": pattern, "data": data }).to_string();
        let mut tries = 0;
        loop {
            match timeout(Duration::from_secs(5), self.publish(&body)).await {
                Ok(Ok(Confirmation::Ack(None))) => return tries,
                // No queue took it: it is there again in a moment.
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => self.channel = None,
            }
            tries += 1;
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn publish(&mut self, body: &str) -> lapin::Result<Confirmation> {
        if self.channel.is_none() {
            let connection =
                Connection::connect(self.broker, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            self.channel = Some((connection, channel));
        }
        let (_, channel) = self.channel.as_ref().unwrap();
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(2);
        let queue = self.queue.as_str().into();
        channel.basic_publish("".into(), queue, options, body.as_bytes(), properties).await?.await
    }

    /// Asks one node after the other until one says that it is done.
    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> usize {
        let service = key().token("shop").scope("notifications:write").sign();
        let token = if body.is_some() { service } else { self.user.token() };
        for tries in 0_usize.. {
            let http = Http::new(&*self.nodes[tries % self.nodes.len()]).bearer(&*token);
            let mut request = http.request(method.clone(), path);
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.timeout(Duration::from_secs(5)).send().await;
            match answer.map(|answer| answer.status().as_u16()) {
                Ok(200 | 201) => return tries,
                // What was sent as a message is not there at once.
                Ok(404) if method == Method::GET => sleep(Duration::from_millis(20)).await,
                Ok(status @ 400..=499) => panic!("{method} {path}: {status}"),
                Ok(_) | Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
        unreachable!("tries have no end");
    }
}

/// The hand that breaks things.
struct Strike<'a> {
    people: &'a [Person],
    nodes: &'a mut [Belfry],
    proxy: &'a Proxy,
    ground: &'a Ground,
    safe: &'a RwLock<AtomicUsize>,
    broker_server: Option<&'a RabbitServer>,
    database_server: Option<&'a PostgresServer>,
}

impl Strike<'_> {
    /// Breaks it, and mends what does not mend itself.
    async fn with(&mut self, fault: Fault) {
        let pause = |milliseconds| sleep(Duration::from_millis(milliseconds));
        match fault {
            Fault::KillNodes => {
                for n in 0..self.nodes.len() {
                    self.nodes[n].kill();
                    pause(300).await;
                    self.nodes[n].restart().await;
                    until_ready(&self.nodes[n]).await;
                }
                pause(300).await;
            }
            Fault::KillLead => {
                let (lead, since) = self.lead().await;
                let killed = Instant::now();
                self.nodes[lead].kill();
                while self.lead().await.1 <= since {
                    assert!(killed.elapsed() < TAKEN_OVER, "nobody relays");
                    pause(20).await;
                }
                let took = killed.elapsed();
                println!("another relays after {took:?}");
                pause(300).await;
                self.nodes[lead].restart().await;
                until_ready(&self.nodes[lead]).await;
            }
            Fault::KillFollower => {
                let (lead, _) = self.lead().await;
                let other = (lead + 1) % self.nodes.len();
                self.nodes[other].kill();
                pause(1_000).await;
                self.nodes[other].restart().await;
                until_ready(&self.nodes[other]).await;
            }
            Fault::CutBroker => {
                for _ in 0..3 {
                    self.proxy.cut();
                    pause(500).await;
                }
            }
            Fault::HideBroker => {
                self.proxy.close();
                pause(1_500).await;
                self.proxy.open();
                self.all_ready().await;
            }
            Fault::KillBroker => {
                let server = self.broker_server.expect("a scene of its own has one");
                server.kill().await;
                server.start().await;
                self.all_ready().await;
            }
            Fault::DeleteNodeQueues => {
                for n in (0..self.nodes.len()).cycle().take(3) {
                    let queue = self.ground.broker().node_queue(&node_name(n));
                    self.delete(&queue, QueueDeleteOptions::default()).await;
                    pause(300).await;
                }
                self.all_ready().await;
            }
            Fault::DeleteIngestQueue => {
                for _ in 0..3 {
                    // What only the queue has goes with it, also what is handed out and not
                    // acknowledged. So none may be there; but whoever sends does not wait for its
                    // coming back.
                    let safe = self.safe.write().await;
                    self.stores(safe.load(Ordering::SeqCst)).await;
                    let options = QueueDeleteOptions { if_empty: true, ..Default::default() };
                    self.delete(&self.ground.broker().ingest_queue(), options).await;
                    drop(safe);
                    pause(400).await;
                }
                self.all_ready().await;
            }
            Fault::TerminateBackends => {
                for _ in 0..6 {
                    self.terminate_backends().await;
                    pause(250).await;
                }
                self.all_ready().await;
            }
            Fault::KillDatabase => {
                let server = self.database_server.expect("a scene of its own has one");
                server.kill().await;
                pause(500).await;
                server.start().await;
                self.all_ready().await;
            }
            Fault::CutDevices => {
                for round in 0..6 {
                    let devices = self.people.iter().flat_map(|person| &person.devices);
                    for device in devices.skip(round % 2).step_by(2) {
                        device.drop_connection();
                    }
                    pause(500).await;
                }
            }
        }
    }

    async fn all_ready(&self) {
        join_all(self.nodes.iter().map(until_ready)).await;
    }

    /// Deletes a queue, waiting for the moment in which the options allow it.
    async fn delete(&self, queue: &str, options: QueueDeleteOptions) {
        until_true(&format!("{queue} can be deleted"), async || {
            let url = self.ground.broker().url();
            let connection = Connection::connect(url, ConnectionProperties::default()).await;
            let Ok(connection) = connection else { return false };
            let Ok(channel) = connection.create_channel().await else { return false };
            let deleted = channel.queue_delete(queue.into(), options).await.is_ok();
            let _ = connection.close(200, "done".into()).await;
            deleted
        })
        .await;
    }

    async fn terminate_backends(&self) {
        let mut connection = self.connection().await;
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .execute(&mut connection)
        .await
        .unwrap();
    }

    /// Waits until the database has so many notifications.
    async fn stores(&self, count: usize) {
        let mut connection = self.connection().await;
        until_true("all that is safe is stored", async || {
            let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM notifications")
                .fetch_one(&mut connection)
                .await
                .unwrap();
            usize::try_from(stored).unwrap() == count
        })
        .await;
        // Reading the last of them may be under way.
        sleep(Duration::from_millis(100)).await;
    }

    async fn connection(&self) -> PgConnection {
        let url = self.ground.database.as_ref().unwrap().url();
        PgConnection::connect(url).await.unwrap()
    }

    /// The node that relays: of those that run, the last one to say so. With the time, as it wrote it.
    async fn lead(&mut self) -> (usize, String) {
        until("a node relays the outbox", async || {
            let saying = self.nodes.iter_mut().enumerate().filter_map(|(n, node)| {
                let log = if node.is_running() { node.log() } else { return None };
                let line = log.lines().rfind(|line| line.contains("relaying the outbox"))?;
                let line: Value = serde_json::from_str(line).ok()?;
                Some((line["timestamp"].as_str()?.to_owned(), n))
            });
            saying.max().map(|(at, n)| (n, at))
        })
        .await
    }
}

/// What the database has of a user.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
struct Rows {
    revision: i64,
    /// The count that is kept beside the inbox.
    unread: i64,
    /// How many rows are unread.
    count: i64,
    all: i64,
}

impl Rows {
    async fn of(database: &str, user: &str) -> Option<Self> {
        let mut connection: PgConnection = PgConnection::connect(database).await.ok()?;
        sqlx::query_as(
            r#"SELECT revision, unread,
                 (SELECT count(*) FROM notifications n WHERE n.user_id = i.user_id
                    AND read_at IS NULL AND deleted_at IS NULL) AS count,
                 (SELECT count(*) FROM notifications n WHERE n.user_id = i.user_id) AS "all"
               FROM inboxes i WHERE user_id = $1"#,
        )
        .bind(user)
        .fetch_optional(&mut connection)
        .await
        .ok()?
    }

    fn are_all_of(&self, told: &Told) -> bool {
        let number = |value: i64| usize::try_from(value).unwrap();
        number(self.all) == told.count && number(self.count) == told.count - told.read
    }
}

/// The numbers of a user's notifications, in the order in which they came into the inbox.
async fn order(database: &str, user: &str) -> Vec<usize> {
    let mut connection = PgConnection::connect(database).await.unwrap();
    let numbers: Vec<i64> = sqlx::query_scalar(
        "SELECT (data ->> 'number')::bigint FROM notifications WHERE user_id = $1
         ORDER BY created_revision",
    )
    .bind(user)
    .fetch_all(&mut connection)
    .await
    .unwrap();
    numbers.into_iter().map(|number| usize::try_from(number).unwrap()).collect()
}

/// What a device has heard of its inbox.
#[derive(Debug)]
struct Heard<'a> {
    device: &'a Device,
    new: Vec<Value>,
    /// Count and revision, as each was told.
    counts: Vec<(i64, i64)>,
    syncs: Vec<Value>,
}

impl<'a> Heard<'a> {
    fn by(device: &'a Device) -> Self {
        let mut this = Self { device, new: Vec::new(), counts: Vec::new(), syncs: Vec::new() };
        for Seen { name, args, .. } in device.seen() {
            let payload = args.into_iter().next().unwrap_or_default();
            let count = |key: &str| (payload[key].as_i64(), payload["revision"].as_i64());
            match name.as_deref() {
                Some("notification:new") => this.new.push(payload),
                Some("notification:unread_count") => {
                    let (count, revision) = count("count");
                    this.counts.push((count.unwrap(), revision.unwrap()));
                }
                Some("notification:sync") => {
                    // Where events are to follow, the count comes after them once more.
                    let (count, revision) = count("unreadCount");
                    if payload["missed"] == 0 {
                        this.counts.push((count.unwrap(), revision.unwrap()));
                    }
                    this.syncs.push(payload);
                }
                _ => {}
            }
        }
        this
    }

    fn numbers(&self) -> impl Iterator<Item = usize> {
        let number = |new: &Value| usize::try_from(new["data"]["number"].as_u64()?).ok();
        self.new.iter().map(move |new| number(new).expect("only what a producer told"))
    }

    fn is_all_of(&self, told: &Told, rows: &Rows) -> bool {
        self.counts.last() == Some(&(rows.count, rows.revision))
            && self.numbers().collect::<BTreeSet<_>>().len() == told.count
    }

    fn lacks(&self, told: &Told) -> String {
        let heard: BTreeSet<_> = self.numbers().collect();
        let lost: Vec<_> = (0..told.count).filter(|number| !heard.contains(number)).collect();
        let mut text = format!("lost: {lost:?}, last count: {:?}", self.counts.last());
        let _ = write!(text, ", last sync: {:?}", self.syncs.last());
        text
    }

    fn must_be_in_order(&self, user: &User, stored: &[usize]) {
        let story = || self.device.story();
        for new in &self.new {
            assert_eq!(new["userId"], user.id(), "somebody else's: {}", story());
        }
        for sync in self.syncs.iter().skip(1) {
            assert_eq!(sync["recovered"], true, "it had to start over: {}", story());
        }
        let numbers: Vec<_> = self.numbers().collect();
        assert!(numbers == stored, "each once and in order, not {numbers:?}: {}", story());
        let revisions: Vec<_> = self.counts.iter().map(|(_, revision)| *revision).collect();
        assert!(revisions.is_sorted(), "a stale count after a newer one: {}", story());
    }
}

/// What came of it, in numbers.
#[derive(Debug, Default)]
struct Summary {
    told: usize,
    again: usize,
    heard: usize,
    syncs: usize,
    devices: usize,
}

impl Summary {
    fn add(&mut self, heard: &Heard<'_>) {
        self.heard += heard.new.len();
        self.syncs += heard.syncs.len();
        self.devices += 1;
    }

    fn text(&self) -> String {
        let Self { told, again, heard, syncs, devices } = self;
        let back = syncs - devices;
        format!(
            "{told} told ({again} tries again), {heard} heard by {devices} devices ({back} times \
             caught up), none lost, none twice, all in order"
        )
    }
}
