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

/// How long a producer retries: far longer than any fault lasts, with the longest backoff after it.
const RETRY_LIMIT: Duration = Duration::from_mins(4);

/// Timeout of one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many notifications were confirmed to all producers, and how many of them were read or deleted.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    pub(super) created: AtomicUsize,
    pub(super) changed: AtomicUsize,
}

/// Creates notifications for one user, one after the other, and retries each until it is confirmed. Reads
/// and deletes some in the user's name.
pub(super) struct Producer<'a> {
    pub(super) user: &'a User,
    pub(super) by_requests: bool,
    /// The pause between two notifications.
    pub(super) pace: Duration,
    pub(super) broker: &'a str,
    pub(super) queue: String,
    pub(super) nodes: &'a [String],
    /// Locked for reading while a notification is created.
    pub(super) confirmed: &'a RwLock<Confirmed>,
    pub(super) channel: Option<(Connection, Channel)>,
}

impl Producer<'_> {
    /// Creates at least `least` notifications, and goes on until `over` is set.
    pub(super) async fn produce(mut self, ledger: &mut Ledger, least: usize, over: &AtomicBool) {
        let until = ledger.created + least;
        while ledger.created < until || !over.load(Ordering::SeqCst) {
            let confirmed = self.confirmed;
            let confirmed = confirmed.read().await;
            let changed = ledger.changed();
            self.create(ledger).await;
            confirmed.created.fetch_add(1, Ordering::SeqCst);
            confirmed.changed.fetch_add(ledger.changed() - changed, Ordering::SeqCst);
            drop(confirmed);
            sleep(self.pace).await;
        }
    }

    async fn create(&mut self, ledger: &mut Ledger) {
        let number = ledger.created;
        let draft = json!({
            "userId": self.user.id(), "id": self.id(number), "title": format!("Number {number}"),
        });
        ledger.retries += if self.by_requests {
            self.request(Method::POST, "", Some(&draft)).await
        } else {
            self.send("notification.create", draft).await
        };
        ledger.record_created();
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
        ledger.retries += if self.by_requests {
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
        ledger.retries +=
            self.request(Method::DELETE, &format!("/{}", self.id(number)), None).await;
        ledger.deleted.insert(number);
    }

    /// Always by a request. A message is delivered at least once: a second delivery would also mark
    /// notifications that were created in the meantime.
    async fn read_all(&self, ledger: &mut Ledger) {
        let earlier = ledger.created.saturating_sub(40);
        for number in (earlier..ledger.created).filter(|number| !ledger.deleted.contains(number)) {
            self.until_stored(number).await;
        }
        let retries = self.request(Method::PATCH, "/read-all", None).await;
        ledger.record_all_read(retries);
    }

    /// Several nodes consume the queue: a message about a notification could overtake the message that
    /// creates it.
    async fn until_stored(&self, number: usize) {
        if !self.by_requests {
            self.request(Method::GET, &format!("/{}", self.id(number)), None).await;
        }
    }

    /// Publishes a message until the broker has confirmed that a queue has it. Returns the number of failed
    /// attempts.
    async fn send(&mut self, pattern: &str, data: Value) -> usize {
        let body = json!({ "pattern": pattern, "data": data }).to_string();
        let mut attempts = Attempts::new("the broker takes a message");
        loop {
            match timeout(ATTEMPT_TIMEOUT, self.publish(&body)).await {
                Ok(Ok(Confirmation::Ack(None))) => return attempts.failed,
                // Returned: the queue is declared again soon.
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => self.channel = None,
            }
            attempts.retry_after(Duration::from_millis(20)).await;
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

    /// Sends a request to one node after the other until it succeeds. Returns the number of failed attempts.
    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> usize {
        let service = key().token("shop").scope("notifications:write").sign();
        let token = if body.is_some() { service } else { self.user.token() };
        let path = format!("/v1/notifications{path}");
        let mut attempts = Attempts::new(&path);
        loop {
            let http = Http::new(&*self.nodes[attempts.failed % self.nodes.len()]).bearer(&*token);
            let mut request = http.request(method.clone(), &path);
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.timeout(ATTEMPT_TIMEOUT).send().await;
            match answer.map(|answer| answer.status().as_u16()) {
                Ok(200 | 201 | 204) => return attempts.failed,
                Ok(404) if method == Method::GET => {}
                // The response to an earlier attempt was lost.
                Ok(404) if method == Method::DELETE && attempts.failed > 0 => {
                    return attempts.failed;
                }
                Ok(status @ 400..=499) => panic!("{method} {path}: {status}"),
                Ok(_) | Err(_) => {}
            }
            attempts.retry_after(Duration::from_millis(50)).await;
        }
    }
}

/// Attempts at one message or request.
struct Attempts<'a> {
    what: &'a str,
    since: Instant,
    failed: usize,
}

impl<'a> Attempts<'a> {
    fn new(what: &'a str) -> Self {
        Self { what, since: Instant::now(), failed: 0 }
    }

    async fn retry_after(&mut self, pause: Duration) {
        let Self { what, since, .. } = self;
        assert!(since.elapsed() < RETRY_LIMIT, "no success within {RETRY_LIMIT:?}: {what}");
        self.failed += 1;
        sleep(pause).await;
    }
}
