//! The database file, and who may open it.

use std::fs::{File, Metadata, TryLockError};
use std::path::Path;

use tracing::warn;

use super::failure::SqliteFailure;

/// Creates the file if it does not exist, and claims it for this process until the returned lock is
/// dropped. `None` if the file system has no locks.
pub(super) fn claim(path: &Path) -> Result<Option<File>, SqliteFailure> {
    create_private(path)?;
    // The lock is beside the file itself, not beside a symbolic link to it.
    let path = path.canonicalize()?;
    if link_count(&path.metadata()?) > 1 {
        return Err(SqliteFailure::HardLinks(path.display().to_string()));
    }
    lock(&path)
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

/// The number of names of a file. SQLite derives the name of its log from that of the file: under two
/// names the file has two logs, and two processes corrupt it.
#[cfg(unix)]
fn link_count(file: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(file)
}

#[cfg(not(unix))]
fn link_count(_: &Metadata) -> u64 {
    1
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
