//! Values that are loaded from files and reloaded when the files change.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Files, and how to load a value from them.
pub(crate) trait FileSource: Send + Sync + 'static {
    type Content: PartialEq + Send;
    type Value: Send + Sync;
    type Error: Error;

    /// Without files there is nothing to poll.
    fn has_files(&self) -> bool {
        true
    }

    /// Reads all files, or fails if one cannot be read. Blocks.
    fn read(&self) -> Result<Self::Content, Self::Error>;

    /// Loads the value from what [`read`](Self::read) returned.
    fn load(&self, content: &Self::Content) -> Result<Self::Value, Self::Error>;

    /// Called after each reload, to log it. After an error the old value stays in use.
    fn log_reload(&self, result: Result<&Self::Value, &Self::Error>);
}

/// A value that is loaded from files, as of the last reload without an error.
///
/// The files are read periodically and compared by content: a mounted secret is a symbolic link into a folder
/// that is replaced, and its mtime and inode need not change. A reload is all or nothing: if one file cannot be
/// read or used, the old value stays in use.
pub(crate) struct PolledFiles<S: FileSource> {
    source: S,
    current: RwLock<Arc<S::Value>>,
    /// The result of the last read, with the error as text: to detect a change, and to log an error only once.
    last_read: Mutex<Result<S::Content, String>>,
}

impl<S: FileSource> PolledFiles<S> {
    const POLL_INTERVAL: Duration = Duration::from_secs(5);

    /// Reads the files.
    pub(crate) fn open(source: S) -> Result<Self, S::Error> {
        let content = source.read()?;
        let current = RwLock::new(Arc::new(source.load(&content)?));
        Ok(Self { source, current, last_read: Mutex::new(Ok(content)) })
    }

    pub(crate) fn current(&self) -> Arc<S::Value> {
        self.current.read().clone()
    }

    /// Reloads changed files, and all files at once on `requested`, until `stop` is cancelled.
    pub(crate) async fn run(self: Arc<Self>, requested: &Notify, stop: &CancellationToken) {
        loop {
            let forced = tokio::select! {
                () = stop.cancelled() => return,
                () = requested.notified() => true,
                () = tokio::time::sleep(Self::POLL_INTERVAL), if self.source.has_files() => false,
            };
            let this = self.clone();
            // A network file system can block. After a panic the old value stays in use.
            let _ = tokio::task::spawn_blocking(move || this.reload(forced)).await;
        }
    }

    /// Reloads the files if they have changed. `forced`: even if they have not.
    pub(crate) fn reload(&self, forced: bool) {
        let read = self.source.read();
        let mut last_read = self.last_read.lock();
        let is_unchanged = match (&read, &*last_read) {
            (Ok(content), Ok(last)) => content == last,
            (Err(error), Err(last)) => error.to_string() == *last,
            _ => false,
        };
        if is_unchanged && !forced {
            return;
        }
        let loaded = match read {
            Ok(content) => {
                let loaded = self.source.load(&content);
                *last_read = Ok(content);
                loaded
            }
            Err(error) => {
                *last_read = Err(error.to_string());
                Err(error)
            }
        };
        self.source.log_reload(loaded.as_ref());
        if let Ok(value) = loaded {
            *self.current.write() = Arc::new(value);
        }
    }
}

/// Without the content, which may be secret.
impl<S: FileSource + fmt::Debug> fmt::Debug for PolledFiles<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolledFiles").field("source", &self.source).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number in a "file".
    #[derive(Default)]
    struct Number {
        file: Mutex<Option<&'static str>>,
        /// Whether each reload succeeded.
        reloads: Mutex<Vec<bool>>,
    }

    #[derive(Debug, thiserror::Error)]
    enum NoNumber {
        #[error("cannot read the file")]
        Missing,
        #[error("not a number")]
        Malformed,
    }

    impl FileSource for Arc<Number> {
        type Content = &'static str;
        type Value = u32;
        type Error = NoNumber;

        fn read(&self) -> Result<&'static str, NoNumber> {
            self.file.lock().ok_or(NoNumber::Missing)
        }

        fn load(&self, content: &&'static str) -> Result<u32, NoNumber> {
            content.parse().map_err(|_| NoNumber::Malformed)
        }

        fn log_reload(&self, result: Result<&u32, &NoNumber>) {
            self.reloads.lock().push(result.is_ok());
        }
    }

    fn number(file: &'static str) -> (Arc<Number>, PolledFiles<Arc<Number>>) {
        let number = Arc::new(Number::default());
        *number.file.lock() = Some(file);
        (number.clone(), PolledFiles::open(number).unwrap())
    }

    #[test]
    fn each_change_is_loaded_once_and_an_error_keeps_the_old_value() {
        let (number, polled) = number("1");
        for (file, value, reloads) in [
            (Some("1"), 1, 0),
            (Some("2"), 2, 1),
            (Some("two"), 2, 2),
            (None, 2, 3),
            (Some("two"), 2, 4),
            (Some("3"), 3, 5),
        ] {
            *number.file.lock() = file;
            for _ in 0..3 {
                polled.reload(false);
                assert_eq!(*polled.current(), value, "{file:?}");
                assert_eq!(number.reloads.lock().len(), reloads, "{file:?}");
            }
        }
        assert_eq!(*number.reloads.lock(), [true, false, false, false, true]);
    }

    #[test]
    fn forced_reload_loads_unchanged_files() {
        let (number, polled) = number("1");
        polled.reload(true);
        polled.reload(true);
        assert_eq!(*number.reloads.lock(), [true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_polled_and_reloaded_on_request_until_cancellation() {
        let (number, polled) = number("1");
        let (polled, requested, stop) =
            (Arc::new(polled), Arc::new(Notify::new()), CancellationToken::new());
        let polling = tokio::spawn({
            let (polled, requested, stop) = (polled.clone(), requested.clone(), stop.clone());
            async move { polled.run(&requested, &stop).await }
        });
        *number.file.lock() = Some("2");
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(*polled.current(), 2);
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(number.reloads.lock().len(), 1);
        requested.notify_one();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(number.reloads.lock().len(), 2);
        stop.cancel();
        polling.await.unwrap();
    }
}
