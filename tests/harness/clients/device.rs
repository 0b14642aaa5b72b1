//! A running device.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::record::DeviceRecord;
use crate::child::{ChildProcess, OutputLine, Stream};
use crate::wait::PATIENCE;

/// A device of a user, connected or not. Dropping it kills its process, so the server receives no close.
///
/// All records are kept in the order of their arrival. Each wait, such as [`expect`](Self::expect), returns
/// the next matching record after the one that the previous wait of the same kind has returned. That record
/// may have arrived before the call.
#[derive(Debug)]
pub struct Device {
    child: ChildProcess,
    received: Mutex<Received>,
}

#[derive(Debug, Default)]
struct Received {
    lines_read: usize,
    records: Vec<DeviceRecord>,
    /// For each kind of wait, the index in `records` at which its next search starts.
    next: HashMap<String, usize>,
    last_reference: u64,
}

impl Received {
    fn read(&mut self, lines: &[OutputLine]) {
        let new = &lines[self.lines_read..];
        self.lines_read = lines.len();
        let reported = new.iter().filter(|line| line.stream == Stream::Out);
        self.records.extend(reported.filter_map(|line| serde_json::from_str(&line.text).ok()));
    }

    fn take(
        &mut self,
        wait: &str,
        matches: impl Fn(&DeviceRecord) -> bool,
    ) -> Option<DeviceRecord> {
        let start = self.next.get(wait).copied().unwrap_or_default();
        let found = start + self.records[start..].iter().position(matches)?;
        self.next.insert(wait.to_owned(), found + 1);
        Some(self.records[found].clone())
    }
}

impl Device {
    pub(super) fn new(child: ChildProcess) -> Self {
        Self { child, received: Mutex::default() }
    }

    /// Everything that the device has reported so far, in order.
    pub fn records(&self) -> Vec<DeviceRecord> {
        self.up_to_date().records.clone()
    }

    /// The last record of these kinds so far.
    pub fn last_of(&self, kinds: &[&str]) -> Option<DeviceRecord> {
        let received = self.up_to_date();
        received.records.iter().rfind(|record| kinds.contains(&&*record.kind)).cloned()
    }

    /// The first argument of every event of this name so far, in order.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let records = self.records();
        let events = records.iter().filter(|record| record.is_event(name));
        events.map(DeviceRecord::first_argument).collect()
    }

    /// Waits for the next event of this name and returns its first argument.
    ///
    /// # Panics
    /// When none arrives within [`PATIENCE`]; the message has the transcript.
    pub async fn expect(&self, name: &str) -> Value {
        let event = self.next(&format!("event {name}"), |record| record.is_event(name)).await;
        event.first_argument()
    }

    /// Waits until the device is connected, for the first time or again. Failed attempts that the client
    /// repeats by itself are skipped.
    ///
    /// # Panics
    /// When the client gives up, or it takes longer than [`PATIENCE`].
    pub async fn connected(&self) -> DeviceRecord {
        let gave_up = |record: &DeviceRecord| {
            record.kind == "connect_error" && record.retries() == Some(false)
        };
        let ended = |record: &DeviceRecord| record.kind == "connect" || gave_up(record);
        let record = self.next("connect", ended).await;
        assert_eq!(record.kind, "connect", "{}", self.transcript());
        record
    }

    /// Waits until the server rejects the connect, and returns the error code. Failed attempts that the client
    /// repeats by itself are skipped: the server has not rejected those.
    ///
    /// # Panics
    /// When the connect is not rejected within [`PATIENCE`].
    pub async fn refused(&self) -> String {
        let is_refused = |record: &DeviceRecord| {
            record.kind == "connect_error" && record.retries() != Some(true)
        };
        self.next("refusal", is_refused).await.message.unwrap_or_default()
    }

    /// Waits until its namespace is disconnected and returns the client's reason.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    pub async fn disconnected(&self) -> String {
        self.of_kind("disconnect").await.reason.unwrap_or_default()
    }

    /// Waits for the next record of this kind.
    ///
    /// # Panics
    /// When none arrives within [`PATIENCE`].
    pub async fn of_kind(&self, kind: &str) -> DeviceRecord {
        self.next(kind, |record| record.kind == kind).await
    }

    /// Emits an event, waits for its ack and returns the ack's first argument.
    ///
    /// # Panics
    /// When no ack arrives within [`PATIENCE`].
    pub async fn call(&self, name: &str, payload: impl Into<Value>) -> Value {
        self.call_with(name, vec![payload.into()]).await
    }

    /// As [`call`](Self::call), with any number of arguments.
    ///
    /// # Panics
    /// When no ack arrives within [`PATIENCE`].
    pub async fn call_with(&self, name: &str, args: Vec<Value>) -> Value {
        let reference = {
            let mut received = self.received();
            received.last_reference += 1;
            received.last_reference
        };
        self.send_command(&json!({
            "do": "emit", "name": name, "args": args, "ack": true, "ref": reference
        }));
        let answer = self
            .next(&format!("answer {reference} to {name}"), |record| {
                record.reference == Some(reference) && record.kind.starts_with("ack")
            })
            .await;
        assert_eq!(answer.kind, "ack", "{}", self.transcript());
        answer.first_argument()
    }

    /// Emits an event without an ack.
    pub fn emit(&self, name: &str, payload: impl Into<Value>) {
        let payload = payload.into();
        self.send_command(&json!({ "do": "emit", "name": name, "args": [payload] }));
    }

    /// Runs `meanwhile` and checks that no event of this name arrives until it is done.
    ///
    /// `meanwhile` should wait for something that the server sends after the unwanted event.
    ///
    /// # Panics
    /// When such an event arrives.
    pub async fn never<T>(&self, name: &str, meanwhile: impl Future<Output = T>) -> T {
        let before = self.events(name).len();
        let result = meanwhile.await;
        assert_eq!(self.events(name).len(), before, "{name} arrived: {}", self.transcript());
        result
    }

    /// Leaves the namespace with a DISCONNECT packet.
    pub fn disconnect(&self) {
        self.send_command(&json!({ "do": "disconnect" }));
    }

    /// Connects again; [`connected`](Self::connected) waits for it.
    pub fn reconnect(&self) {
        self.send_command(&json!({ "do": "connect" }));
    }

    /// Cuts the transport without a close packet, like a lost network.
    pub fn drop_connection(&self) {
        self.send_command(&json!({ "do": "drop" }));
    }

    /// Sets `auth` of the next handshakes.
    pub fn set_auth(&self, auth: impl Into<Value>) {
        let auth = auth.into();
        self.send_command(&json!({ "do": "auth", "auth": auth }));
    }

    /// Sends the device one of the commands in `tests/clients/README.md`.
    ///
    /// # Panics
    /// When the device has ended.
    #[track_caller]
    pub fn send_command(&self, command: &Value) {
        let sent = self.child.send_line(&command.to_string());
        assert!(sent.is_ok(), "the device has ended: {}", self.transcript());
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// SIGSTOP: until [`resume`](Self::resume) the device reads nothing, like one that hangs.
    pub fn freeze(&mut self) {
        self.child.signal(Signal::STOP);
    }

    /// SIGCONT
    pub fn resume(&mut self) {
        self.child.signal(Signal::CONT);
    }

    /// All output of the device, for the report of a failed test.
    pub fn transcript(&self) -> String {
        let lines: Vec<_> = self.child.lines().into_iter().map(|line| line.text).collect();
        format!("the device has reported:\n  {}", lines.join("\n  "))
    }

    async fn next(&self, wait: &str, matches: impl Fn(&DeviceRecord) -> bool) -> DeviceRecord {
        let found = self.child.wait_for(PATIENCE, |lines| {
            let mut received = self.received();
            received.read(lines);
            received.take(wait, &matches)
        });
        let found = found.await;
        found.unwrap_or_else(|why| panic!("no {wait} ({why}); {}", self.transcript()))
    }

    fn up_to_date(&self) -> MutexGuard<'_, Received> {
        self.child.with_lines(|lines| {
            let mut received = self.received();
            // Another thread may have read further in the meantime.
            if lines.len() > received.lines_read {
                received.read(lines);
            }
            received
        })
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {}\n---", self.transcript());
        }
    }
}
