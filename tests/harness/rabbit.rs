//! RabbitMQ for a test: queue and exchange names of its own on the shared broker, or a broker of its own.

use std::sync::Mutex;
use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};
use serde::Deserialize;

use crate::names::unique;
pub use crate::servers::supervisor::MINIMAL_RIGHTS;
use crate::servers::supervisor::{LIMITED_USER, MINIMAL_USER, ServerCommand};
use crate::servers::{Access, Kind, OwnServer, shared};
use crate::wait::block_on_thread;

/// How long deleting a test's queues may delay its end.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(15);

/// A prefix that no other test uses, for names on the broker that all tests share.
///
/// # Panics
/// When no broker can be started.
pub async fn fresh_prefix() -> Broker {
    Broker::on(shared(Kind::Rabbit).await.clone())
}

/// A broker and a prefix for names on it. Dropping it deletes the queues and exchanges with that prefix: all
/// of them if the broker has a management API, else the well-known ones and those that the test has
/// registered.
#[derive(Debug)]
pub struct Broker {
    access: Access,
    prefix: String,
    registered: Mutex<Names>,
}

#[derive(Debug, Default, Clone)]
struct Names {
    queues: Vec<String>,
    exchanges: Vec<String>,
}

impl Broker {
    /// A new prefix on the broker at this URL.
    pub fn at(url: &str) -> Self {
        Self::on(Access { url: url.to_owned(), management: None })
    }

    fn on(access: Access) -> Self {
        let prefix = format!("test-{}", unique());
        let this = Self { access, prefix, registered: Mutex::default() };
        for queue in [this.ingest_queue(), this.dead_queue()] {
            this.will_delete_queue(queue);
        }
        // Belfry declares one retry queue for each of these delays.
        for delay in ["1s", "5s", "30s", "120s"] {
            this.will_delete_queue(this.name(&format!("ingest.retry.{delay}")));
        }
        for exchange in [this.ingest_queue(), this.events_exchange(), this.devices_exchange()] {
            this.will_delete_exchange(exchange);
        }
        this
    }

    /// `amqp://user:password@host:port/%2f`
    pub fn url(&self) -> &str {
        &self.access.url
    }

    /// The management API, `http://user:password@host:port`; `None` if the broker has none.
    pub fn management_url(&self) -> Option<&str> {
        self.access.management.as_deref()
    }

    /// The prefix of all names.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `<prefix>.<suffix>`
    pub fn name(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.prefix)
    }

    /// The queue that Belfry consumes, and the exchange of that name: `<prefix>.ingest`.
    pub fn ingest_queue(&self) -> String {
        self.name("ingest")
    }

    /// The dead-letter queue: `<prefix>.ingest.dead`.
    pub fn dead_queue(&self) -> String {
        self.name("ingest.dead")
    }

    /// The exchange that events are published to: `<prefix>.events`.
    pub fn events_exchange(&self) -> String {
        self.name("events")
    }

    /// In forward mode, the exchange that requests of devices are published to: `<prefix>.devices`.
    pub fn devices_exchange(&self) -> String {
        self.name("devices")
    }

    /// The queue of one node: `<prefix>.node.<node>`.
    pub fn node_queue(&self, node: &str) -> String {
        self.name(&format!("node.{node}"))
    }

    /// Registers a queue to delete when this value is dropped.
    pub fn will_delete_queue(&self, name: impl Into<String>) {
        self.registered.lock().expect("no panic while it is locked").queues.push(name.into());
    }

    /// Registers an exchange to delete when this value is dropped.
    pub fn will_delete_exchange(&self, name: impl Into<String>) {
        self.registered.lock().expect("no panic while it is locked").exchanges.push(name.into());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let (access, prefix) = (self.access.clone(), self.prefix.clone());
        let mut names = self.registered.lock().map(|names| names.clone()).unwrap_or_default();
        let _ = block_on_thread(CLEANUP_TIMEOUT, async move {
            // An error is ignored: the next step still deletes the registered names.
            if let Some(management) = &access.management {
                let _ = names.add_existing(management, &prefix).await;
            }
            names.delete(&access.url).await
        });
    }
}

impl Names {
    /// Adds all queues and exchanges of the broker that have the prefix in their names.
    async fn add_existing(&mut self, management: &str, prefix: &str) -> reqwest::Result<()> {
        self.queues.extend(list(management, "queues", prefix).await?);
        self.exchanges.extend(list(management, "exchanges", prefix).await?);
        Ok(())
    }

    async fn delete(self, url: &str) -> lapin::Result<()> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        // In RabbitMQ it is no error to delete a queue or exchange that does not exist.
        for queue in self.queues {
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
        }
        for exchange in self.exchanges {
            channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
        }
        connection.close(200, "done".into()).await
    }
}

/// The names of all `queues` or `exchanges`, as `kind` says, that contain the prefix.
async fn list(management: &str, kind: &str, prefix: &str) -> reqwest::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }

    let url = format!("{management}/api/{kind}?columns=name");
    let all: Vec<Named> =
        crate::http::client().get(url).send().await?.error_for_status()?.json().await?;
    Ok(all.into_iter().map(|it| it.name).filter(|name| name.contains(prefix)).collect())
}

/// A broker that a test owns alone and may stop, kill and restart with the same port and data.
///
/// Dropping it stops it and removes its data.
#[derive(Debug)]
pub struct RabbitServer(OwnServer);

impl RabbitServer {
    /// Starts a new, empty broker.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn start_own() -> Self {
        Self(OwnServer::start(Kind::Rabbit).await)
    }

    /// `amqp://…` with an administrator.
    pub fn url(&self) -> &str {
        &self.0.access().url
    }

    /// A new prefix for names on this broker.
    pub fn fresh_prefix(&self) -> Broker {
        Broker::on(self.0.access().clone())
    }

    /// Shuts it down gracefully.
    ///
    /// # Panics
    /// When it does not stop.
    pub async fn stop(&self) {
        self.0.run(ServerCommand::Stop).await;
    }

    /// Kills it, like a crash. Confirmed persistent messages are on disk.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub async fn kill(&self) {
        self.0.run(ServerCommand::Kill).await;
    }

    /// Restarts it and waits until it accepts connections.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(&self) {
        self.0.run(ServerCommand::Start).await;
    }

    /// Closes all connections, as for maintenance (`rabbitmqctl close_all_connections`).
    ///
    /// # Panics
    /// When `rabbitmqctl` fails.
    pub async fn close_connections(&self) {
        self.0.run(ServerCommand::CloseConnections).await;
    }

    /// Raises the memory alarm, which blocks publishers (<https://www.rabbitmq.com/docs/alarms>) until
    /// [`clear_memory_alarm`](Self::clear_memory_alarm).
    ///
    /// # Panics
    /// When `rabbitmqctl` fails.
    pub async fn raise_memory_alarm(&self) {
        self.0.run(ServerCommand::RaiseMemoryAlarm).await;
    }

    /// Adds a user who may declare and bind nothing, may publish to exchanges whose names end in `.ingest` or
    /// `.events`, and may read everything. Returns the broker's URL with that user. Call it only once.
    ///
    /// # Panics
    /// When `rabbitmqctl` fails.
    pub async fn add_limited_user(&self) -> String {
        self.0.run(ServerCommand::AddLimitedUser).await;
        self.url_of(LIMITED_USER)
    }

    /// Adds a user with [`MINIMAL_RIGHTS`]. Returns the broker's URL with that user. Call it only once.
    ///
    /// # Panics
    /// When `rabbitmqctl` fails.
    pub async fn add_minimal_user(&self) -> String {
        self.0.run(ServerCommand::AddMinimalUser).await;
        self.url_of(MINIMAL_USER)
    }

    fn url_of(&self, (user, password): (&str, &str)) -> String {
        let (_, address) = self.url().rsplit_once('@').expect("the URL has an administrator");
        format!("amqp://{user}:{password}@{address}")
    }

    /// Clears the memory alarm.
    ///
    /// # Panics
    /// When `rabbitmqctl` fails.
    pub async fn clear_memory_alarm(&self) {
        self.0.run(ServerCommand::ClearMemoryAlarm).await;
    }
}
