//! Many notifications from concurrent producers to many users, who read and delete them meanwhile. At the end
//! the counts match the rows, and the events of each inbox have consecutive revisions.
//!
//! This test takes the longest. Tests start in the order of their names, so with this name others run beside
//! it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use belfry_tests::amqp::Amqp;
use belfry_tests::http::Http;
use belfry_tests::wait::until_within;
use futures_util::StreamExt;
use futures_util::future::join_all;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::setup::{Backends, Setup, key, ready};

const USERS: usize = 1_000;

const PRODUCERS: usize = 8;

/// The producers that publish messages. The others post batches by REST.
const BY_MESSAGES: usize = 5;

/// The size of a batch, and the number of messages that are published before their confirms are awaited.
const AT_ONCE: usize = 250;

/// Clients that read and delete, each for one user after the other.
const READERS: usize = 16;

/// How long the whole test may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_and_revisions_are_exact_after_a_hundred_thousand_notifications() {
    // `BELFRY_VOLUME` can make this test shorter. Every user still gets a notification from each producer.
    let volume = std::env::var("BELFRY_VOLUME").ok().and_then(|text| text.parse().ok());
    let per_producer = volume.unwrap_or(100_000).max(8 * USERS) / PRODUCERS;
    let backends = Setup::Servers.backends().await;
    let (one, other) = tokio::join!(backends.belfry().start(), backends.belfry().start());
    let nodes = [ready(one).await, ready(other).await];
    let urls: Vec<_> = nodes.iter().map(|node| node.url().to_owned()).collect();
    let collector = EventCollector::listen(&backends).await;
    let clients = Clients {
        per_producer,
        urls,
        progress: Default::default(),
        all_stored: AtomicBool::new(false),
    };

    let started = Instant::now();
    let producing = async {
        let by_messages = join_all((0..BY_MESSAGES).map(|p| clients.send(p, &backends)));
        let by_requests = join_all((BY_MESSAGES..PRODUCERS).map(|p| clients.post(p)));
        tokio::join!(by_messages, by_requests);
        let accepted = started.elapsed();
        until_stored(&backends, per_producer * PRODUCERS).await;
        clients.all_stored.store(true, Ordering::SeqCst);
        accepted
    };
    let (accepted, changes) =
        tokio::join!(producing, join_all((0..READERS).map(|r| clients.read(r))));
    let stored = started.elapsed();
    let inboxes = inboxes(&backends).await;
    let collected = collector.until_all_of(&inboxes).await;

    assert_eq!(inboxes.len(), USERS);
    for (user, inbox) in &inboxes {
        assert_eq!(inbox.unread, inbox.count, "{user}: the inbox's count differs from its rows");
        collected.assert_consecutive(inbox);
    }
    let is_created = |event: &&Event| event.pattern == "notification.created";
    let created = collected.events().filter(is_created).count();
    assert_eq!(created, per_producer * PRODUCERS, "each notification has one event");
    println!(
        "{created} notifications to {USERS} users: accepted within {:.1} s, stored within {:.1} s, \
         published within {:.1} s; {} reads and deletions meanwhile; {} events, {} of them \
         published twice; consecutive revisions, exact counts",
        accepted.as_secs_f64(),
        stored.as_secs_f64(),
        started.elapsed().as_secs_f64(),
        changes.iter().sum::<usize>(),
        collected.events().count(),
        collected.duplicates,
    );
}

/// Producers and readers.
struct Clients {
    /// The number of notifications of each producer.
    per_producer: usize,
    /// The URLs of the nodes.
    urls: Vec<String>,
    /// For each producer, how many of its notifications were accepted.
    progress: [AtomicUsize; PRODUCERS],
    /// Whether all notifications are stored, so that the readers stop.
    all_stored: AtomicBool,
}

/// The recipient of a notification. Every producer notifies every user.
fn user_of(producer: usize, number: usize) -> String {
    format!("user-{}", (number * 7 + producer * 131) % USERS)
}

fn id_of(producer: usize, number: usize) -> String {
    format!("n-{producer}-{number}")
}

fn draft(producer: usize, number: usize) -> Value {
    let user = user_of(producer, number);
    json!({ "userId": user, "id": id_of(producer, number), "title": format!("Number {number}") })
}

impl Clients {
    async fn send(&self, producer: usize, backends: &Backends) {
        let amqp = Amqp::connect(backends.broker().url()).await;
        let queue = backends.broker().ingest_queue();
        let mut unconfirmed = VecDeque::new();
        for number in 0..self.per_producer {
            let data = draft(producer, number);
            let body = json!({ "pattern": "notification.create", "data": data }).to_string();
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let properties = BasicProperties::default().with_delivery_mode(2);
            let publish = amqp.channel().basic_publish(
                "".into(),
                queue.as_str().into(),
                options,
                body.as_bytes(),
                properties,
            );
            unconfirmed.push_back(publish.await.unwrap());
            if unconfirmed.len() == AT_ONCE || number + 1 == self.per_producer {
                for confirm in unconfirmed.drain(..) {
                    assert!(confirm.await.unwrap().is_ack());
                }
                self.progress[producer].store(number + 1, Ordering::SeqCst);
            }
        }
    }

    async fn post(&self, producer: usize) {
        let http = Http::new(&*self.urls[producer % self.urls.len()]);
        let http = http.bearer(key().token("shop").scope("notifications:write").sign());
        for from in (0..self.per_producer).step_by(AT_ONCE) {
            let until = self.per_producer.min(from + AT_ONCE);
            let drafts: Vec<_> = (from..until).map(|number| draft(producer, number)).collect();
            let batch = json!({ "notifications": drafts });
            // On a busy machine, all database connections may be in use for seconds. A service then repeats
            // its request.
            loop {
                let answer = http.post("/v1/notifications/batch", &batch).await;
                match answer.status {
                    200 | 201 => break,
                    503 => sleep(Duration::from_millis(100)).await,
                    _ => {
                        answer.expect(201);
                    }
                }
            }
            self.progress[producer].store(until, Ordering::SeqCst);
        }
    }

    /// Marks one notification as read, marks all as read, or deletes one, each time for another user, until
    /// `all_stored` is set. Returns the number of changes.
    async fn read(&self, reader: usize) -> usize {
        let mut changes = 0;
        for turn in 0_usize.. {
            if self.all_stored.load(Ordering::SeqCst) {
                break;
            }
            sleep(Duration::from_millis(3)).await;
            let turn = turn * READERS + reader;
            let producer = turn % PRODUCERS;
            let Some(newest) = self.progress[producer].load(Ordering::SeqCst).checked_sub(1) else {
                continue;
            };
            // The numbers are spread over all notifications, including the newest.
            let number = newest - (turn * 31) % (newest + 1);
            let (user, id) = (user_of(producer, number), id_of(producer, number));
            let (method, path) = match turn % 7 {
                0 => (Method::PATCH, "/v1/notifications/read-all".to_owned()),
                1 | 2 => (Method::DELETE, format!("/v1/notifications/{id}")),
                _ => (Method::PATCH, format!("/v1/notifications/{id}/read")),
            };
            let http = Http::new(&*self.urls[turn % self.urls.len()]);
            let http = http.bearer(key().token(&user).sign());
            let answer = http.request(method, &path).send().await.unwrap();
            match answer.status().as_u16() {
                200 | 204 => changes += 1,
                // The notification is not stored yet or is deleted, or all database connections are in use.
                404 | 503 => {}
                other => panic!("{path}: {other}"),
            }
        }
        changes
    }
}

async fn until_stored(backends: &Backends, count: usize) {
    let mut connection = connection(backends).await;
    until_within(PATIENCE, "all accepted notifications are stored", async || {
        sleep(Duration::from_millis(200)).await;
        let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM notifications")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        (usize::try_from(stored).unwrap() == count).then_some(())
    })
    .await;
}

async fn connection(backends: &Backends) -> PgConnection {
    PgConnection::connect(backends.database.as_ref().unwrap().url()).await.unwrap()
}

/// An inbox in the database.
#[derive(Debug, sqlx::FromRow)]
struct Inbox {
    user_id: String,
    revision: i64,
    /// The count in the inbox's row.
    unread: i64,
    /// The number of unread rows.
    count: i64,
}

async fn inboxes(backends: &Backends) -> BTreeMap<String, Inbox> {
    let inboxes: Vec<Inbox> = sqlx::query_as(
        "SELECT user_id, revision, unread, (SELECT count(*) FROM notifications n
           WHERE n.user_id = i.user_id AND read_at IS NULL AND deleted_at IS NULL) AS count
         FROM inboxes i",
    )
    .fetch_all(&mut connection(backends).await)
    .await
    .unwrap();
    inboxes.into_iter().map(|inbox| (inbox.user_id.clone(), inbox)).collect()
}

/// Collects everything that is published to the events exchange.
struct EventCollector {
    collected: Arc<Mutex<CollectedEvents>>,
    collecting: AbortHandle,
    /// The queue is deleted with the connection.
    _amqp: Amqp,
}

/// All events, each once, by user and in the order of arrival.
#[derive(Default)]
struct CollectedEvents {
    inboxes: HashMap<String, Vec<Event>>,
    message_ids: HashSet<String>,
    duplicates: usize,
}

#[derive(Deserialize)]
struct Body {
    pattern: String,
    data: Event,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(skip)]
    pattern: String,
    user_id: String,
    revision: i64,
    unread_count: i64,
    #[serde(default)]
    ids: Vec<String>,
}

impl EventCollector {
    async fn listen(backends: &Backends) -> Self {
        let amqp = Amqp::connect(backends.broker().url()).await;
        let queue = amqp.tap(&backends.broker().events_exchange(), "#").await;
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let mut consumer = amqp
            .channel()
            .basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default())
            .await
            .unwrap();
        let collected = Arc::new(Mutex::new(CollectedEvents::default()));
        let in_task = collected.clone();
        let collecting = tokio::spawn(async move {
            while let Some(event) = consumer.next().await {
                in_task.lock().unwrap().take(&event.unwrap());
            }
        });
        Self { collected, collecting: collecting.abort_handle(), _amqp: amqp }
    }

    /// Waits for the last change of each inbox and returns all events.
    async fn until_all_of(self, inboxes: &BTreeMap<String, Inbox>) -> CollectedEvents {
        until_within(PATIENCE, "all changes are published", async || {
            let collected = self.collected.lock().unwrap();
            inboxes.values().all(|inbox| collected.has_reached(inbox)).then_some(())
        })
        .await;
        self.collecting.abort();
        std::mem::take(&mut *self.collected.lock().unwrap())
    }
}

impl CollectedEvents {
    fn take(&mut self, event: &Delivery) {
        let id = event.properties.message_id().as_ref().expect("an event has an id");
        if !self.message_ids.insert(id.to_string()) {
            self.duplicates += 1;
            return;
        }
        let Body { pattern, data } = serde_json::from_slice(&event.data).unwrap();
        let event = Event { pattern, ..data };
        self.inboxes.entry(event.user_id.clone()).or_default().push(event);
    }

    fn has_reached(&self, inbox: &Inbox) -> bool {
        let last = self.inboxes.get(&inbox.user_id).and_then(|events| events.last());
        last.is_some_and(|last| last.revision >= inbox.revision)
    }

    fn events(&self) -> impl Iterator<Item = &Event> {
        self.inboxes.values().flatten()
    }

    fn assert_consecutive(&self, inbox: &Inbox) {
        let user = &inbox.user_id;
        let events = &self.inboxes[user];
        let revisions: Vec<_> = events.iter().map(|event| event.revision).collect();
        let expected: Vec<_> = (1..=inbox.revision).collect();
        assert!(
            revisions == expected,
            "{user}: events have revisions {revisions:?} up to {}",
            inbox.revision
        );
        let mut unread = 0;
        for Event { pattern, revision, unread_count, ids, .. } in events {
            let changed = i64::try_from(ids.len()).unwrap();
            let is_right = match &**pattern {
                "notification.created" => *unread_count == unread + 1,
                "notification.marked_read" => *unread_count == unread - changed,
                "notification.all_read" => *unread_count == 0,
                // The deletion of a read notification does not change the count.
                "notification.deleted" => (unread - changed..=unread).contains(unread_count),
                other => panic!("unexpected event {other}"),
            };
            assert!(
                is_right,
                "{user}: {pattern} at revision {revision} has the count {unread_count} after {unread}"
            );
            unread = *unread_count;
        }
        assert_eq!(unread, inbox.count, "{user}: the last published count differs from the rows");
    }
}
