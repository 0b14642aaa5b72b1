//! Values that are loaded from files and reloaded when the files change.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A set of files, and how to load a value from their content.
pub(crate) trait FileSource: Send + Sync + 'static {
    type Content: PartialEq + Send;
    type Value: Send + Sync;
    type Error: Error;

    /// `false` if no file is configured. Then nothing is polled.
    fn has_files(&self) -> bool {
        true
    }

    /// Reads all files, or fails if one cannot be read. Blocks.
    fn read(&self) -> Result<Self::Content, Self::Error>;

    /// Loads the value from the content that [`read`](Self::read) returned.
    fn load(&self, content: &Self::Content) -> Result<Self::Value, Self::Error>;

    /// Logs the result of a reload. After an error, the old value stays in use.
    fn log_reload(&self, result: Result<&Self::Value, &Self::Error>);
}

/// A value that is loaded from files, as of the last reload without an error.
///
/// The files are read periodically and compared by content. Modification time and inode are not sufficient: a
/// mounted secret is a symbolic link into a folder that is replaced, and the link itself need not change. A
/// reload is all or nothing: if one file cannot be read or used, the old value stays in use.
pub(crate) struct PolledFiles<S: FileSource> {
    source: S,
    current: RwLock<Arc<S::Value>>,
    /// The result of the last read, to detect changes. An error is stored as text, so that it is logged only
    /// once.
    last_read: Mutex<Result<S::Content, String>>,
}

impl<S: FileSource> PolledFiles<S> {
    const POLL_INTERVAL: Duration = Duration::from_secs(5);

    /// Loads the value for the first time.
    pub(crate) fn open(source: S) -> Result<Self, S::Error> {
        let content = source.read()?;
        let current = RwLock::new(Arc::new(source.load(&content)?));
        Ok(Self { source, current, last_read: Mutex::new(Ok(content)) })
    }

    pub(crate) fn current(&self) -> Arc<S::Value> {
        self.current.read().clone()
    }

    /// Polls the files until `stop` is cancelled, and reloads them after a change. A notification of `requested`
    /// reloads them immediately, even if they have not changed.
    pub(crate) async fn run(self: Arc<Self>, requested: &Notify, stop: &CancellationToken) {
        loop {
            let forced = tokio::select! {
                () = stop.cancelled() => return,
                () = requested.notified() => true,
                () = tokio::time::sleep(Self::POLL_INTERVAL), if self.source.has_files() => false,
            };
            let this = self.clone();
            // Reading from a network file system can block. After a panic, the old value stays in use.
            let _ = tokio::task::spawn_blocking(move || this.reload(forced)).await;
        }
    }

    /// Reads the files, and loads them if they have changed or if the reload is `forced`.
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

/// Omits the content, which may be secret.
impl<S: FileSource + fmt::Debug> fmt::Debug for PolledFiles<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolledFiles").field("source", &self.source).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that contains a number.
    #[derive(Default)]
    struct NumberFile {
        /// `None` if the file is missing.
        content: Mutex<Option<&'static str>>,
        /// For each reload, whether it succeeded.
        reloads: Mutex<Vec<bool>>,
    }

    #[derive(Debug, thiserror::Error)]
    enum NoNumber {
        #[error("cannot read the file")]
        Missing,
        #[error("not a number")]
        Malformed,
    }

    impl FileSource for Arc<NumberFile> {
        type Content = &'static str;
        type Value = u32;
        type Error = NoNumber;

        fn read(&self) -> Result<&'static str, NoNumber> {
            self.content.lock().ok_or(NoNumber::Missing)
        }

        fn load(&self, content: &&'static str) -> Result<u32, NoNumber> {
            content.parse().map_err(|_| NoNumber::Malformed)
        }

        fn log_reload(&self, result: Result<&u32, &NoNumber>) {
            self.reloads.lock().push(result.is_ok());
        }
    }

    fn polled_file(content: &'static str) -> (Arc<NumberFile>, PolledFiles<Arc<NumberFile>>) {
        let file = Arc::new(NumberFile::default());
        *file.content.lock() = Some(content);
        (file.clone(), PolledFiles::open(file).unwrap())
    }

    #[test]
    fn each_change_is_loaded_once_and_an_error_keeps_the_old_value() {
        let (file, polled) = polled_file("1");
        for (content, value, reloads) in [
            (Some("1"), 1, 0),
            (Some("2"), 2, 1),
            (Some("two"), 2, 2),
            (None, 2, 3),
            (Some("two"), 2, 4),
            (Some("3"), 3, 5),
        ] {
            *file.content.lock() = content;
            for _ in 0..3 {
                polled.reload(false);
                assert_eq!(*polled.current(), value, "{content:?}");
                assert_eq!(file.reloads.lock().len(), reloads, "{content:?}");
            }
        }
        assert_eq!(*file.reloads.lock(), [true, false, false, false, true]);
    }

    #[test]
    fn forced_reload_loads_unchanged_files() {
        let (file, polled) = polled_file("1");
        polled.reload(true);
        polled.reload(true);
        assert_eq!(*file.reloads.lock(), [true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_polled_and_reloaded_on_request_until_cancellation() {
        let (file, polled) = polled_file("1");
        let (polled, requested, stop) =
            (Arc::new(polled), Arc::new(Notify::new()), CancellationToken::new());
        let polling = tokio::spawn({
            let (polled, requested, stop) = (polled.clone(), requested.clone(), stop.clone());
            async move { polled.run(&requested, &stop).await }
        });
        *file.content.lock() = Some("2");
        // Longer than the interval of polls, which is 5 seconds.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(*polled.current(), 2);
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(file.reloads.lock().len(), 1);
        requested.notify_one();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(file.reloads.lock().len(), 2);
        stop.cancel();
        polling.await.unwrap();
    }
}
