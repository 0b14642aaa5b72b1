//! The test process's end of a supervised server.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::supervisor::{Reply, ServerCommand};
use super::{Access, Kind};
use crate::binaries;

/// A server that one test owns alone and may stop.
#[derive(Debug)]
pub(crate) struct OwnServer {
    server: Arc<Mutex<SupervisedServer>>,
    access: Access,
}

impl OwnServer {
    pub(crate) async fn start(kind: Kind) -> Self {
        // Without the management plugin, which takes five seconds to stop.
        let server = blocking(move || SupervisedServer::start(kind, false)).await;
        let server = server.unwrap_or_else(|sentence| panic!("{sentence}"));
        Self { access: server.access().clone(), server: Arc::new(Mutex::new(server)) }
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    pub(crate) async fn run(&self, command: ServerCommand) {
        let server = Arc::clone(&self.server);
        blocking(move || server.lock().unwrap_or_else(PoisonError::into_inner).run(command))
            .await
            .unwrap_or_else(|sentence| panic!("{sentence}"));
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("a call of the supervisor does not panic")
}

/// A server that runs under a supervisor of its own. Dropping this value removes the server.
///
/// Each call blocks until the supervisor has answered. The supervisor limits how long that takes.
#[derive(Debug)]
pub(crate) struct SupervisedServer {
    supervisor: Child,
    commands: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
    access: Access,
}

impl SupervisedServer {
    /// Starts a supervisor and its server.
    pub(crate) fn start(kind: Kind, management: bool) -> Result<Self, String> {
        let binary = binaries::beside_this_test("belfry-tests", "belfry-test-servers")?;
        let mut command = Command::new(&binary);
        command.args(["run", kind.word()]);
        if management {
            command.arg("--management");
        }
        let mut supervisor = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // In its own process group: Ctrl-C in the terminal must not end the supervisor before it has
            // removed the server.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{} cannot be run: {error}", binary.display()))?;

        let commands = supervisor.stdin.take();
        let mut replies = BufReader::new(supervisor.stdout.take().expect("it is piped"));
        match reply(&mut replies)? {
            Reply::Ready(access) => Ok(Self { supervisor, commands, replies, access }),
            Reply::Failed(sentence) => Err(sentence),
            Reply::Done => Err("unexpected reply of the supervisor".to_owned()),
        }
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Sends a command and waits until it is done.
    pub(crate) fn run(&mut self, command: ServerCommand) -> Result<(), String> {
        let commands = self.commands.as_mut().expect("it is open until the drop");
        writeln!(commands, "{}", command.word())
            .map_err(|error| format!("the supervisor is gone: {error}"))?;
        match reply(&mut self.replies)? {
            Reply::Done => Ok(()),
            Reply::Failed(sentence) => Err(sentence),
            Reply::Ready(_) => Err("unexpected reply of the supervisor".to_owned()),
        }
    }
}

fn reply(replies: &mut impl BufRead) -> Result<Reply, String> {
    let mut line = String::new();
    match replies.read_line(&mut line) {
        Ok(0) => Err("the supervisor exited without an answer".to_owned()),
        Ok(_) => serde_json::from_str(&line).map_err(|error| format!("{line:?}: {error}")),
        Err(error) => Err(format!("the supervisor's output cannot be read: {error}")),
    }
}

impl Drop for SupervisedServer {
    fn drop(&mut self) {
        // At the end of its input the supervisor removes the server and exits.
        self.commands = None;
        let _ = self.supervisor.wait();
    }
}
