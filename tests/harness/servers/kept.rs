//! A server in the care of a keeper, as the test process sees it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::keeper::{Order, Reply};
use super::{Access, Kind};
use crate::binaries;

/// A server that one test owns alone and may stop.
#[derive(Debug)]
pub(crate) struct Own {
    kept: Arc<Mutex<Kept>>,
    access: Access,
}

impl Own {
    pub(crate) async fn start(kind: Kind) -> Self {
        // Without the management plugin, which takes five seconds to stop.
        let kept = blocking(move || Kept::start(kind, false)).await;
        let kept = kept.unwrap_or_else(|sentence| panic!("{sentence}"));
        Self { access: kept.access().clone(), kept: Arc::new(Mutex::new(kept)) }
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    pub(crate) async fn order(&self, order: Order) {
        let kept = Arc::clone(&self.kept);
        blocking(move || kept.lock().unwrap_or_else(PoisonError::into_inner).order(order))
            .await
            .unwrap_or_else(|sentence| panic!("{sentence}"));
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("talking to a keeper does not panic")
}

/// A server of this process's own. Dropping it takes the server down.
///
/// Calls block until the keeper has answered; the keeper bounds how long that takes.
#[derive(Debug)]
pub(crate) struct Kept {
    keeper: Child,
    orders: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
    access: Access,
}

impl Kept {
    /// Starts a keeper and its server.
    pub(crate) fn start(kind: Kind, management: bool) -> Result<Self, String> {
        let binary = binaries::beside_this_test("belfry-tests", "belfry-test-servers")?;
        let mut command = Command::new(&binary);
        command.args(["keep", kind.word()]);
        if management {
            command.arg("--management");
        }
        let mut keeper = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Out of the terminal's group: ctrl-C must not end the keeper before its work.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{} cannot be run: {error}", binary.display()))?;

        let orders = keeper.stdin.take();
        let mut replies = BufReader::new(keeper.stdout.take().expect("it is piped"));
        match reply(&mut replies)? {
            Reply::Ready(access) => Ok(Self { keeper, orders, replies, access }),
            Reply::Failed(sentence) => Err(sentence),
            Reply::Done => Err("the keeper speaks out of turn".to_owned()),
        }
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Has the keeper carry out an order and waits until it has.
    pub(crate) fn order(&mut self, order: Order) -> Result<(), String> {
        let orders = self.orders.as_mut().expect("it is open until the drop");
        writeln!(orders, "{}", order.word())
            .map_err(|error| format!("the keeper is gone: {error}"))?;
        match reply(&mut self.replies)? {
            Reply::Done => Ok(()),
            Reply::Failed(sentence) => Err(sentence),
            Reply::Ready(_) => Err("the keeper speaks out of turn".to_owned()),
        }
    }
}

fn reply(replies: &mut impl BufRead) -> Result<Reply, String> {
    let mut line = String::new();
    match replies.read_line(&mut line) {
        Ok(0) => Err("the keeper ended without an answer".to_owned()),
        Ok(_) => serde_json::from_str(&line).map_err(|error| format!("{line:?}: {error}")),
        Err(error) => Err(format!("the keeper cannot be heard: {error}")),
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Closing its input is the order to clean up and go.
        self.orders = None;
        let _ = self.keeper.wait();
    }
}
