//! A running `belfry`.

use std::path::Path;
use std::process::ExitStatus;
use std::thread;

use rustix::process::Signal;
use tempfile::TempDir;

use super::launch::{
    Builder, Finished, SHUTDOWN_TIMEOUT, Serving, StartFailure, temporary_folder, text,
};
use crate::http::Http;
use crate::wait::PATIENCE;

/// A running `belfry` with a temporary folder of its own as its home and working directory.
///
/// Dropping it kills the process. If the test panics, the log is printed. If `belfry` has panicked, the test
/// fails.
#[derive(Debug)]
pub struct Belfry {
    serving: Serving,
    folder: TempDir,
}

impl Builder {
    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// When it exits before that or takes too long; the message has its log.
    pub async fn start(self) -> Belfry {
        self.try_start().await.unwrap_or_else(|failure| panic!("belfry did not start: {failure}"))
    }

    /// Starts it and waits until it serves or has exited.
    ///
    /// # Errors
    /// The exit status and the log, when it exited before it served.
    pub async fn try_start(self) -> Result<Belfry, StartFailure> {
        let folder = temporary_folder();
        let chooses_addresses = self.chooses_addresses();
        for _ in 0..5 {
            match self.clone().with_addresses().launch(folder.path()).await {
                // Another process took the chosen port in the meantime.
                Err(failure) if chooses_addresses && failure.port_was_taken() => {}
                Err(failure) => return Err(failure),
                Ok(serving) => return Ok(Belfry { serving, folder }),
            }
        }
        panic!("no free port in five tries");
    }
}

impl Belfry {
    /// Settings first, then [`start`](Builder::start). Without settings `belfry` runs as the embedded default:
    /// SQLite in its folder, and no broker.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The address for devices and services: `http://127.0.0.1:port`, `https://…` or `unix:…`.
    pub fn url(&self) -> &str {
        &self.serving.url
    }

    /// The address for metrics and admin routes: `http://127.0.0.1:port`.
    pub fn admin_url(&self) -> &str {
        &self.serving.admin_url
    }

    /// Requests to [`url`](Self::url).
    pub fn http(&self) -> Http {
        Http::new(self.url())
    }

    /// Requests to [`admin_url`](Self::admin_url).
    pub fn admin_http(&self) -> Http {
        Http::new(self.admin_url())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.serving.child.pid()
    }

    /// Its home and working directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs another command of the executable, such as `token`, with the same settings in the same folder, and
    /// waits for its exit.
    ///
    /// # Panics
    /// When it still runs after [`PATIENCE`], or has panicked.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        let mut builder = self.serving.builder.clone();
        builder.arguments = arguments.iter().map(Into::into).collect();
        builder.finish_in(self.folder()).await
    }

    /// Standard output and standard error since the last start.
    pub fn log(&self) -> String {
        text(&self.serving.child.lines())
    }

    /// Waits for a line of the log that contains these words, and returns the line.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    pub async fn log_line(&self, words: &str) -> String {
        let line = self
            .serving
            .child
            .wait_for(PATIENCE, |lines| lines.iter().find(|it| it.text.contains(words)).cloned())
            .await;
        line.unwrap_or_else(|why| panic!("no {words:?} in belfry's log: {why:?}")).text
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.serving.child.is_running()
    }

    /// SIGKILL, and waits for the exit.
    pub fn kill(&mut self) {
        self.serving.child.kill();
    }

    /// SIGSTOP: it keeps its connections and answers no request, until [`resume`](Self::resume).
    pub fn freeze(&mut self) {
        self.serving.child.signal(Signal::STOP);
    }

    /// SIGCONT
    pub fn resume(&mut self) {
        self.serving.child.signal(Signal::CONT);
    }

    /// SIGHUP
    pub fn send_sighup(&mut self) {
        self.serving.child.signal(Signal::HUP);
    }

    /// SIGTERM, without waiting for the exit.
    pub fn send_sigterm(&mut self) {
        self.serving.child.signal(Signal::TERM);
    }

    /// SIGTERM, and waits for the exit.
    ///
    /// # Panics
    /// When it does not exit, or has panicked.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.send_sigterm();
        let status = self.serving.child.wait_for_exit(SHUTDOWN_TIMEOUT).await;
        let status = status
            .unwrap_or_else(|| panic!("belfry still runs {SHUTDOWN_TIMEOUT:?} after SIGTERM"));
        self.serving.child.drain_output().await;
        self.assert_no_panic();
        status
    }

    /// Starts it again with the same settings, addresses and folder; kills it first if it still runs.
    ///
    /// # Panics
    /// When it does not start, or has panicked before.
    pub async fn restart(&mut self) {
        self.kill();
        self.serving.child.drain_output().await;
        self.assert_no_panic();
        // The address in a URL, without the base path, which is a separate setting.
        let listen = |url: &str| {
            let address = url.split_once("://").map(|(_, it)| it.split('/').next().unwrap_or(it));
            address.unwrap_or(url).to_owned()
        };
        let builder = self.serving.builder.clone();
        let builder = builder
            .setting("http.listen", listen(&self.serving.url))
            .setting("admin.listen", listen(&self.serving.admin_url));
        self.serving = builder
            .launch(self.folder.path())
            .await
            .unwrap_or_else(|failure| panic!("belfry did not start again: {failure}"));
    }

    fn assert_no_panic(&self) {
        let log = self.log();
        assert!(!log.contains("panicked at"), "belfry panicked:\n{log}");
    }
}

impl Drop for Belfry {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- belfry's log ({}):\n{}\n---", self.url(), self.log());
        } else {
            self.assert_no_panic();
        }
    }
}
