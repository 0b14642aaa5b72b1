//! SQLite as the store: one file for one process, nothing to install. The embedded default, and a
//! fit place for an inbox of any size that one machine serves.
//!
//! Changes go one after another through the one connection that writes, as SQLite has it anyway;
//! questions have connections of their own and wait for nobody (write-ahead log).

mod create;
mod edit;
mod failure;
mod inbox_repository;
mod outbox;
mod retention;
mod revocations;
mod settings;
#[cfg(test)]
mod tests;
mod write;

pub use settings::SqliteSettings;

use std::fs::{File, TryLockError};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use belfry_application::ports::PortError;
use belfry_domain::Epoch;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::OnceCell;
use tracing::warn;

use failure::Failure;
use outbox::Shared;

/// Inboxes and their outbox in a file.
///
/// Clones share its connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    shared: Arc<Shared>,
    epoch: Arc<OnceCell<Epoch>>,
    /// Keeps other processes out until the last clone goes. None in memory.
    _lock: Option<Arc<File>>,
}

impl SqliteStore {
    /// Opens the file, and makes it if there is none, for nobody's eyes but its owner's.
    ///
    /// `Rejected` if the URL cannot be understood, the file cannot be made, or another process has it
    /// open: that one's devices would not hear of what this one does, as events stay in the process.
    pub async fn open(settings: SqliteSettings) -> Result<Self, PortError> {
        let options = SqliteConnectOptions::from_str(&settings.url)
            .map_err(Failure::from)?
            .create_if_missing(true)
            // Nothing to a table without foreign keys.
            .foreign_keys(false)
            .busy_timeout(settings.busy_timeout)
            // Readers and the writer do not wait for each other.
            .journal_mode(SqliteJournalMode::Wal)
            // The log is on disk before a change is confirmed. With `NORMAL`, the default of many,
            // the last changes before a power failure would be lost although they were answered.
            .synchronous(SqliteSynchronous::Full)
            // A burst of changes makes the log grow; afterwards the disk gets its space back.
            .pragma("journal_size_limit", "67108864");
        let in_memory = settings.is_in_memory();
        let lock = if in_memory {
            None
        } else {
            let path = options.get_filename();
            make_private(path).map_err(Failure::from)?;
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
            .map_err(Failure::from)?;
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
            shared: Arc::default(),
            epoch: Arc::default(),
            _lock: lock.map(Arc::new),
        })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), PortError> {
        sqlx::query("SELECT 1").execute(&self.readers).await.map_err(Failure::from)?;
        Ok(())
    }

    /// Brings the tables to the form that this Belfry knows.
    ///
    /// A file that is ahead is taken as it is: migrations only add, so that a Belfry can be replaced
    /// by the one before it.
    pub async fn migrate(&self) -> Result<(), PortError> {
        let mut migrations = sqlx::migrate!("../migrations/sqlite");
        migrations.set_ignore_missing(true);
        let migrated = migrations.run(&self.writer).await;
        Ok(migrated.map_err(Failure::from)?)
    }

    /// Closes the file, after the work under way or five seconds. What is asked afterwards is
    /// `Unavailable`.
    pub async fn close(&self) {
        let both = async {
            self.readers.close().await;
            self.writer.close().await;
        };
        // Whatever is not done by then is undone the next time the file is opened.
        let _ = tokio::time::timeout(Duration::from_secs(5), both).await;
    }
}

/// Makes an empty file that only its owner may read; SQLite gives its log and index the same rights.
/// The rights of a file that is there already are its owner's business.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Locks a file beside the database. The lock goes with the process, however that ends.
fn lock(path: &Path) -> Result<Option<File>, Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push("-lock");
    make_private(Path::new(&beside))?;
    let file = File::options().write(true).open(&beside)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Failure::InUse(path.display().to_string())),
        Err(TryLockError::Error(error)) => {
            // Some network file systems have no locks. Two processes are then the operator's fault.
            warn!(%error, "the database file cannot be locked against other processes");
            Ok(None)
        }
    }
}
