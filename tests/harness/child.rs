//! Child processes of a test: their output is read line by line, and they never outlive the test.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::wait::PATIENCE;

/// An output stream of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One line that the child wrote.
#[derive(Debug, Clone)]
pub struct OutputLine {
    /// The stream that it was written to.
    pub stream: Stream,
    /// Without the line end.
    pub text: String,
}

/// Why a wait for output ended without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoOutput {
    /// The child closed its output, most likely because it exited.
    Exited,
    /// The wait took too long.
    TimedOut,
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct ChildProcess {
    child: Child,
    stdin: Mutex<ChildStdin>,
    lines: watch::Receiver<Vec<OutputLine>>,
    _guard: Guard,
}

impl fmt::Display for NoOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited => f.write_str("the process has ended"),
            Self::TimedOut => write!(f, "waited {PATIENCE:?}"),
        }
    }
}

impl ChildProcess {
    /// Starts the command with all three streams piped. If the test process is killed, the child is killed
    /// too, and `folder` is removed.
    pub fn new(command: &mut Command, folder: Option<&Path>) -> std::io::Result<Self> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let guard = Guard::start(child.id(), folder)?;
        let (sender, lines) = watch::channel(Vec::new());
        let sender = Arc::new(sender);
        collect_lines(child.stdout.take().expect("it is piped"), Stream::Out, Arc::clone(&sender));
        collect_lines(child.stderr.take().expect("it is piped"), Stream::Err, sender);
        let stdin = Mutex::new(child.stdin.take().expect("it is piped"));
        Ok(Self { stdin, child, lines, _guard: guard })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All output so far, in the order of arrival.
    pub fn lines(&self) -> Vec<OutputLine> {
        self.with_lines(<[OutputLine]>::to_vec)
    }

    /// Passes all output so far to `look`, without a copy.
    pub fn with_lines<T>(&self, look: impl FnOnce(&[OutputLine]) -> T) -> T {
        look(&self.lines.borrow())
    }

    /// Calls `ask` with all output so far, again after each new line, until it returns `Some`.
    pub async fn wait_for<T>(
        &self,
        patience: Duration,
        mut ask: impl FnMut(&[OutputLine]) -> Option<T>,
    ) -> Result<T, NoOutput> {
        let mut lines = self.lines.clone();
        let mut answer = None;
        let answered = lines.wait_for(|lines| {
            answer = ask(lines);
            answer.is_some()
        });
        match timeout(patience, answered).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(NoOutput::Exited),
            Err(_) => return Err(NoOutput::TimedOut),
        }
        Ok(answer.expect("the wait ends with an answer"))
    }

    /// Writes one line to standard input.
    pub fn send_line(&self, line: &str) -> std::io::Result<()> {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(stdin, "{line}")?;
        stdin.flush()
    }

    /// Sends a signal, unless the child has exited.
    pub fn signal(&mut self, signal: Signal) {
        // The child may exit after this check. No other process gets its id until this process waits for it.
        if let Ok(None) = self.child.try_wait() {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            let _ = kill_process(pid.expect("a child has a positive id"), signal);
        }
    }

    /// Waits for the exit; `None` if the child still runs after `patience`.
    pub async fn wait_for_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until all output of a child that has exited is read.
    pub async fn drain_output(&self) {
        // The wait ends when the streams are closed. A grandchild may keep them open; its output is not
        // needed.
        let _ = self.wait_for::<()>(Duration::from_secs(2), |_| None).await;
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL, and waits for the exit.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Appends each line of the pipe to `lines`, in a thread that ends with the pipe.
fn collect_lines(
    pipe: impl Read + Send + 'static,
    stream: Stream,
    lines: Arc<watch::Sender<Vec<OutputLine>>>,
) {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut raw = Vec::new();
        while matches!(reader.read_until(b'\n', &mut raw), Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(&raw).trim_end().to_owned();
            lines.send_modify(|lines| lines.push(OutputLine { stream, text }));
            raw.clear();
        }
    });
}

/// A shell that kills the child and removes its folder if the test process is killed.
///
/// A killed test process runs no `Drop`, but the kernel closes its end of the pipe that the shell reads.
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    fn start(pid: u32, folder: Option<&Path>) -> std::io::Result<Self> {
        Command::new("sh")
            .args([
                "-c",
                r#"read -r _; kill -KILL "$1"; [ -z "$2" ] || rm -rf "$2""#,
                "sh",
                &pid.to_string(),
            ])
            .args(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // In its own process group: Ctrl-C in the terminal must not end the guard before it has cleaned
            // up.
            .process_group(0)
            .spawn()
            .map(Self)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The guard must end before its pipe is closed. Otherwise it would kill the process that has the
        // child's id by then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
