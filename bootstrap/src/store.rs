//! The store that the settings name.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use belfry_adapters::inbound::rest::ReadinessCheck;
use belfry_adapters::outbound::postgres::{PostgresSettings, PostgresStore};
use belfry_adapters::outbound::sqlite::{SqliteSettings, SqliteStore};
use belfry_application::ports::{InboxRepository, Outbox, PortError, Retention, Revocations};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Database;

/// PostgreSQL or SQLite, by the scheme of `database.url`.
#[derive(Clone)]
pub enum Store {
    /// For any number of nodes.
    Postgres(Postgres),
    /// The embedded default, for one.
    Sqlite(Arc<SqliteStore>),
}

/// One store, and two pools of connections to it.
#[derive(Clone)]
pub struct Postgres {
    everything: Arc<PostgresStore>,
    /// What comes by RabbitMQ does not wait for a crowd of devices that sign in.
    events: Arc<PostgresStore>,
}

impl Postgres {
    /// The most connections that events have, and at most a quarter of all: batches go one after
    /// the other.
    const FOR_EVENTS: u32 = 4;

    fn lazy(settings: &Database) -> Result<Self, PortError> {
        let for_events = (settings.max_connections / 4).clamp(1, Self::FOR_EVENTS);
        let rest = settings.max_connections.saturating_sub(for_events).max(1);
        let store = PostgresStore::lazy(PostgresSettings {
            max_connections: rest,
            ..PostgresSettings::new(settings.url.reveal())
        })?;
        Ok(Self { events: Arc::new(store.separate_pool(for_events)), everything: Arc::new(store) })
    }
}

/// Opens the store. A PostgreSQL that is down is a state, not an error; a SQLite file that cannot be
/// opened is one.
pub async fn open(settings: &Database) -> anyhow::Result<Store> {
    let url = settings.url.reveal();
    Ok(if url.starts_with("sqlite:") {
        let store = SqliteStore::open(SqliteSettings::new(url)).await;
        Store::Sqlite(Arc::new(store.context("setting database.url")?))
    } else {
        Store::Postgres(Postgres::lazy(settings).context("setting database.url")?)
    })
}

impl Store {
    /// What it is.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "PostgreSQL",
            Self::Sqlite(_) => "SQLite",
        }
    }

    /// Its inboxes.
    pub fn inboxes(&self) -> Arc<dyn InboxRepository> {
        match self {
            Self::Postgres(store) => store.everything.clone(),
            Self::Sqlite(store) => store.clone(),
        }
    }

    /// The same for what comes by RabbitMQ.
    pub fn inboxes_of_events(&self) -> Arc<dyn InboxRepository> {
        match self {
            Self::Postgres(store) => store.events.clone(),
            Self::Sqlite(store) => store.clone(),
        }
    }

    /// Its outbox.
    pub fn outbox(&self) -> Arc<dyn Outbox> {
        match self {
            Self::Postgres(store) => store.everything.clone(),
            Self::Sqlite(store) => store.clone(),
        }
    }

    /// Its way to make room.
    pub fn retention(&self) -> Arc<dyn Retention> {
        match self {
            Self::Postgres(store) => store.everything.clone(),
            Self::Sqlite(store) => store.clone(),
        }
    }

    /// Whose tokens hold no more.
    pub fn revocations(&self) -> Arc<dyn Revocations> {
        match self {
            Self::Postgres(store) => store.everything.clone(),
            Self::Sqlite(store) => store.clone(),
        }
    }

    /// Brings its schema up to date.
    pub async fn migrate(&self) -> Result<(), PortError> {
        match self {
            Self::Postgres(store) => store.everything.migrate().await,
            Self::Sqlite(store) => store.migrate().await,
        }
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), PortError> {
        match self {
            Self::Postgres(store) => store.everything.ping().await,
            Self::Sqlite(store) => store.ping().await,
        }
    }

    /// Lets go of its connections.
    pub async fn close(&self) {
        match self {
            Self::Postgres(store) => {
                tokio::join!(store.events.close(), store.everything.close());
            }
            Self::Sqlite(store) => store.close().await,
        }
    }

    /// Waits until the store can be used, its schema up to date if that is wanted, however long that
    /// takes. `false` when told to stop before; an error if no waiting will help.
    pub async fn become_usable(
        &self,
        migrate: bool,
        stop: &CancellationToken,
    ) -> Result<bool, PortError> {
        const LONGEST_PAUSE: Duration = Duration::from_secs(5);
        let mut pause = Duration::from_millis(250);
        loop {
            let usable = async { if migrate { self.migrate().await } else { self.ping().await } };
            match stop.run_until_cancelled(usable).await {
                Some(Ok(())) => return Ok(true),
                Some(Err(error @ PortError::Rejected(_))) => return Err(error),
                Some(Err(error)) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, again_in = ?pause, "the database cannot be used yet");
                }
                None => return Ok(false),
            }
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(false);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Keeps the check true to whether the store answers, until told to stop.
    pub async fn watch(&self, check: ReadinessCheck, stop: CancellationToken) {
        const EVERY: Duration = Duration::from_secs(2);
        let mut up = true;
        check.up();
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            let Some(answer) = stop.run_until_cancelled(self.ping()).await else { return };
            match &answer {
                Err(error) if up => {
                    warn!(error = error as &dyn std::error::Error, "the database does not answer");
                }
                Ok(()) if !up => info!("the database answers again"),
                _ => {}
            }
            up = answer.is_ok();
            check.set(up);
        }
    }
}
