//! The settings and arguments of a `belfry` process, and its start.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use crate::child::{ChildProcess, NoOutput, OutputLine, Stream};
use crate::rabbit::Broker;
use crate::servers::free_port;
use crate::{binaries, wait::PATIENCE};

/// How long a test waits for a graceful shutdown.
pub(super) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(45);

/// The variables of the two listen addresses.
const LISTEN: [&str; 2] = ["BELFRY_HTTP__LISTEN", "BELFRY_ADMIN__LISTEN"];

/// The words on standard output that precede the address for devices and services.
const PUBLIC: &str = "listening on ";

/// The words on standard output that precede the address for metrics and admin routes.
const ADMIN: &str = "admin on ";

/// The executable: `BELFRY_TEST_BINARY` if it is set, else the one of this build, which the first call builds.
fn binary() -> &'static Path {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let binary = BINARY.get_or_init(|| match std::env::var_os("BELFRY_TEST_BINARY") {
        Some(path) => Ok(path.into()),
        // Even if the executable exists: an old one would test old code.
        None => binaries::build("belfry", "belfry"),
    });
    binary.as_deref().unwrap_or_else(|sentence| panic!("{sentence}"))
}

/// The configuration of a `belfry` that is not started yet. Of the test's environment it inherits only `PATH`.
///
/// The default of `auth.leeway` is 0s here: the tests and `belfry` share a clock, and some tokens of tests are
/// valid for a few seconds only.
#[derive(Debug, Clone)]
pub struct Builder {
    variables: BTreeMap<String, OsString>,
    pub(super) arguments: Vec<OsString>,
    /// The program that runs instead of `belfry`.
    program: Option<PathBuf>,
    /// A program and its arguments, such as `env`, which then executes `belfry` with `arguments`.
    wrapper: Vec<OsString>,
}

impl Default for Builder {
    fn default() -> Self {
        let empty = Self {
            variables: BTreeMap::new(),
            arguments: Vec::new(),
            program: None,
            wrapper: Vec::new(),
        };
        empty.setting("auth.leeway", "0s")
    }
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

    /// `amqp.url`, and queue and exchange names with this test's prefix.
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

    /// Runs this executable instead of the `belfry` under test.
    #[must_use]
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Starts `belfry` through a program that prepares the process and then executes `belfry` in it, such as
    /// `["env", "--ignore-signal=HUP"]`.
    #[must_use]
    pub fn run_by(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(Into::into).collect();
        self
    }

    /// Whether the harness chooses at least one of the two addresses.
    pub(super) fn chooses_addresses(&self) -> bool {
        LISTEN.iter().any(|variable| !self.variables.contains_key(*variable))
    }

    /// Chooses the addresses that the test has not set. Their ports come from [`free_port`], because `belfry`
    /// must be able to use them again after a restart.
    pub(super) fn with_addresses(mut self) -> Self {
        for variable in LISTEN {
            let variable = self.variables.entry(variable.to_owned());
            variable.or_insert_with(|| format!("127.0.0.1:{}", free_port()).into());
        }
        self
    }

    /// Starts `belfry` with these arguments, such as `--help`, and waits until it has exited by itself.
    ///
    /// # Panics
    /// When it still runs after [`PATIENCE`], or has panicked.
    pub async fn finish(self) -> Finished {
        self.finish_in(temporary_folder().path()).await
    }

    pub(super) async fn finish_in(self, folder: &Path) -> Finished {
        let mut child =
            ChildProcess::new(&mut self.command(folder), None).expect("belfry can be run");
        let status = child.wait_for_exit(PATIENCE).await;
        let status = status.unwrap_or_else(|| panic!("it does not end: {}", text(&child.lines())));
        child.drain_output().await;
        let (out, err): (Vec<OutputLine>, Vec<OutputLine>) =
            child.lines().into_iter().partition(|line| line.stream == Stream::Out);
        let finished = Finished { status, out: text(&out), err: text(&err) };
        assert!(!finished.err.contains("panicked at"), "belfry panicked:\n{}", finished.err);
        finished
    }

    fn command(&self, folder: &Path) -> Command {
        let program = self.program.as_deref().unwrap_or_else(|| binary());
        let mut words = self.wrapper.iter().map(OsString::as_os_str).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().expect("there is a program"));
        command
            .args(words)
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

    /// Starts `belfry` in this folder and waits until it has printed its addresses.
    pub(super) async fn launch(self, folder: &Path) -> Result<Serving, StartFailure> {
        let mut child =
            ChildProcess::new(&mut self.command(folder), Some(folder)).expect("belfry can be run");
        let addresses = child
            .wait_for(PATIENCE, |lines| Some((address(lines, PUBLIC)?, address(lines, ADMIN)?)))
            .await;
        match addresses {
            Ok((url, admin_url)) => Ok(Serving { builder: self, child, url, admin_url }),
            Err(why) => {
                if why == NoOutput::TimedOut {
                    child.kill();
                }
                let status = child.wait_for_exit(SHUTDOWN_TIMEOUT).await;
                child.drain_output().await;
                Err(StartFailure { status, log: text(&child.lines()) })
            }
        }
    }
}

pub(super) fn temporary_folder() -> TempDir {
    TempDir::with_prefix("belfry-test-").expect("a temporary folder can be created")
}

/// The address that follows these words on one of the lines of standard output.
fn address(lines: &[OutputLine], words: &str) -> Option<String> {
    lines.iter().filter(|line| line.stream == Stream::Out).find_map(|line| {
        let (_, rest) = line.text.split_once(words)?;
        let address = rest.split(|c: char| c.is_whitespace() || c == '"').next()?;
        let is_url = ["http://", "https://", "unix:"].iter().any(|it| address.starts_with(it));
        is_url.then(|| address.trim_end_matches('/').to_owned())
    })
}

pub(super) fn text(lines: &[OutputLine]) -> String {
    lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
}

/// `belfry` exited or hung before it served.
#[derive(Debug)]
pub struct StartFailure {
    /// The exit status; `None` if it hung and was killed.
    pub status: Option<ExitStatus>,
    /// Its whole output.
    pub log: String,
}

impl StartFailure {
    pub(super) fn port_was_taken(&self) -> bool {
        // Error 98 is EADDRINUSE on Linux.
        self.log.contains("os error 98") || self.log.contains("Address already in use")
    }
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}\n{}", self.log),
            None => write!(f, "not serving after {PATIENCE:?}\n{}", self.log),
        }
    }
}

/// The result of a `belfry` that exited by itself.
#[derive(Debug)]
pub struct Finished {
    /// The exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A `belfry` process that serves, and its configuration.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) builder: Builder,
    pub(super) child: ChildProcess,
    pub(super) url: String,
    pub(super) admin_url: String,
}
