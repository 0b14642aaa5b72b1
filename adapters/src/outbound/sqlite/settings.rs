use std::time::Duration;

/// The file, and timeouts for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteSettings {
    /// `sqlite://path/to/file.db`, or `sqlite::memory:` for a store that ends with the process.
    pub url: String,
    /// The most connections for reads, in addition to the one that writes.
    pub max_readers: u32,
    /// How long a call waits for a connection before it is `Unavailable`.
    pub acquire_timeout: Duration,
    /// How long a write waits for another process (such as a backup) to release the file.
    pub busy_timeout: Duration,
}

impl SqliteSettings {
    /// That file, with timeouts that a healthy disk does not reach.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_readers: 4,
            acquire_timeout: Duration::from_secs(10),
            busy_timeout: Duration::from_secs(5),
        }
    }

    pub(super) fn is_in_memory(&self) -> bool {
        self.url.contains(":memory:") || self.url.contains("mode=memory")
    }
}
