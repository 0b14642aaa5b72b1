//! A script that runs until the test ends.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::runtime::{folder, node};
use crate::child::ChildProcess;

/// How long NestJS may take to start, on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A script of `tests/clients` on Node that writes JSON lines. Dropping it kills it.
#[derive(Debug)]
pub struct RunningScript(ChildProcess);

impl RunningScript {
    /// Starts the script.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn start(name: impl AsRef<Path>, config: &Value) -> Self {
        let mut command = Command::new(node());
        command.arg(folder().join(name)).arg(config.to_string()).current_dir(folder());
        Self(ChildProcess::new(&mut command, None).expect("node runs"))
    }

    /// Waits for a line of this kind that matches, and returns the first one since the start.
    ///
    /// # Panics
    /// When the script ends, or it takes longer than a minute.
    pub async fn expect(&self, kind: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let line = self.0.wait_for(TIMEOUT, |lines| {
            let lines = lines.iter().filter_map(|line| serde_json::from_str(&line.text).ok());
            lines.into_iter().find(|line: &Value| line["kind"] == kind && matches(line))
        });
        line.await.unwrap_or_else(|why| panic!("no {kind} ({why}): {:#?}", self.0.lines()))
    }
}
