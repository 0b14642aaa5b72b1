//! Child processes that a test starts, whose lines it reads, and that never outlive it.

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

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One line that the child wrote.
#[derive(Debug, Clone)]
pub struct Line {
    /// Which of the two streams.
    pub stream: Stream,
    /// Without its end.
    pub text: String,
}

/// Why a wait for a line ended without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoLine {
    /// The child closed its output, most likely because it ended.
    Ended,
    /// It took too long.
    TooLate,
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Spawned {
    child: Child,
    stdin: Mutex<ChildStdin>,
    lines: watch::Receiver<Vec<Line>>,
    _guard: Guard,
}

impl fmt::Display for NoLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the process has ended"),
            Self::TooLate => write!(f, "waited {PATIENCE:?}"),
        }
    }
}

impl Spawned {
    /// Starts the command with all three streams piped. Should this process be killed, the child is
    /// too, and its folder removed if it has one.
    pub fn new(command: &mut Command, folder: Option<&Path>) -> std::io::Result<Self> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let guard = Guard::over(child.id(), folder)?;
        let (sender, lines) = watch::channel(Vec::new());
        let sender = Arc::new(sender);
        read(child.stdout.take().expect("it is piped"), Stream::Out, Arc::clone(&sender));
        read(child.stderr.take().expect("it is piped"), Stream::Err, sender);
        let stdin = Mutex::new(child.stdin.take().expect("it is piped"));
        Ok(Self { stdin, child, lines, _guard: guard })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far, in the order of arrival.
    pub fn lines(&self) -> Vec<Line> {
        self.with_lines(<[Line]>::to_vec)
    }

    /// Looks at everything it has written so far; a long story is not copied for it.
    pub fn with_lines<T>(&self, look: impl FnOnce(&[Line]) -> T) -> T {
        look(&self.lines.borrow())
    }

    /// Waits until the lines so far answer the question.
    pub async fn wait_for<T>(
        &self,
        patience: Duration,
        mut ask: impl FnMut(&[Line]) -> Option<T>,
    ) -> Result<T, NoLine> {
        let mut lines = self.lines.clone();
        let mut answer = None;
        let seen = lines.wait_for(|lines| {
            answer = ask(lines);
            answer.is_some()
        });
        match timeout(patience, seen).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(NoLine::Ended),
            Err(_) => return Err(NoLine::TooLate),
        }
        Ok(answer.expect("the wait ends with an answer"))
    }

    /// Writes one line to its standard input.
    pub fn say(&self, line: &str) -> std::io::Result<()> {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(stdin, "{line}")?;
        stdin.flush()
    }

    /// Sends a signal; one that has ended already is left alone.
    pub fn signal(&mut self, signal: Signal) {
        // While it is not waited for its id cannot belong to anyone else.
        if let Ok(None) = self.child.try_wait() {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            let _ = kill_process(pid.expect("a child has a positive id"), signal);
        }
    }

    /// Waits for its end; `None` when it still runs after that time.
    pub async fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
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

    /// Waits until everything it wrote before its end has been read.
    pub async fn all_read(&self) {
        // A grandchild may hold the stream open; what is missing then is not the child's own.
        let _ = self.wait_for::<()>(Duration::from_secs(2), |_| None).await;
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read(stream: impl Read + Send + 'static, which: Stream, to: Arc<watch::Sender<Vec<Line>>>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut raw = Vec::new();
        while matches!(reader.read_until(b'\n', &mut raw), Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(&raw).trim_end().to_owned();
            to.send_modify(|lines| {
                lines.push(Line { stream: which, text });
            });
            raw.clear();
        }
    });
}

/// Kills a process when this one dies, however it dies, and removes the folder it worked in: a killed
/// test process cannot run a `Drop`, but the system closes its end of the pipe that the guard reads.
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    fn over(pid: u32, folder: Option<&Path>) -> std::io::Result<Self> {
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
            // Out of the terminal's group: ctrl-C must not end the guard before its work.
            .process_group(0)
            .spawn()
            .map(Self)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Before the pipe is closed, or it would kill whoever has that id by now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
