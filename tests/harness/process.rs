//! The real `belfry`, run as a child process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::child::{Line, NoLine, Spawned, Stream};
use crate::http::Http;
use crate::rabbit::Broker;
use crate::servers::free_port;
use crate::{binaries, wait::PATIENCE};

/// How long it may take to end once it is told to.
const ORDERLY: Duration = Duration::from_secs(45);

const LISTEN: [&str; 2] = ["BELFRY_HTTP__LISTEN", "BELFRY_ADMIN__LISTEN"];

const PUBLIC: &str = "listening on ";
const ADMIN: &str = "admin on ";

/// The executable: `BELFRY_TEST_BINARY`, else the one of this build, brought up to date once.
fn binary() -> &'static Path {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let binary = BINARY.get_or_init(|| match std::env::var_os("BELFRY_TEST_BINARY") {
        Some(path) => Ok(path.into()),
        // Also where it exists: an old one would pass or fail for yesterday's code.
        None => binaries::build("belfry", "belfry"),
    });
    binary.as_deref().unwrap_or_else(|sentence| panic!("{sentence}"))
}

/// What to start `belfry` with. Nothing of the surrounding environment reaches it.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    variables: BTreeMap<String, OsString>,
    arguments: Vec<OsString>,
    /// Another program in the place of `belfry`.
    program: Option<PathBuf>,
}

impl Builder {
    /// `database.url`
    #[must_use]
    pub fn database(self, url: &str) -> Self {
        self.setting("database.url", url)
    }

    /// `amqp.url`
    #[must_use]
    pub fn amqp(self, url: &str) -> Self {
        self.setting("amqp.url", url)
    }

    /// `amqp.url` and the names that begin with this test's prefix.
    #[must_use]
    pub fn broker(self, broker: &Broker) -> Self {
        self.amqp(broker.url())
            .setting("amqp.ingest.queue", broker.ingest_queue())
            .setting("amqp.events.exchange", broker.events_exchange())
            .setting("amqp.node.queue_prefix", broker.name("node"))
    }

    /// Any setting by its path, such as `amqp.ingest.mode`.
    #[must_use]
    pub fn setting(self, path: &str, value: impl fmt::Display) -> Self {
        let variable = format!("BELFRY_{}", path.replace('.', "__").to_uppercase());
        self.env(&variable, value.to_string())
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// A command line argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// This executable in the place of the one that tests run.
    #[must_use]
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// When it ends before that or takes too long; its log is told.
    pub async fn start(self) -> Belfry {
        self.try_start().await.unwrap_or_else(|refused| panic!("belfry did not start: {refused}"))
    }

    /// Starts it and waits until it serves or has ended.
    ///
    /// # Errors
    /// How it ended and what it said, when it ended before it served.
    pub async fn try_start(self) -> Result<Belfry, Refused> {
        let folder = TempDir::with_prefix("belfry-test-").expect("a temporary folder can be had");
        let chosen = LISTEN.iter().any(|variable| !self.variables.contains_key(*variable));
        for _ in 0..5 {
            match self.clone().with_addresses().launch(folder.path()).await {
                // Somebody else was faster with the chosen port.
                Err(refused) if chosen && refused.port_was_taken() => {}
                Err(refused) => return Err(refused),
                Ok(serving) => return Ok(Belfry { serving, folder }),
            }
        }
        panic!("no free port in five tries");
    }

    /// Ports that are free again when the process is (see [`free_port`]), where the test has not chosen
    /// any itself.
    fn with_addresses(mut self) -> Self {
        for variable in LISTEN {
            let variable = self.variables.entry(variable.to_owned());
            variable.or_insert_with(|| format!("127.0.0.1:{}", free_port()).into());
        }
        self
    }

    /// Starts it with these arguments, such as `--help`, and waits until it has ended by itself.
    ///
    /// # Panics
    /// When it still runs after [`PATIENCE`], or has panicked.
    pub async fn finish(self) -> Finished {
        let folder = TempDir::with_prefix("belfry-test-").expect("a temporary folder can be had");
        self.finish_in(folder.path()).await
    }

    async fn finish_in(self, folder: &Path) -> Finished {
        let mut child = Spawned::new(&mut self.command(folder), None).expect("belfry can be run");
        let status = child.ended(PATIENCE).await;
        let status = status.unwrap_or_else(|| panic!("it does not end: {}", text(&child.lines())));
        child.all_read().await;
        let (out, err): (Vec<Line>, Vec<Line>) =
            child.lines().into_iter().partition(|line| line.stream == Stream::Out);
        let finished = Finished { status, out: text(&out), err: text(&err) };
        assert!(!finished.err.contains("panicked at"), "belfry panicked:\n{}", finished.err);
        finished
    }

    fn command(&self, folder: &Path) -> Command {
        let program = self.program.clone();
        let mut command = Command::new(program.unwrap_or_else(|| binary().to_owned()));
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .env("BELFRY_LOG__FORMAT", "json")
            .envs(&self.variables)
            .current_dir(folder);
        command
    }

    async fn launch(self, folder: &Path) -> Result<Serving, Refused> {
        let mut child =
            Spawned::new(&mut self.command(folder), Some(folder)).expect("belfry can be run");
        let addresses = child
            .wait_for(PATIENCE, |lines| Some((address(lines, PUBLIC)?, address(lines, ADMIN)?)))
            .await;
        match addresses {
            Ok((url, admin_url)) => Ok(Serving { builder: self, child, url, admin_url }),
            Err(why) => {
                if why == NoLine::TooLate {
                    child.kill();
                }
                let status = child.ended(ORDERLY).await;
                child.all_read().await;
                Err(Refused { status, log: text(&child.lines()) })
            }
        }
    }
}

/// The address that follows these words on one of the lines of standard output.
fn address(lines: &[Line], words: &str) -> Option<String> {
    lines.iter().filter(|line| line.stream == Stream::Out).find_map(|line| {
        let (_, rest) = line.text.split_once(words)?;
        let address = rest.split(|c: char| c.is_whitespace() || c == '"').next()?;
        let is_one = ["http://", "https://", "unix:"].iter().any(|it| address.starts_with(it));
        is_one.then(|| address.trim_end_matches('/').to_owned())
    })
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
}

/// It ended before it served.
#[derive(Debug)]
pub struct Refused {
    /// How it ended; `None` if it hung and was killed.
    pub status: Option<ExitStatus>,
    /// Everything it wrote.
    pub log: String,
}

impl Refused {
    fn port_was_taken(&self) -> bool {
        self.log.contains("os error 98") || self.log.contains("Address already in use")
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}\n{}", self.log),
            None => write!(f, "not serving after {PATIENCE:?}\n{}", self.log),
        }
    }
}

/// It ended by itself.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

#[derive(Debug)]
struct Serving {
    builder: Builder,
    child: Spawned,
    url: String,
    admin_url: String,
}

/// A running `belfry` with a temporary folder of its own as its home and working directory.
///
/// Dropping it kills it. A test that panics is told its log, and a test fails in which it panicked.
#[derive(Debug)]
pub struct Belfry {
    serving: Serving,
    folder: TempDir,
}

impl Belfry {
    /// Settings first, then [`start`](Builder::start). Without any it is the embedded default: SQLite in
    /// its folder, no broker.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it serves devices and services: `http://127.0.0.1:port`, `https://…` or `unix:…`.
    pub fn url(&self) -> &str {
        &self.serving.url
    }

    /// Where it serves metrics and admin routes: `http://127.0.0.1:port`.
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

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.serving.child.pid()
    }

    /// Its home and working directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs another command of it to its end, such as `token`, with the same settings in the same
    /// folder.
    ///
    /// # Panics
    /// When it still runs after [`PATIENCE`], or has panicked.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        let mut builder = self.serving.builder.clone();
        builder.arguments = arguments.iter().map(Into::into).collect();
        builder.finish_in(self.folder()).await
    }

    /// Everything it has written to standard output and standard error since its last start.
    pub fn log(&self) -> String {
        text(&self.serving.child.lines())
    }

    /// Waits until its log has a line with these words, and gives the line.
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

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.serving.child.kill();
    }

    /// SIGSTOP: it holds its connections and answers nobody, until [`resume`](Self::resume).
    pub fn freeze(&mut self) {
        self.serving.child.signal(Signal::STOP);
    }

    /// SIGCONT
    pub fn resume(&mut self) {
        self.serving.child.signal(Signal::CONT);
    }

    /// SIGHUP
    pub fn hang_up(&mut self) {
        self.serving.child.signal(Signal::HUP);
    }

    /// SIGTERM, and no more.
    pub fn tell_to_stop(&mut self) {
        self.serving.child.signal(Signal::TERM);
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Panics
    /// When it does not end, or has panicked.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.tell_to_stop();
        let status = self.serving.child.ended(ORDERLY).await;
        let status =
            status.unwrap_or_else(|| panic!("belfry still runs {ORDERLY:?} after SIGTERM"));
        self.serving.child.all_read().await;
        self.must_not_have_panicked();
        status
    }

    /// Starts it again with the same settings, addresses and folder; kills it first if it still runs.
    ///
    /// # Panics
    /// When it does not start, or has panicked before.
    pub async fn restart(&mut self) {
        self.kill();
        self.serving.child.all_read().await;
        self.must_not_have_panicked();
        // Without the base path, which is a setting of its own.
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
            .unwrap_or_else(|refused| panic!("belfry did not start again: {refused}"));
    }

    fn must_not_have_panicked(&self) {
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
            self.must_not_have_panicked();
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, test_kill_process};

    use super::*;
    use crate::wait::until_true;

    /// A shell in the place of `belfry`, which does this after it has said where it serves.
    ///
    /// It is not a script written here: while a test beside this one starts a child, that child holds
    /// whatever file is open for writing, and such a file cannot be run (`ETXTBSY`, execve(2)).
    fn builder(then: &str) -> Builder {
        let says = "echo listening on http://127.0.0.1:1/; echo admin on http://127.0.0.1:2";
        shell(&format!("{says}\n{then}"))
    }

    fn shell(script: &str) -> Builder {
        Belfry::builder().program(Path::new("/bin/sh")).arg("-c").arg(script)
    }

    #[tokio::test]
    async fn its_addresses_are_read_from_what_it_says() {
        let belfry = builder("exec sleep 60").start().await;
        assert_eq!(belfry.url(), "http://127.0.0.1:1");
        assert_eq!(belfry.admin_url(), "http://127.0.0.1:2");
    }

    #[tokio::test]
    async fn it_sees_its_settings_and_nothing_of_the_environment() {
        let builder = builder("env; echo complete; exec sleep 60");
        let belfry = builder.setting("amqp.ingest.mode", "forward").start().await;
        belfry.log_line("complete").await;
        let log = belfry.log();
        assert!(log.contains("BELFRY_AMQP__INGEST__MODE=forward"), "{log}");
        assert!(!log.contains("CARGO"), "{log}");
    }

    #[tokio::test]
    async fn one_that_ends_instead_of_serving_is_told_with_its_status_and_words() {
        let refused = shell("echo no such setting >&2; exit 3").try_start().await.unwrap_err();
        assert_eq!(refused.status.unwrap().code(), Some(3));
        assert_eq!(refused.log, "no such setting");
    }

    #[tokio::test]
    async fn it_can_end_in_good_order_and_start_again() {
        let then = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done";
        let mut belfry = builder(then).start().await;
        // A signal before that ends it as it stands.
        belfry.log_line("ready").await;
        let first = belfry.pid();
        assert_eq!(belfry.terminate().await.code(), Some(0));
        assert!(belfry.log().ends_with("bye"));
        belfry.restart().await;
        assert_ne!(belfry.pid(), first);
        assert!(belfry.is_running());
    }

    #[tokio::test]
    #[should_panic(expected = "belfry panicked")]
    async fn a_test_fails_in_which_it_panicked() {
        let then = "echo thread main panicked at src/main.rs >&2; exec sleep 60";
        let belfry = builder(then).start().await;
        belfry.log_line("panicked").await;
    }

    #[tokio::test]
    async fn it_goes_with_a_killed_test_process() {
        const TO_BE_KILLED: &str = "BELFRY_TEST_TO_BE_KILLED";
        if std::env::var_os(TO_BE_KILLED).is_some() {
            let belfry = builder("exec sleep 60").start().await;
            println!("\npid {} {}", belfry.pid(), belfry.folder().display());
            return tokio::time::sleep(Duration::from_mins(1)).await;
        }
        let this_test = "process::tests::it_goes_with_a_killed_test_process";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", this_test]);
        command.env(TO_BE_KILLED, "1");
        let mut test = Spawned::new(&mut command, None).unwrap();
        let told = test.wait_for(PATIENCE, |lines| {
            let mut lines = lines.iter();
            lines.find_map(|line| line.text.strip_prefix("pid ").map(str::to_owned))
        });
        let told = told.await.unwrap();
        let (pid, folder) = told.split_once(' ').unwrap();
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        test_kill_process(pid).expect("it runs");
        test.kill();
        until_true("it is gone", async || is_gone(pid)).await;
        let folder = Path::new(folder);
        until_true("its folder is gone", async || !folder.exists()).await;
    }

    /// A machine whose first process reaps no orphans keeps their entries.
    fn is_gone(pid: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        stat.map_or(true, |stat| stat.contains(") Z "))
    }
}
