//! The configured store: PostgreSQL or SQLite.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use belfry_adapters::inbound::rest::ReadinessCheck;
use belfry_adapters::outbound::NotReady;
use belfry_adapters::outbound::metrics::{MeteredInboxes, MeteredOutbox};
use belfry_adapters::outbound::postgres::{PostgresSettings, PostgresStore};
use belfry_adapters::outbound::sqlite::{SqliteSettings, SqliteStore};
use belfry_application::Backoff;
use belfry_application::ports::{
    Erasure, InboxRepository, Outbox, PortError, Retention, Revocations,
};
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Database;

/// The ports of one store, and its lifecycle.
#[derive(Clone)]
#[expect(missing_docs, reason = "the ports document themselves")]
pub struct Store {
    pub inboxes: Arc<dyn InboxRepository>,
    /// Inboxes for messages from RabbitMQ. With PostgreSQL they have connections of their own, so messages do
    /// not wait while many devices sign in.
    pub event_inboxes: Arc<dyn InboxRepository>,
    pub outbox: Arc<dyn Outbox>,
    pub retention: Arc<dyn Retention>,
    pub revocations: Arc<dyn Revocations>,
    pub erasure: Arc<dyn Erasure>,
    backend: Backend,
    /// Set once the store can do its work.
    usable: Arc<SetOnce<()>>,
}

#[derive(Clone)]
enum Backend {
    /// For any number of nodes.
    Postgres { main: Arc<PostgresStore>, events: Arc<PostgresStore> },
    /// For a single node.
    Sqlite(Arc<SqliteStore>),
}

impl Store {
    /// Opens the store. A PostgreSQL server that is down is not an error, because Belfry waits for it. A
    /// SQLite file that cannot be opened is an error.
    pub async fn open(settings: &Database) -> anyhow::Result<Self> {
        let url = settings.url.reveal();
        Ok(if url.starts_with("sqlite:") {
            let store = SqliteStore::open(SqliteSettings::new(url)).await;
            let store = Arc::new(store.context("setting database.url")?);
            Self::new(&store, store.clone(), Backend::Sqlite(store.clone()))
        } else {
            let (main, events) = postgres(settings).context("setting database.url")?;
            let backend = Backend::Postgres { main: main.clone(), events: events.clone() };
            Self::new(&main, events, backend)
        })
    }

    fn new<S>(main: &Arc<S>, events: Arc<S>, backend: Backend) -> Self
    where
        S: InboxRepository + Outbox + Retention + Revocations + Erasure + 'static,
    {
        Self {
            inboxes: Arc::new(MeteredInboxes::new(main.clone())),
            event_inboxes: Arc::new(MeteredInboxes::new(events)),
            outbox: Arc::new(MeteredOutbox::new(main.clone())),
            retention: main.clone(),
            revocations: main.clone(),
            erasure: main.clone(),
            backend,
            usable: Arc::default(),
        }
    }

    /// The product name, for the log.
    pub const fn kind(&self) -> &'static str {
        match &self.backend {
            Backend::Postgres { .. } => "PostgreSQL",
            Backend::Sqlite(_) => "SQLite",
        }
    }

    /// Runs the database migrations.
    pub async fn migrate(&self) -> Result<(), PortError> {
        match &self.backend {
            Backend::Postgres { main, .. } => main.migrate().await,
            Backend::Sqlite(store) => store.migrate().await,
        }
    }

    /// Checks that the store can do its work.
    pub async fn check(&self) -> Result<(), NotReady> {
        match &self.backend {
            Backend::Postgres { main, .. } => main.check().await,
            Backend::Sqlite(store) => store.check().await,
        }
    }

    /// Closes all connections.
    pub async fn close(&self) {
        match &self.backend {
            Backend::Postgres { main, events } => {
                tokio::join!(events.close(), main.close());
            }
            Backend::Sqlite(store) => store.close().await,
        }
    }

    /// Runs the migrations if `migrate` is set, and waits until the store can do its work. Then keeps
    /// `check` up to date until `stop`. An error means that retries cannot help.
    pub async fn run(
        self,
        migrate: bool,
        check: ReadinessCheck,
        stop: CancellationToken,
    ) -> Result<(), PortError> {
        if self.connect(migrate, &check, &stop).await? {
            // An error would mean that the value is set already.
            let _ = self.usable.set(());
            self.watch(&check, &stop).await;
        }
        Ok(())
    }

    /// Runs `task` once the store is usable; `None` if `stop` came first.
    pub async fn run_when_usable<T>(
        &self,
        stop: &CancellationToken,
        task: impl Future<Output = T>,
    ) -> Option<T> {
        stop.run_until_cancelled(self.usable.wait()).await?;
        Some(task.await)
    }

    /// Retries until the store can do its work. Returns `false` if `stop` came first.
    async fn connect(
        &self,
        migrate: bool,
        check: &ReadinessCheck,
        stop: &CancellationToken,
    ) -> Result<bool, PortError> {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
        loop {
            let attempt = self.prepare(migrate);
            let retry_in = backoff.next_delay();
            match stop.run_until_cancelled(attempt).await {
                Some(Ok(())) => return Ok(true),
                // Retries cannot help.
                Some(Err(NotReady { error: error @ PortError::Rejected(_), .. })) => {
                    return Err(error);
                }
                Some(Err(NotReady { reason, error })) => {
                    check.down(reason);
                    let error = &error as &dyn Error;
                    warn!(error, ?retry_in, "database unavailable at start; retrying");
                }
                None => return Ok(false),
            }
            if stop.run_until_cancelled(tokio::time::sleep(retry_in)).await.is_none() {
                return Ok(false);
            }
        }
    }

    async fn prepare(&self, migrate: bool) -> Result<(), NotReady> {
        if migrate && let Err(error) = self.migrate().await {
            let reason = self.check().await.err().map(|not_ready| not_ready.reason);
            return Err(NotReady { reason: reason.unwrap_or("the migrations have failed"), error });
        }
        self.check().await
    }

    /// Keeps `check` up to date, and logs when an outage begins and ends.
    async fn watch(&self, check: &ReadinessCheck, stop: &CancellationToken) {
        const INTERVAL: Duration = Duration::from_secs(2);
        let mut was_up = true;
        check.up();
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            let Some(checked) = stop.run_until_cancelled(self.check()).await else { return };
            match &checked {
                Err(NotReady { error, .. }) if was_up => {
                    warn!(error = error as &dyn Error, "database unavailable");
                }
                Ok(()) if !was_up => info!("database available again"),
                _ => {}
            }
            was_up = checked.is_ok();
            match checked {
                Ok(()) => check.up(),
                Err(NotReady { reason, .. }) => check.down(reason),
            }
        }
    }
}

/// Opens PostgreSQL with two pools of connections: one for messages from RabbitMQ and one for everything else.
/// Messages get a quarter of the connections, at most four, because their batches run one after the other and
/// cannot use more.
fn postgres(settings: &Database) -> Result<(Arc<PostgresStore>, Arc<PostgresStore>), PortError> {
    const MAX_FOR_EVENTS: u32 = 4;
    let for_events = (settings.max_connections / 4).clamp(1, MAX_FOR_EVENTS);
    let main = PostgresStore::lazy(PostgresSettings {
        max_connections: settings.max_connections.saturating_sub(for_events).max(1),
        ..PostgresSettings::new(settings.url.reveal())
    })?;
    let events = Arc::new(main.separate_pool(for_events));
    Ok((Arc::new(main), events))
}
