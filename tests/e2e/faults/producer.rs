//! The producer of a user's notifications.

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

/// How long a producer retries: far longer than the longest fault and the longest backoff after it.
const RETRY_LIMIT: Duration = Duration::from_mins(4);

/// Timeout of one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// The operations that were confirmed to the producers of all users together.
#[derive(Debug, Default)]
pub(super) struct Confirmed {
    /// The number of created notifications.
    pub(super) created: AtomicUsize,
    /// How many of these were marked as read or deleted.
    pub(super) changed: AtomicUsize,
}

/// Creates notifications for one user, one after the other, marks some as read and deletes some. Retries
/// each message or request until it is confirmed.
pub(super) struct Producer<'a> {
    pub(super) user: &'a User,
    /// Whether notifications are created and marked as read by REST requests instead of messages.
    pub(super) by_requests: bool,
    /// The pause between two notifications.
    pub(super) pace: Duration,
    /// The broker's URL.
    pub(super) broker: &'a str,
    /// The ingest queue.
    pub(super) queue: String,
    /// The URLs of the nodes.
    pub(super) nodes: &'a [String],
    /// Read-locked while a notification is created. A fault pauses all producers with the write lock.
    pub(super) confirmed: &'a RwLock<Confirmed>,
    /// `None` before the first message and after an error.
    pub(super) channel: Option<(Connection, Channel)>,
}

impl Producer<'_> {
    /// Creates at least `min_created` notifications, and more until `faults_over` is set.
    pub(super) async fn produce(
        mut self,
        ledger: &mut Ledger,
        min_created: usize,
        faults_over: &AtomicBool,
    ) {
        let target = ledger.created + min_created;
        while ledger.created < target || !faults_over.load(Ordering::SeqCst) {
            let lock = self.confirmed;
            let confirmed = lock.read().await;
            let changed_before = ledger.changed();
            self.create(ledger).await;
            confirmed.created.fetch_add(1, Ordering::SeqCst);
            confirmed.changed.fetch_add(ledger.changed() - changed_before, Ordering::SeqCst);
            drop(confirmed);
            sleep(self.pace).await;
        }
    }

    /// Creates the next notification. After some of the notifications, marks one or all as read or deletes
    /// one.
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
            self.mark_read(number, ledger).await;
        }
        if number % 17 == 16 {
            self.delete(number - 3, ledger).await;
        }
        if number % 40 == 39 {
            self.mark_all_read(ledger).await;
        }
    }

    fn id(&self, number: usize) -> String {
        format!("{}-{number}", self.user.id())
    }

    async fn mark_read(&mut self, number: usize, ledger: &mut Ledger) {
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

    /// Marks all notifications as read. Always uses a request: a message may be redelivered, and would then
    /// also mark notifications that were created in the meantime.
    async fn mark_all_read(&self, ledger: &mut Ledger) {
        // An earlier call waited for the notifications before these.
        let first = ledger.created.saturating_sub(40);
        for number in (first..ledger.created).filter(|number| !ledger.deleted.contains(number)) {
            self.until_stored(number).await;
        }
        let retries = self.request(Method::PATCH, "/read-all", None).await;
        ledger.record_all_read(retries);
    }

    /// Waits until a notification that was created by a message is stored. Several nodes consume the queue,
    /// so a later command could otherwise overtake the message that creates the notification.
    async fn until_stored(&self, number: usize) {
        if !self.by_requests {
            self.request(Method::GET, &format!("/{}", self.id(number)), None).await;
        }
    }

    /// Publishes a message and retries until the broker confirms that it is in a queue. Returns the number of
    /// failed attempts.
    async fn send(&mut self, pattern: &str, data: Value) -> usize {
        let body = json!({ "pattern": pattern, "data": data }).to_string();
        let mut attempts = Attempts::new("publish a message");
        loop {
            match timeout(ATTEMPT_TIMEOUT, self.publish(&body)).await {
                Ok(Ok(Confirmation::Ack(None))) => return attempts.failed,
                // The broker returned the message because the queue is deleted. A node soon declares it again.
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
        // Only a request that creates a notification has a body. It needs the token of a service.
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
            let response = request.timeout(ATTEMPT_TIMEOUT).send().await;
            match response.map(|response| response.status().as_u16()) {
                Ok(200 | 201 | 204) => return attempts.failed,
                // The notification is not stored yet.
                Ok(404) if method == Method::GET => {}
                // An earlier attempt has deleted the notification, but its response was lost.
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

/// Counts the failed attempts to send one message or request.
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
