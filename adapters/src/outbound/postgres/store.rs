use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use belfry_application::ports::PortError;
use belfry_domain::Epoch;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{ConnectOptions, Connection, FromRow, PgConnection, Postgres};
use tokio::sync::OnceCell;

use super::commit_notifier::CommitNotifier;
use super::failure::PgFailure;
use super::session::{self, Purpose};
use super::settings::PostgresSettings;

/// Inboxes and their outbox in PostgreSQL.
///
/// Clones share one pool.
#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
    pub(super) options: PgConnectOptions,
    pub(super) settings: Arc<PostgresSettings>,
    pub(super) notifier: Arc<CommitNotifier>,
    pub(super) epoch: Arc<OnceCell<Epoch>>,
}

/// How long [`PostgresStore::close`] waits for work in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that was idle for longer is pinged before use. Under load this saves a round trip
/// per use.
const PING_AFTER_IDLE: Duration = Duration::from_secs(1);

impl PostgresStore {
    /// A store at that URL. It opens connections on demand, so the database need not be reachable
    /// yet. Must be called within a Tokio runtime.
    ///
    /// `Rejected` if the URL cannot be parsed.
    pub fn lazy(settings: PostgresSettings) -> Result<Self, PortError> {
        let options: PgConnectOptions = settings.url.parse().map_err(PgFailure::from)?;
        let options = options.application_name("belfry");
        let pool = pool(&options, &settings, settings.max_connections);
        Ok(Self {
            notifier: Arc::new(CommitNotifier::start(pool.clone())),
            pool,
            options,
            settings: Arc::new(settings),
            epoch: Arc::default(),
        })
    }

    /// The same store with a pool of its own, of that many connections. Callers of the two pools do
    /// not wait for each other. Each pool must be closed.
    #[must_use]
    pub fn separate_pool(&self, connections: u32) -> Self {
        let pool = pool(&self.options, &self.settings, connections);
        Self { pool, ..self.clone() }
    }

    /// A store at that URL, after a successful ping.
    pub async fn connect(settings: PostgresSettings) -> Result<Self, PortError> {
        let store = Self::lazy(settings)?;
        store.ping().await?;
        Ok(store)
    }

    /// Checks that the database answers.
    pub async fn ping(&self) -> Result<(), PortError> {
        let answered = self.with_connection(async |connection| Ok(connection.ping().await?));
        Ok(answered.await?)
    }

    /// Runs the migrations. Several nodes may call this at once: one migrates, the others wait for
    /// it.
    ///
    /// A schema that is newer than this version is left as it is. Migrations only add, or replace
    /// an index by a better one. So the previous version keeps running during a rolling upgrade,
    /// and a rollback to it is possible.
    pub async fn migrate(&self) -> Result<(), PortError> {
        // On a connection of its own: a migration may take longer than the statement timeout.
        let mut connection = self.options.connect().await.map_err(PgFailure::from)?;
        let parameters = session::parameters(Purpose::Migration, &self.settings);
        parameters.apply(&mut connection).await.map_err(PgFailure::from)?;
        let mut migrations = sqlx::migrate!("../migrations/postgres");
        migrations.set_ignore_missing(true);
        // Not `run`: its future is not `Send`.
        migrations.run_direct(None, &mut connection, false).await.map_err(PgFailure::from)?;
        connection.close().await.map_err(PgFailure::from)?;
        Ok(())
    }

    /// Closes the pool after the work in flight, or after five seconds. Later calls are
    /// `Unavailable`.
    pub async fn close(&self) {
        self.notifier.stop();
        // The end of the process cuts off what is still running; the server rolls it back.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.pool.close()).await;
    }

    /// Runs `work` on a connection of the pool, for at most [`PostgresSettings::work_timeout`].
    pub(super) async fn with_connection<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, PgFailure>,
    ) -> Result<T, PgFailure> {
        let mut connection = self.pool.acquire().await?;
        let timeout = self.settings.work_timeout();
        if let Ok(done) = tokio::time::timeout(timeout, work(&mut connection)).await {
            done
        } else {
            // The server is unreachable. Back in the pool, the connection would take up a slot
            // until TCP gives up, a quarter of an hour later.
            connection.close_on_drop();
            Err(PgFailure::Timeout(timeout))
        }
    }

    pub(super) async fn fetch_all<T>(
        &self,
        query: QueryAs<'_, Postgres, T, PgArguments>,
    ) -> Result<Vec<T>, PgFailure>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        self.with_connection(async |connection| Ok(query.fetch_all(connection).await?)).await
    }

    pub(super) async fn fetch_optional<T>(
        &self,
        query: QueryAs<'_, Postgres, T, PgArguments>,
    ) -> Result<Option<T>, PgFailure>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        self.with_connection(async |connection| Ok(query.fetch_optional(connection).await?)).await
    }

    pub(super) async fn fetch_scalar<T>(
        &self,
        query: QueryScalar<'_, Postgres, T, PgArguments>,
    ) -> Result<T, PgFailure>
    where
        (T,): for<'r> FromRow<'r, PgRow>,
        T: Send + Unpin,
    {
        self.with_connection(async |connection| Ok(query.fetch_one(connection).await?)).await
    }

    /// Returns the number of affected rows.
    pub(super) async fn execute(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<u64, PgFailure> {
        self.with_connection(async |connection| {
            Ok(query.execute(connection).await?.rows_affected())
        })
        .await
    }
}

fn pool(options: &PgConnectOptions, settings: &PostgresSettings, connections: u32) -> PgPool {
    let parameters = session::parameters(Purpose::Store, settings);
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > PING_AFTER_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection, _| Box::pin(parameters.clone().apply(connection)))
        .connect_lazy_with(options.clone())
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("settings", &self.settings).finish_non_exhaustive()
    }
}
