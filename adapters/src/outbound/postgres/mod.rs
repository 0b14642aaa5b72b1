//! PostgreSQL (14 or newer) as the store: for many nodes, and for data that must outlive them.
//!
//! - A change is planned in Rust on what was just read and then written by one statement that does
//!   nothing if the inbox has moved meanwhile (`change`): two round trips and no open transaction in
//!   the common case, and a lock only where several want the same inbox.
//! - The outbox is led by whoever holds an advisory lock ([`OUTBOX_LOCK`]), on a connection of its
//!   own (`outbox`).
//!
//! Connections keep state between transactions (the lead's lock, prepared statements), so a pooler in
//! between must pool sessions, not transactions.

mod change;
mod create;
mod edit;
mod failure;
mod inbox_repository;
mod outbox;
mod retention;
mod revocations;
mod session;
mod settings;
mod waker;

pub use outbox::OUTBOX_LOCK;
pub use settings::PostgresSettings;

use std::sync::Arc;
use std::time::Duration;

use belfry_application::ports::PortError;
use belfry_domain::Epoch;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::OnceCell;

use failure::Failure;
use session::Purpose;
use waker::Waker;

/// Inboxes and their outbox in PostgreSQL.
///
/// Clones share one pool.
#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
    options: PgConnectOptions,
    settings: Arc<PostgresSettings>,
    waker: Arc<Waker>,
    epoch: Arc<OnceCell<Epoch>>,
}

/// How long [`PostgresStore::close`] waits for work that is under way.
const FAREWELL: Duration = Duration::from_secs(5);

/// A connection that rested longer than this is tried before it is used; under load that saves a
/// round trip for each use.
const MAY_BE_STALE: Duration = Duration::from_secs(1);

impl PostgresStore {
    /// A store behind that URL, whether or not it can be reached now: connections are opened when
    /// they are needed. Must be called within a Tokio runtime.
    ///
    /// `Rejected` if the URL cannot be understood.
    pub fn lazy(settings: PostgresSettings) -> Result<Self, PortError> {
        let options: PgConnectOptions = settings.url.parse().map_err(Failure::from)?;
        let options = options.application_name("belfry");
        let pool = pool(&options, &settings, settings.max_connections);
        Ok(Self {
            waker: Arc::new(Waker::start(pool.clone())),
            pool,
            options,
            settings: Arc::new(settings),
            epoch: Arc::default(),
        })
    }

    /// The same store by so many connections of its own, which nobody who uses the others waits for, nor
    /// holds up. To be closed for itself.
    #[must_use]
    pub fn apart(&self, connections: u32) -> Self {
        let pool = pool(&self.options, &self.settings, connections);
        Self { pool, ..self.clone() }
    }

    /// A store behind that URL that has answered once.
    pub async fn connect(settings: PostgresSettings) -> Result<Self, PortError> {
        let store = Self::lazy(settings)?;
        store.ping().await?;
        Ok(store)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), PortError> {
        let answered = self.with_connection(async |connection| Ok(connection.ping().await?));
        Ok(answered.await?)
    }

    /// Brings the tables to the form that this Belfry knows. May be run by several nodes at once: one
    /// does it, the others wait for it.
    ///
    /// A database that is ahead is taken as it is: migrations only add, or put a better index in the
    /// place of another, so that the previous version keeps running while the next one is rolled out,
    /// and can be gone back to.
    pub async fn migrate(&self) -> Result<(), PortError> {
        // On a connection of its own: a migration may take longer than any statement should.
        let mut connection = self.options.connect().await.map_err(Failure::from)?;
        let setup = session::setup(Purpose::Migration, &self.settings);
        setup.apply(&mut connection).await.map_err(Failure::from)?;
        let mut migrations = sqlx::migrate!("../migrations/postgres");
        migrations.set_ignore_missing(true);
        // Not `run`: its future borrows in a way that keeps it from going from thread to thread.
        migrations.run_direct(None, &mut connection, false).await.map_err(Failure::from)?;
        connection.close().await.map_err(Failure::from)?;
        Ok(())
    }

    /// Lets go of all connections, after the work under way or five seconds. What is asked afterwards
    /// is `Unavailable`.
    pub async fn close(&self) {
        self.waker.stop();
        // Whoever is not done by then is cut off when the process ends; nothing half-done remains.
        let _ = tokio::time::timeout(FAREWELL, self.pool.close()).await;
    }

    /// Does `work` on a connection, for as long as the server may take.
    async fn with_connection<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut connection = self.pool.acquire().await?;
        let patience = self.settings.patience();
        if let Ok(done) = tokio::time::timeout(patience, work(&mut connection)).await {
            done
        } else {
            // The server is gone without a word. Back in the pool, the connection would take up a
            // place until TCP gives up, a quarter of an hour later.
            connection.close_on_drop();
            Err(Failure::NoAnswer(patience))
        }
    }
}

fn pool(options: &PgConnectOptions, settings: &PostgresSettings, connections: u32) -> PgPool {
    let setup = session::setup(Purpose::Store, settings);
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > MAY_BE_STALE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection, _| Box::pin(setup.clone().apply(connection)))
        .connect_lazy_with(options.clone())
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").field("settings", &self.settings).finish_non_exhaustive()
    }
}
