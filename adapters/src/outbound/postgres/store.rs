use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use belfry_application::ports::PortError;
use belfry_domain::Epoch;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgRow};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{ConnectOptions, Connection, FromRow, PgConnection, Postgres};
use tokio::sync::{OnceCell, Semaphore};

use super::commit_notifier::CommitNotifier;
use super::failure::PgFailure;
use super::installation::{Installation, InstallationCell};
use super::pool::{Retirement, pool};
use super::server::{check_server, migrations};
use super::session::{self, Purpose};
use super::settings::PostgresSettings;
use super::write_groups::WriteGroups;
use crate::outbound::relational::FaultRecord;

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
    installation: Arc<InstallationCell>,
    pub(super) faults: Arc<FaultRecord>,
    retirement: Arc<Retirement>,
    pub(super) groups: Arc<WriteGroups>,
    /// Permits for connections outside the pool.
    new_connections: Arc<Semaphore>,
}

/// The maximum number of concurrent connections outside the pool.
const MAX_NEW_CONNECTIONS: usize = 4;

/// How long [`PostgresStore::close`] waits for work in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs work on a connection of the pool, and once more on a new connection if the first one may be the
/// reason why it fails. So failed work must leave nothing behind that disturbs a repetition.
///
/// A macro, because the compiler cannot see that the future of a function that calls an `AsyncFn` is
/// `Send`.
macro_rules! with_retry {
    ($store:expr, $work:expr) => {{
        let store = $store;
        let done = match store.with_connection($work).await {
            Err(failure) if failure.may_be_stale_connection() => {
                store.with_new_connection($work).await
            }
            done => done,
        };
        store.observed(done)
    }};
}
pub(super) use with_retry;

impl PostgresStore {
    /// A store at that URL. It opens connections on demand, so the database need not be reachable
    /// yet. Must be called within a Tokio runtime.
    ///
    /// `Rejected` if the URL cannot be parsed.
    pub fn lazy(settings: PostgresSettings) -> Result<Self, PortError> {
        let options: PgConnectOptions = settings.url.parse().map_err(PgFailure::from)?;
        // No other startup parameters than those that PgBouncer accepts by default. No column is a
        // floating-point number.
        let options = options.application_name("belfry").extra_float_digits(None);
        let retirement = Arc::<Retirement>::default();
        let pool = pool(&options, &settings, settings.max_connections, retirement.clone());
        let installation = Arc::<InstallationCell>::default();
        Ok(Self {
            notifier: Arc::new(CommitNotifier::start(pool.clone(), installation.clone())),
            pool,
            options,
            settings: Arc::new(settings),
            epoch: Arc::default(),
            installation,
            faults: Arc::default(),
            retirement,
            groups: Arc::default(),
            new_connections: Arc::new(Semaphore::new(MAX_NEW_CONNECTIONS)),
        })
    }

    /// The same store with a pool of its own, of that many connections. Callers of the two pools do
    /// not wait for each other. Each pool must be closed.
    #[must_use]
    pub fn separate_pool(&self, connections: u32) -> Self {
        let pool = pool(&self.options, &self.settings, connections, self.retirement.clone());
        Self { pool, groups: Arc::default(), ..self.clone() }
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
        check_server(&mut connection).await?;
        // Not `run`: its future is not `Send`.
        migrations().run_direct(None, &mut connection, false).await.map_err(PgFailure::from)?;
        connection.close().await.map_err(PgFailure::from)?;
        Ok(())
    }

    /// The installation that the connections of this store see. Fails before the first migration.
    pub(super) async fn installation(&self) -> Result<Installation, PgFailure> {
        self.installation.get(&self.pool).await
    }

    /// Closes the pool after the work in flight, or after five seconds. Later calls are
    /// `Unavailable`.
    pub async fn close(&self) {
        self.notifier.stop();
        // The end of the process cuts off what is still running; the server rolls it back.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.pool.close()).await;
    }

    /// Runs `work` on a connection of the pool, for at most [`PostgresSettings::work_timeout`]. A
    /// connection that may be the reason of a failure is closed; the others retire.
    pub(super) async fn with_connection<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, PgFailure>,
    ) -> Result<T, PgFailure> {
        let mut connection = self.pool.acquire().await?;
        let done = self.within_work_timeout(work(&mut connection)).await;
        match &done {
            Err(failure) if failure.may_be_stale_connection() => {
                connection.close_on_drop();
                self.retirement.retire_open_connections();
            }
            // The server is unreachable. Back in the pool, the connection would take up a slot until
            // TCP gives up, a quarter of an hour later.
            Err(PgFailure::Timeout(_)) => connection.close_on_drop(),
            _ => {}
        }
        done
    }

    /// Runs `work` on a new connection outside the pool. The pool may have more connections that fail in the
    /// same way: those that were opened since it last retired its connections.
    pub(super) async fn with_new_connection<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, PgFailure>,
    ) -> Result<T, PgFailure> {
        let connect_and_work = async {
            let _permit = self.new_connections.acquire().await.expect("it is never closed");
            let mut connection = self.options.connect().await?;
            session::parameters(Purpose::Store, &self.settings).apply(&mut connection).await?;
            let done = work(&mut connection).await;
            // The work is done. A connection that cannot be closed properly ends when it is dropped.
            let _ = connection.close().await;
            done
        };
        self.within_work_timeout(connect_and_work).await
    }

    async fn within_work_timeout<T>(
        &self,
        work: impl Future<Output = Result<T, PgFailure>>,
    ) -> Result<T, PgFailure> {
        let timeout = self.settings.work_timeout();
        let done = tokio::time::timeout(timeout, work).await;
        done.unwrap_or(Err(PgFailure::Timeout(timeout)))
    }

    /// Records the fault of the database, if one made the call fail.
    pub(super) fn observed<T>(&self, done: Result<T, PgFailure>) -> Result<T, PgFailure> {
        if let Err(failure) = &done
            && let Some(fault) = failure.fault()
        {
            self.faults.record(fault);
        }
        done
    }

    pub(super) async fn fetch_all<'q, T>(
        &self,
        query: impl Fn() -> QueryAs<'q, Postgres, T, PgArguments>,
    ) -> Result<Vec<T>, PgFailure>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        with_retry!(self, async |connection| Ok(query().fetch_all(connection).await?))
    }

    pub(super) async fn fetch_optional<'q, T>(
        &self,
        query: impl Fn() -> QueryAs<'q, Postgres, T, PgArguments>,
    ) -> Result<Option<T>, PgFailure>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        with_retry!(self, async |connection| Ok(query().fetch_optional(connection).await?))
    }

    pub(super) async fn fetch_scalar<'q, T>(
        &self,
        query: impl Fn() -> QueryScalar<'q, Postgres, T, PgArguments>,
    ) -> Result<T, PgFailure>
    where
        (T,): for<'r> FromRow<'r, PgRow>,
        T: Send + Unpin,
    {
        with_retry!(self, async |connection| Ok(query().fetch_one(connection).await?))
    }

    /// Returns the number of affected rows.
    pub(super) async fn execute<'q>(
        &self,
        query: impl Fn() -> Query<'q, Postgres, PgArguments>,
    ) -> Result<u64, PgFailure> {
        with_retry!(self, async |connection| Ok(query().execute(connection).await?.rows_affected()))
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("settings", &self.settings).finish_non_exhaustive()
    }
}
