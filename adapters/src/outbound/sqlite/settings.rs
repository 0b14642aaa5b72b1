use std::time::Duration;

/// Which file, and how long to wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteSettings {
    /// `sqlite://path/to/file.db`, or `sqlite::memory:` for a store that ends with the process.
    pub url: String,
    /// The most connections for questions, beside the one that writes.
    pub max_readers: u32,
    /// How long a piece of work waits for its turn before it is `Unavailable`.
    pub acquire_timeout: Duration,
    /// How long a change waits for somebody outside this process (a backup, say) to let go of the
    /// file.
    pub busy_timeout: Duration,
}

impl SqliteSettings {
    /// That file, with bounds that a healthy disk stays far from.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_readers: 4,
            acquire_timeout: Duration::from_secs(10),
            busy_timeout: Duration::from_secs(5),
        }
    }

    /// Whether there is no file at all.
    pub(super) fn is_in_memory(&self) -> bool {
        self.url.contains(":memory:") || self.url.contains("mode=memory")
    }
}
