use std::fs::{File, TryLockError};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use belfry_application::ports::PortError;
use belfry_domain::Epoch;
use sqlx::query::{QueryAs, QueryScalar};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{FromRow, Sqlite};
use tokio::sync::OnceCell;
use tracing::warn;

use super::commit_notifier::CommitNotifier;
use super::failure::SqliteFailure;
use super::settings::SqliteSettings;

/// Inboxes and their outbox in a file.
///
/// Clones share its connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    pub(super) notifier: Arc<CommitNotifier>,
    pub(super) epoch: Arc<OnceCell<Epoch>>,
    /// Keeps other processes out until the last clone is dropped. `None` in memory.
    _lock: Option<Arc<File>>,
}

/// How long [`SqliteStore::close`] waits for work in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl SqliteStore {
    /// Opens the file. Creates it, readable by its owner only, if it does not exist.
    ///
    /// `Rejected` if the URL cannot be parsed, the file cannot be created, or another process has
    /// it open. Two processes cannot share a file: events stay in the process, so the devices of
    /// one would not receive the changes of the other.
    pub async fn open(settings: SqliteSettings) -> Result<Self, PortError> {
        let options = SqliteConnectOptions::from_str(&settings.url)
            .map_err(SqliteFailure::from)?
            .create_if_missing(true)
            // The tables have no foreign keys.
            .foreign_keys(false)
            .busy_timeout(settings.busy_timeout)
            // Readers and the writer do not wait for each other.
            .journal_mode(SqliteJournalMode::Wal)
            // The log is on disk before a write is confirmed. With the common setting `NORMAL`, a
            // power failure loses the last confirmed writes.
            .synchronous(SqliteSynchronous::Full)
            // After a burst of writes, truncate the log to 64 MiB.
            .pragma("journal_size_limit", "67108864");
        let in_memory = settings.is_in_memory();
        let lock = if in_memory {
            None
        } else {
            let path = options.get_filename();
            create_private(path).map_err(SqliteFailure::from)?;
            lock(path)?
        };
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(settings.acquire_timeout)
            .test_before_acquire(false)
            // A database in memory lives as long as its connection.
            .idle_timeout(None)
            .max_lifetime(None)
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
            notifier: Arc::default(),
            epoch: Arc::default(),
            _lock: lock.map(Arc::new),
        })
    }

    /// Checks that the database answers.
    pub async fn ping(&self) -> Result<(), PortError> {
        sqlx::query("SELECT 1").execute(&self.readers).await.map_err(SqliteFailure::from)?;
        Ok(())
    }

    /// Runs the migrations.
    ///
    /// A schema that is newer than this version is left as it is. Migrations only add, so that a
    /// rollback to the previous version is possible.
    pub async fn migrate(&self) -> Result<(), PortError> {
        let mut migrations = sqlx::migrate!("../migrations/sqlite");
        migrations.set_ignore_missing(true);
        let migrated = migrations.run(&self.writer).await;
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

    pub(super) async fn fetch_all<T>(
        &self,
        query: QueryAs<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<Vec<T>, SqliteFailure>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        Ok(query.fetch_all(&self.readers).await?)
    }

    pub(super) async fn fetch_optional<T>(
        &self,
        query: QueryAs<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<Option<T>, SqliteFailure>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        Ok(query.fetch_optional(&self.readers).await?)
    }

    pub(super) async fn fetch_scalar<T>(
        &self,
        query: QueryScalar<'_, Sqlite, T, SqliteArguments>,
    ) -> Result<T, SqliteFailure>
    where
        (T,): for<'r> FromRow<'r, SqliteRow>,
        T: Send + Unpin,
    {
        Ok(query.fetch_one(&self.readers).await?)
    }
}

/// Creates an empty file that only its owner may read. SQLite gives its log and index the same
/// permissions. The permissions of an existing file stay as they are.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Locks a file beside the database. The operating system releases the lock when the process ends.
fn lock(path: &Path) -> Result<Option<File>, SqliteFailure> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push("-lock");
    create_private(Path::new(&lock_path))?;
    let file = File::options().write(true).open(&lock_path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(SqliteFailure::InUse(path.display().to_string())),
        Err(TryLockError::Error(error)) => {
            // Some network file systems have no locks. The operator must then prevent a second
            // process.
            warn!(%error, "cannot lock the database file against other processes");
            Ok(None)
        }
    }
}
