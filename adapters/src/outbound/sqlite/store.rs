use std::fs::File;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belfry_application::ports::PortError;
use belfry_domain::Epoch;
use sqlx::migrate::Migrator;
use sqlx::query::{QueryAs, QueryScalar};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{Connection as _, FromRow, Sqlite, SqliteConnection};
use tokio::sync::OnceCell;

use super::commit_notifier::CommitNotifier;
use super::failure::SqliteFailure;
use super::file;
use super::inbox_write::InboxWrite;
use super::settings::SqliteSettings;
use crate::outbound::relational::{FaultRecord, GroupCommit};

/// Inboxes and their outbox in a file.
///
/// Clones share its connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    pub(super) writes: Arc<GroupCommit<InboxWrite>>,
    pub(super) notifier: Arc<CommitNotifier>,
    pub(super) epoch: Arc<OnceCell<Epoch>>,
    pub(super) faults: Arc<FaultRecord>,
    /// Whether the writer's connection may be within a transaction, or commit less durably, because its last work
    /// failed or was cancelled.
    needs_reset: Arc<AtomicBool>,
    in_memory: bool,
    /// Keeps other processes out until the last clone is dropped. `None` in memory.
    _lock: Option<Arc<File>>,
}

/// How long [`SqliteStore::close`] waits for work in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The log is on disk before a write is confirmed. With the common setting `NORMAL`, a power failure loses the
/// last confirmed writes.
pub(super) const DURABLE_COMMITS: &str = "PRAGMA synchronous = FULL";

impl SqliteStore {
    /// Opens the file. Creates it, readable by its owner only, if it does not exist.
    ///
    /// `Rejected` if the URL cannot be parsed, the file cannot be created, has another name (a hard
    /// link), or another process has it open. Two processes cannot share a file: events stay in the
    /// process, so the devices of one would not receive the changes of the other.
    pub async fn open(settings: SqliteSettings) -> Result<Self, PortError> {
        let options = SqliteConnectOptions::from_str(&settings.url)
            .map_err(SqliteFailure::from)?
            .create_if_missing(true)
            // The tables have no foreign keys.
            .foreign_keys(false)
            .busy_timeout(settings.busy_timeout)
            // Readers and the writer do not wait for each other.
            .journal_mode(SqliteJournalMode::Wal)
            // As `DURABLE_COMMITS`.
            .synchronous(SqliteSynchronous::Full)
            // Overwrites deleted texts in the file with zeros.
            .pragma("secure_delete", "on")
            // Copies the log into the file after 16 MiB instead of 4, so that a page which changes often is copied
            // less often.
            .pragma("wal_autocheckpoint", "4096")
            // After a burst of writes, truncate the log to 64 MiB.
            .pragma("journal_size_limit", "67108864");
        let in_memory = settings.is_in_memory();
        let lock = if in_memory { None } else { file::claim(options.get_filename())? };
        let needs_reset = Arc::new(AtomicBool::new(false));
        let after_failure = Arc::clone(&needs_reset);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(settings.acquire_timeout)
            .test_before_acquire(false)
            // A database in memory lives as long as its connection.
            .idle_timeout(None)
            .max_lifetime(None)
            .after_release(move |connection, _| {
                let usable = in_memory || !after_failure.swap(false, Ordering::AcqRel);
                Box::pin(async move { Ok(usable || reset(connection).await?) })
            })
            .connect_with(options.clone())
            .await
            .map_err(SqliteFailure::from)?;
        let readers = if in_memory {
            writer.clone()
        } else {
            SqlitePoolOptions::new()
                .max_connections(settings.max_readers)
                .acquire_timeout(settings.acquire_timeout)
                .test_before_acquire(false)
                .connect_lazy_with(options.pragma("query_only", "on"))
        };
        Ok(Self {
            writer,
            readers,
            writes: Arc::default(),
            notifier: Arc::default(),
            epoch: Arc::default(),
            faults: Arc::default(),
            needs_reset,
            in_memory,
            _lock: lock.map(Arc::new),
        })
    }

    /// Runs the migrations.
    ///
    /// A schema that is newer than this version is left as it is. Migrations only add, so that a
    /// rollback to the previous version is possible.
    pub async fn migrate(&self) -> Result<(), PortError> {
        self.needs_reset.store(true, Ordering::Release);
        let migrated = migrations().run(&self.writer).await;
        Ok(migrated.map_err(SqliteFailure::from)?)
    }

    /// Closes the file after the work in flight, or after five seconds. Later calls are
    /// `Unavailable`.
    pub async fn close(&self) {
        let both = async {
            self.readers.close().await;
            self.writer.close().await;
        };
        // The next open rolls back an unfinished write.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, both).await;
    }

    /// Runs `work` on the connection that writes.
    pub(super) async fn with_writer<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, SqliteFailure>,
    ) -> Result<T, SqliteFailure> {
        self.with_connection(&self.writer, async |connection| {
            self.needs_reset.store(true, Ordering::Release);
            let done = work(connection).await?;
            self.needs_reset.store(false, Ordering::Release);
            Ok(done)
        })
        .await
    }

    /// Runs `work` on a connection of the pool. A connection on which the file fails is closed: it
    /// may have opened the file while that could only be read, or have lost track of it.
    async fn with_connection<T>(
        &self,
        pool: &SqlitePool,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, SqliteFailure>,
    ) -> Result<T, SqliteFailure> {
        let done = async {
            let mut connection = pool.acquire().await?;
            let done = work(&mut connection).await;
            if matches!(&done, Err(failure) if failure.fault().is_some()) && !self.in_memory {
                connection.close_on_drop();
            }
            done
        }
        .await;
        if let Err(failure) = &done
            && let Some(fault) = failure.fault()
        {
            self.faults.record(fault);
        }
        done
    }

    pub(super) async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, SqliteFailure>,
    ) -> Result<T, SqliteFailure> {
        self.with_connection(&self.readers, work).await
    }

    pub(super) async fn fetch_all<T>(
        &self,
        query: QueryAs<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<Vec<T>, SqliteFailure>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        self.read(async |connection| Ok(query.fetch_all(connection).await?)).await
    }

    pub(super) async fn fetch_optional<T>(
        &self,
        query: QueryAs<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<Option<T>, SqliteFailure>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        self.read(async |connection| Ok(query.fetch_optional(connection).await?)).await
    }

    pub(super) async fn fetch_scalar<T>(
        &self,
        query: QueryScalar<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<T, SqliteFailure>
    where
        (T,): for<'r> FromRow<'r, SqliteRow>,
        T: Send + Unpin,
    {
        self.read(async |connection| Ok(query.fetch_one(connection).await?)).await
    }
}

/// Makes commits durable again, and returns whether the connection is out of its transaction. A connection on
/// which a rollback failed counts as within it for ever and cannot begin another. That happens whenever SQLite
/// has rolled back by itself (<https://sqlite.org/lang_transaction.html>: full disk, I/O error, no memory).
async fn reset(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // It follows a rollback that a dropped transaction has queued, and fails within a transaction.
    sqlx::query(DURABLE_COMMITS).execute(&mut *connection).await?;
    Ok(!connection.is_in_transaction())
}

pub(super) fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!("../migrations/sqlite");
    migrations.set_ignore_missing(true);
    migrations
}
