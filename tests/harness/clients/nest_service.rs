//! A NestJS service that publishes messages.

use std::collections::BTreeSet;
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};

use super::runtime::{folder, node};
use crate::child::{ChildProcess, OutputLine, Stream};
use crate::wait::{PATIENCE, until_true};

/// A running NestJS service. It has one `ClientRMQ` per queue, and each of them emits numbered messages until
/// [`stop`](Self::stop). An error that NestJS does not catch ends its process.
#[derive(Debug)]
pub struct NestService {
    child: ChildProcess,
    clients: Vec<String>,
    received: Mutex<Received>,
}

#[derive(Debug, Default)]
struct Received {
    lines_read: usize,
    reports: Vec<Report>,
}

/// One line that a service reports. `tests/clients/README.md` describes the kinds and their fields.
#[derive(Debug, Deserialize)]
struct Report {
    kind: String,
    #[serde(default)]
    client: String,
    #[serde(default)]
    phase: String,
    #[serde(default)]
    id: String,
}

impl Received {
    fn read(&mut self, lines: &[OutputLine]) {
        // Another thread may have read further in the meantime.
        let new = lines.get(self.lines_read..).unwrap_or_default();
        self.lines_read = self.lines_read.max(lines.len());
        let reported = new.iter().filter(|line| line.stream == Stream::Out);
        self.reports.extend(reported.filter_map(|line| serde_json::from_str(&line.text).ok()));
    }
}

impl NestService {
    /// Starts a service on this version of NestJS: 10, 11 or 12. `config` is described in
    /// `tests/clients/README.md`.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn start(version: u8, mut config: Value) -> Self {
        config["version"] = version.into();
        let clients = config["clients"].as_object().expect("it has clients").keys();
        let clients = clients.cloned().collect();
        let mut command = Command::new(node());
        command.arg(folder().join("nest-service.mjs")).arg(config.to_string());
        let child = ChildProcess::new(command.current_dir(folder()), None).expect("node runs");
        Self { child, clients, received: Mutex::default() }
    }

    /// The names of its clients.
    pub fn clients(&self) -> impl Iterator<Item = &str> {
        self.clients.iter().map(String::as_str)
    }

    /// Waits until each client has reported this kind at least `times` times since the start.
    ///
    /// # Panics
    /// When the process ends, or it takes longer than [`PATIENCE`].
    pub async fn until_each_reports(&self, kind: &str, times: usize) {
        self.each(&format!("{kind} ({times})"), times, |report| report.kind == kind).await;
    }

    /// Begins a phase, and waits until the broker has confirmed two messages of this phase for each client.
    ///
    /// # Panics
    /// When the process ends, or it takes longer than [`PATIENCE`].
    pub async fn begin_and_confirm(&self, phase: &str) {
        self.begin(phase).await;
        self.each(&format!("confirmed in {phase}"), 2, |report| {
            report.kind == "confirmed" && report.phase == phase
        })
        .await;
    }

    /// Begins a phase: the ids of the messages from now on start with its name.
    ///
    /// # Panics
    /// When the process has ended.
    pub async fn begin(&self, phase: &str) {
        self.command(&json!({ "do": "phase", "name": phase }));
        let begun = |report: &Report| report.kind == "phase" && report.phase == phase;
        until_true("the phase begins", async || self.running().reports.iter().any(begun)).await;
    }

    /// The ids of this client's messages that the broker has confirmed. Each id starts with its phase.
    pub fn confirmed(&self, client: &str) -> BTreeSet<String> {
        let received = self.up_to_date();
        let confirmed = received.reports.iter();
        let confirmed = confirmed.filter(|it| it.kind == "confirmed" && it.client == client);
        confirmed.map(|it| it.id.clone()).collect()
    }

    /// Lets the service wait for its outstanding confirms, close its connections and exit. Returns the exit
    /// status.
    ///
    /// # Panics
    /// When it still runs after [`PATIENCE`].
    pub async fn stop(&mut self) -> ExitStatus {
        self.command(&json!({ "do": "stop" }));
        let status = self.child.wait_for_exit(PATIENCE).await;
        let status = status.unwrap_or_else(|| panic!("it still runs: {}", self.transcript()));
        self.child.drain_output().await;
        status
    }

    /// The last 100 reports and all lines of standard error, for the message of a failed test.
    pub fn transcript(&self) -> String {
        let lines = self.child.lines();
        let (errors, reports): (Vec<_>, Vec<_>) =
            lines.into_iter().partition(|line| line.stream == Stream::Err);
        let first = reports.len().saturating_sub(100);
        let lines: Vec<_> = reports[first..].iter().chain(&errors).map(|it| &*it.text).collect();
        format!("the service has reported:\n  {}", lines.join("\n  "))
    }

    async fn each(&self, what: &str, times: usize, matches: impl Fn(&Report) -> bool) {
        until_true(&format!("each client of the service: {what}"), async || {
            let received = self.running();
            self.clients().all(|client| {
                let of_client =
                    received.reports.iter().filter(|it| it.client == client && matches(it));
                of_client.count() >= times
            })
        })
        .await;
    }

    fn command(&self, command: &Value) {
        let sent = self.child.send_line(&command.to_string());
        assert!(sent.is_ok(), "the service has ended: {}", self.transcript());
    }

    /// Everything received so far. Panics if the service has ended.
    fn running(&self) -> MutexGuard<'_, Received> {
        let received = self.up_to_date();
        let ended = received.reports.iter().any(|report| report.kind == "exit");
        assert!(!ended, "the service has ended: {}", self.transcript());
        received
    }

    fn up_to_date(&self) -> MutexGuard<'_, Received> {
        self.child.with_lines(|lines| {
            let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
            received.read(lines);
            received
        })
    }
}
