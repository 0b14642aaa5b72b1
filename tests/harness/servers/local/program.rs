//! A program in a temporary folder of its own.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a graceful shutdown may take before the server is killed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// The folder, and the user that its programs run as.
pub(super) struct Home {
    folder: TempDir,
    /// `None`: the user of this process.
    run_as: Option<User>,
}

/// A user of this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// The first of these users that exists, if this process runs as root; else `None`. Some servers refuse to
    /// run as root.
    pub(super) async fn instead_of_root(names: &[&str]) -> anyhow::Result<Option<Self>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        for name in names {
            if let (Some(uid), Some(gid)) = (id("-u", name).await, id("-g", name).await) {
                return Ok(Some(Self { uid, gid }));
            }
        }
        anyhow::bail!("none of the users {names:?} exists to run it instead of root")
    }
}

async fn id(option: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([option, name]).output().await.ok()?;
    str::from_utf8(&output.stdout).ok()?.trim().parse().ok()
}

impl Home {
    pub(super) fn new(run_as: Option<User>) -> anyhow::Result<Self> {
        let parent = match run_as {
            // Root's own temporary folder may be closed to others.
            Some(_) => PathBuf::from("/tmp"),
            None => std::env::temp_dir(),
        };
        let folder = tempfile::Builder::new()
            .prefix("belfry-test-")
            .tempdir_in(&parent)
            .with_context(|| format!("no folder in {}", parent.display()))?;
        if let Some(user) = run_as {
            chown(folder.path(), Some(user.uid), Some(user.gid))?;
        }
        Ok(Self { folder, run_as })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command that runs in this folder, as its user, and inherits only `PATH` from the environment.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("LC_ALL", "C.UTF-8")
            .current_dir(self.path())
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(user) = self.run_as {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// Runs a command that prepares the folder.
    pub(super) async fn run(&self, command: &mut Command) -> anyhow::Result<()> {
        let output = command.output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{}: {}", output.status, errors.trim());
        Ok(())
    }

    /// Starts a command that keeps running. Its output goes to the file `log` in the folder.
    pub(super) fn spawn(&self, command: &mut Command) -> anyhow::Result<Running> {
        let log = self.log()?;
        let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Running(child))
    }

    fn log(&self) -> std::io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.path().join("log"))
    }

    /// The last lines of the log.
    pub(super) fn log_tail(&self) -> String {
        let log = std::fs::read(self.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    pub(super) fn remove(self) -> anyhow::Result<()> {
        let path = self.folder.path().to_owned();
        self.folder.close().with_context(|| format!("{} is not removed", path.display()))
    }
}

/// A running program.
pub(super) struct Running(Child);

impl Running {
    /// Sends the signal and waits for the exit. A program that does not exit in time is killed, and the result
    /// is an error.
    pub(super) async fn stop(mut self, signal: Signal) -> anyhow::Result<()> {
        if let Some(pid) = self.pid() {
            rustix::process::kill_process(pid, signal)?;
        }
        let stopped = timeout(SHUTDOWN_TIMEOUT, self.0.wait()).await;
        self.kill().await?;
        stopped.with_context(|| format!("it had to be killed after {SHUTDOWN_TIMEOUT:?}"))??;
        Ok(())
    }

    /// Kills it and the children in its process group.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.pid() {
            // An error is ignored: the processes may have exited already.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        self.0.wait().await?;
        Ok(())
    }

    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// `None` after the exit is known: from then on another process may have the id.
    fn pid(&self) -> Option<Pid> {
        self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }
}
