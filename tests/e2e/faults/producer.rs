use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use belfry_tests::http::Http;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep, timeout};

use super::ledger::Ledger;
use crate::setup::{User, key};

/// How long a producer tries the same thing until it is safe: far longer than any fault lasts, with
/// the longest pause of a retry after it.
const PERSISTENCE: Duration = Duration::from_mins(4);

/// How long one try may go without an answer.
const ANSWERED: Duration = Duration::from_secs(5);

/// How many notifications all producers know to be safe, and how many of them were read or deleted.
#[derive(Debug, Default)]
pub(super) struct Safe {
    pub(super) told: AtomicUsize,
    pub(super) changed: AtomicUsize,
}

/// Whoever tells a user something, one after the other, each until it is known to be safe; and who
/// reads and deletes in the user's name.
pub(super) struct Producer<'a> {
    pub(super) user: &'a User,
    pub(super) by_requests: bool,
    /// Between two notifications.
    pub(super) pace: Duration,
    pub(super) broker: &'a str,
    pub(super) queue: String,
    pub(super) nodes: &'a [String],
    /// Held while one more is told.
    pub(super) safe: &'a RwLock<Safe>,
    pub(super) channel: Option<(Connection, Channel)>,
}

impl Producer<'_> {
    /// Tells at least so many, and goes on until it is over.
    pub(super) async fn produce(mut self, ledger: &mut Ledger, least: usize, over: &AtomicBool) {
        let until = ledger.told + least;
        while ledger.told < until || !over.load(Ordering::SeqCst) {
            let safe = self.safe;
            let safe = safe.read().await;
            let changed = ledger.changed();
            self.tell(ledger).await;
            safe.told.fetch_add(1, Ordering::SeqCst);
            safe.changed.fetch_add(ledger.changed() - changed, Ordering::SeqCst);
            drop(safe);
            sleep(self.pace).await;
        }
    }

    async fn tell(&mut self, ledger: &mut Ledger) {
        let number = ledger.told;
        let draft = json!({
            "userId": self.user.id(), "id": self.id(number), "title": format!("Number {number}"),
        });
        ledger.again += if self.by_requests {
            self.request(Method::POST, "", Some(&draft)).await
        } else {
            self.send("notification.create", draft).await
        };
        ledger.tells();
        if number % 5 == 4 {
            self.read(number, ledger).await;
        }
        if number % 17 == 16 {
            self.delete(number - 3, ledger).await;
        }
        if number % 40 == 39 {
            self.read_all(ledger).await;
        }
    }

    fn id(&self, number: usize) -> String {
        format!("{}-{number}", self.user.id())
    }

    async fn read(&mut self, number: usize, ledger: &mut Ledger) {
        let id = self.id(number);
        ledger.again += if self.by_requests {
            self.request(Method::PATCH, &format!("/{id}/read"), None).await
        } else {
            self.until_stored(number).await;
            let data = json!({ "userId": self.user.id(), "id": id });
            self.send("notification.mark_read", data).await
        };
        ledger.read.insert(number);
    }

    async fn delete(&self, number: usize, ledger: &mut Ledger) {
        self.until_stored(number).await;
        ledger.again += self.request(Method::DELETE, &format!("/{}", self.id(number)), None).await;
        ledger.deleted.insert(number);
    }

    /// Always by a request. A message comes at least once, and may come again when more has been told:
    /// then nobody could say what it was to read.
    async fn read_all(&self, ledger: &mut Ledger) {
        let earlier = ledger.told.saturating_sub(40);
        for number in (earlier..ledger.told).filter(|number| !ledger.deleted.contains(number)) {
            self.until_stored(number).await;
        }
        let again = self.request(Method::PATCH, "/read-all", None).await;
        ledger.reads_all(again);
    }

    /// What was sent as a message is not there at once, and several nodes consume the queue: whoever
    /// reads or deletes something has to have seen it first.
    async fn until_stored(&self, number: usize) {
        if !self.by_requests {
            self.request(Method::GET, &format!("/{}", self.id(number)), None).await;
        }
    }

    /// Sends a message until the broker has confirmed that a queue has it. Answers how often in vain.
    async fn send(&mut self, pattern: &str, data: Value) -> usize {
        let body = json!({ "pattern": pattern, "data": data }).to_string();
        let mut tries = Tries::of("the broker takes a message");
        loop {
            match timeout(ANSWERED, self.publish(&body)).await {
                Ok(Ok(Confirmation::Ack(None))) => return tries.failed,
                // No queue took it: it is there again in a moment.
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => self.channel = None,
            }
            tries.again(Duration::from_millis(20)).await;
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

    /// Asks one node after the other until one says that it is done. Answers how often in vain.
    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> usize {
        let service = key().token("shop").scope("notifications:write").sign();
        let token = if body.is_some() { service } else { self.user.token() };
        let path = format!("/v1/notifications{path}");
        let mut tries = Tries::of(&path);
        loop {
            let http = Http::new(&*self.nodes[tries.failed % self.nodes.len()]).bearer(&*token);
            let mut request = http.request(method.clone(), &path);
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.timeout(ANSWERED).send().await;
            match answer.map(|answer| answer.status().as_u16()) {
                Ok(200 | 201 | 204) => return tries.failed,
                Ok(404) if method == Method::GET => {}
                // The answer to an earlier try was lost.
                Ok(404) if method == Method::DELETE && tries.failed > 0 => return tries.failed,
                Ok(status @ 400..=499) => panic!("{method} {path}: {status}"),
                Ok(_) | Err(_) => {}
            }
            tries.again(Duration::from_millis(50)).await;
        }
    }
}

/// How often and since when something is tried.
struct Tries<'a> {
    what: &'a str,
    since: Instant,
    failed: usize,
}

impl<'a> Tries<'a> {
    fn of(what: &'a str) -> Self {
        Self { what, since: Instant::now(), failed: 0 }
    }

    async fn again(&mut self, pause: Duration) {
        let Self { what, since, .. } = self;
        assert!(since.elapsed() < PERSISTENCE, "tried for {PERSISTENCE:?} in vain: {what}");
        self.failed += 1;
        sleep(pause).await;
    }
}
