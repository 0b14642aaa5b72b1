//! The environment that all servers under test share: a broker, a database server, a secret.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use belfry_tests::postgres::{Database, PostgresServer};
use belfry_tests::rabbit::{Broker, RabbitServer};
use belfry_tests::tokens::Key;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use sqlx::{Connection as _, PgConnection};

use crate::options::Common;
use crate::process::Process;
use crate::servers::ServerKind;

/// The secret that signs tokens.
pub(crate) const SECRET: &str = "a secret of the load tool and nobody else";

/// The broker, and PostgreSQL if the command needs it.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) options: Common,
    pub(crate) key: Key,
    pub(crate) belfry: PathBuf,
    pub(crate) amqp_url: String,
    /// The broker's process, if it is visible on this machine.
    pub(crate) broker_process: Option<Process>,
    /// PostgreSQL's main process, if it is visible on this machine.
    pub(crate) postgres_process: Option<Process>,
    broker: Option<RabbitServer>,
    connection: Connection,
    postgres: Option<Postgres>,
}

#[derive(Debug)]
struct Postgres {
    url: String,
    /// A server that the tool started; stopped on drop.
    _own: Option<PostgresServer>,
}

/// A new queue, and the names that Belfry derives from it. Dropping this deletes them.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) names: Arc<Broker>,
    pub(crate) name: String,
    channel: Channel,
}

impl Rig {
    /// Connects to the broker and, if `database` is true, to PostgreSQL. Starts those that the options do not name.
    pub(crate) async fn start(
        options: &Common,
        belfry: PathBuf,
        database: bool,
    ) -> anyhow::Result<Self> {
        let broker = if options.amqp_url.is_none() {
            eprintln!("starting RabbitMQ");
            Some(RabbitServer::start_own().await)
        } else {
            None
        };
        let amqp_url = match (&options.amqp_url, &broker) {
            (Some(url), _) => url.clone(),
            (None, own) => own.as_ref().map(|own| own.url().to_owned()).unwrap_or_default(),
        };
        let connection = Connection::connect(&amqp_url, ConnectionProperties::default())
            .await
            .context("cannot connect to the broker")?;
        let postgres = match (&options.database_url, database) {
            (_, false) => None,
            (Some(url), true) => Some(Postgres { url: url.clone(), _own: None }),
            (None, true) => {
                eprintln!("starting PostgreSQL");
                let own = PostgresServer::start_own().await;
                Some(Postgres { url: own.url().to_owned(), _own: Some(own) })
            }
        };
        let key = Key::hs256(SECRET);
        let options = options.clone();
        Ok(Self {
            options,
            key,
            belfry,
            broker_process: broker_process(&amqp_url),
            postgres_process: postgres.as_ref().and_then(|it| postgres_process(&it.url)),
            amqp_url,
            broker,
            connection,
            postgres,
        })
    }

    /// The executable of Belfry or of its baseline.
    pub(crate) fn program(&self, kind: ServerKind) -> anyhow::Result<&Path> {
        if kind == ServerKind::Baseline {
            return self
                .options
                .baseline
                .as_deref()
                .context("the server baseline needs the option --baseline");
        }
        Ok(&self.belfry)
    }

    /// A new, empty queue, durable and without arguments.
    pub(crate) async fn fresh_queue(&self) -> anyhow::Result<Queue> {
        let names = match &self.broker {
            Some(own) => own.fresh_prefix(),
            None => Broker::at(&self.amqp_url),
        };
        let name = names.ingest_queue();
        let channel = self.connection.create_channel().await?;
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(name.as_str().into(), durable, FieldTable::default()).await?;
        Ok(Queue { names: Arc::new(names), name, channel })
    }

    /// A new, empty database.
    pub(crate) async fn fresh_database(&self) -> Database {
        let postgres = self.postgres.as_ref().expect("the command requested PostgreSQL");
        Database::on(&postgres.url).await
    }

    /// PostgreSQL's version and its `fsync` setting, if there is a server.
    pub(crate) async fn postgres_version(&self) -> Option<String> {
        let mut connection = PgConnection::connect(&self.postgres.as_ref()?.url).await.ok()?;
        let version =
            "select current_setting('server_version') || ', fsync ' || current_setting('fsync')";
        sqlx::query_scalar(version).fetch_one(&mut connection).await.ok()
    }
}

/// The process that listens on the URL's port.
fn broker_process(url: &str) -> Option<Process> {
    let uri: AMQPUri = url.parse().ok()?;
    Process::listening_on(uri.authority.port)
}

fn postgres_process(url: &str) -> Option<Process> {
    let (_, rest) = url.rsplit_once(':')?;
    Process::listening_on(rest.split('/').next()?.parse().ok()?)
}

impl Queue {
    /// The same queue for another consumer.
    pub(crate) fn shared(&self) -> Self {
        let (names, name) = (Arc::clone(&self.names), self.name.clone());
        Self { names, name, channel: self.channel.clone() }
    }

    /// The number of messages that wait for a consumer.
    pub(crate) async fn depth(&self) -> anyhow::Result<u64> {
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue =
            self.channel.queue_declare(self.name.as_str().into(), passive, FieldTable::default());
        Ok(queue.await?.message_count().into())
    }

    /// Deletes the queue, so that the messages of a slow server do not slow down the next one.
    pub(crate) async fn delete(&self) {
        // If this fails, the queue is deleted when the names are dropped.
        let _ = self
            .channel
            .queue_delete(self.name.as_str().into(), QueueDeleteOptions::default())
            .await;
    }
}
