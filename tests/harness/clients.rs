//! Devices: the Socket.IO clients that applications use, each in a process of its own.
//!
//! `tests/clients/device.mjs` and `device.py` take a configuration and speak JSON lines; this module is
//! the other end of those lines.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::child::{Line, Spawned, Stream};
use crate::wait::PATIENCE;

/// What a device has told, one line of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Seen {
    /// When, in milliseconds of the device's own clock.
    #[serde(default)]
    pub at: f64,
    /// `connect`, `connect_error`, `disconnect`, `engine_close`, `event`, `ack`, `ack_timeout` …
    pub kind: String,
    /// The name of an event.
    pub name: Option<String>,
    /// What an event or an ack carried.
    #[serde(default)]
    pub args: Vec<Value>,
    /// The message of a `connect_error`.
    pub message: Option<String>,
    /// Why a `disconnect` or `engine_close` happened.
    pub reason: Option<String>,
    /// Which call an `ack` answers.
    #[serde(rename = "ref")]
    pub reference: Option<u64>,
    /// Whatever else the line has.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What to connect a device with.
#[derive(Debug, Clone)]
pub struct Builder {
    program: PathBuf,
    script: PathBuf,
    config: Map<String, Value>,
}

impl Builder {
    fn new(program: PathBuf, script: &str, url: &str) -> Self {
        let mut config = Map::new();
        config.insert("url".to_owned(), url.into());
        Self { program, script: folder().join(script), config }
    }

    /// Any key of the device's configuration.
    #[must_use]
    pub fn option(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config.insert(key.to_owned(), value.into());
        self
    }

    /// The namespace; `/` unless set.
    #[must_use]
    pub fn namespace(self, namespace: &str) -> Self {
        self.option("namespace", namespace)
    }

    /// The path of the Socket.IO endpoint; `/socket.io/` unless set.
    #[must_use]
    pub fn path(self, path: &str) -> Self {
        self.option("path", path)
    }

    /// `websocket`, `polling`, or both in that order.
    #[must_use]
    pub fn transports<const N: usize>(self, transports: [&str; N]) -> Self {
        self.option("transports", transports.to_vec())
    }

    /// `auth.token`
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.auth("token", token)
    }

    /// Any key of `auth`.
    #[must_use]
    pub fn auth(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config.entry("auth").or_insert_with(|| json!({}))[key] = value.into();
        self
    }

    /// A header of the handshake.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.config.entry("headers").or_insert_with(|| json!({}))[name] = value.into();
        self
    }

    /// Whether the client library connects again by itself.
    #[must_use]
    pub fn reconnection(self, reconnection: bool) -> Self {
        self.option("reconnection", reconnection)
    }

    /// Whether the device keeps the newest revision and epoch and sends them when it connects again.
    #[must_use]
    pub fn track(self, track: bool) -> Self {
        self.option("track", track)
    }

    /// Starts the device and does not wait for what becomes of its connection.
    ///
    /// # Panics
    /// When its program cannot be run.
    #[track_caller]
    pub fn start(self) -> Device {
        let mut command = Command::new(&self.program);
        command.arg(&self.script).arg(Value::Object(self.config).to_string()).current_dir(folder());
        let child = Spawned::new(&mut command, None).unwrap_or_else(|error| {
            panic!("{} cannot be run ({error}); `tests/run` installs it", self.program.display())
        });
        Device { child, memory: Mutex::default() }
    }

    /// Starts the device and waits until it is connected.
    ///
    /// # Panics
    /// When it is refused or takes longer than [`PATIENCE`].
    pub async fn connect(self) -> Device {
        let device = self.start();
        device.connected().await;
        device
    }
}

/// Where the clients and what they depend on lie.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// The program that runs JavaScript.
fn node() -> PathBuf {
    std::env::var_os("BELFRY_TEST_NODE").unwrap_or_else(|| "node".into()).into()
}

/// The program that runs Python, with the packages that the clients need.
fn python() -> PathBuf {
    let program = std::env::var_os("BELFRY_TEST_PYTHON");
    program.map_or_else(|| folder().join(".venv/bin/python"), PathBuf::from)
}

/// Runs one of the scripts in `tests/clients`, on Node or Python by its extension, with this
/// configuration, and gives the lines it wrote.
///
/// # Panics
/// When it fails; what it wrote is told.
pub async fn run_script(name: &str, config: &Value) -> Vec<Value> {
    let is_python = Path::new(name).extension().is_some_and(|extension| extension == "py");
    let mut command = tokio::process::Command::new(if is_python { python() } else { node() });
    command
        .arg(folder().join(name))
        .arg(config.to_string())
        .current_dir(folder())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    // A script has bounds of its own; this one is for a script that hangs.
    let output = timeout(PATIENCE * 8, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{name} hangs")).expect("it can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{said}{complaints}", output.status);
    said.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// A device of a user, connected or not. Dropping it ends it without a goodbye.
///
/// What it sees is kept, in order. A wait such as [`expect`](Self::expect) gives the first fitting one
/// that no wait of its kind was given before, whether it came already or is still to come.
#[derive(Debug)]
pub struct Device {
    child: Spawned,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    lines_read: usize,
    seen: Vec<Seen>,
    /// For each kind of wait, where in `seen` the next one starts.
    upto: HashMap<String, usize>,
    last_reference: u64,
}

impl Memory {
    fn read(&mut self, lines: &[Line]) {
        let new = &lines[self.lines_read..];
        self.lines_read = lines.len();
        let told = new.iter().filter(|line| line.stream == Stream::Out);
        self.seen.extend(told.filter_map(|line| serde_json::from_str(&line.text).ok()));
    }

    fn take(&mut self, what: &str, fits: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let start = self.upto.get(what).copied().unwrap_or_default();
        let found = start + self.seen[start..].iter().position(fits)?;
        self.upto.insert(what.to_owned(), found + 1);
        Some(self.seen[found].clone())
    }
}

impl Device {
    /// The JavaScript client. `url` as of [`Belfry::url`](crate::process::Belfry::url).
    pub fn node(url: &str) -> Builder {
        Builder::new(node(), "device.mjs", url)
    }

    /// The JavaScript client as of version 3, the oldest that speaks this protocol. It notices an ack
    /// that will not come by its time only, not by the end of the connection.
    pub fn node3(url: &str) -> Builder {
        Self::node(url).option("version", 3)
    }

    /// The Python client.
    pub fn python(url: &str) -> Builder {
        Builder::new(python(), "device.py", url)
    }

    /// Everything it has told so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.up_to_date().seen.clone()
    }

    /// The last of these kinds that it has told so far.
    pub fn last_of(&self, kinds: &[&str]) -> Option<Seen> {
        let memory = self.up_to_date();
        memory.seen.iter().rfind(|seen| kinds.contains(&&*seen.kind)).cloned()
    }

    /// The first argument of every event of this name so far, in order.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let seen = self.seen();
        seen.iter().filter(|seen| is_event(seen, name)).map(first_argument).collect()
    }

    /// Waits for the next event of this name and gives its first argument.
    ///
    /// # Panics
    /// When none comes within [`PATIENCE`]; everything seen is told.
    pub async fn expect(&self, name: &str) -> Value {
        first_argument(&self.next(&format!("event {name}"), |seen| is_event(seen, name)).await)
    }

    /// Waits until it is connected, for the first time or again. Failed tries after which the client
    /// goes on trying are passed over.
    ///
    /// # Panics
    /// When the client gives up, or it takes longer than [`PATIENCE`].
    pub async fn connected(&self) -> Seen {
        let gave_up = |seen: &Seen| seen.kind == "connect_error" && goes_on(seen) == Some(false);
        let seen = self.next("connect", |seen| seen.kind == "connect" || gave_up(seen)).await;
        assert_eq!(seen.kind, "connect", "{}", self.story());
        seen
    }

    /// Waits until it is refused and gives the message: the code. A try that failed on its way, after
    /// which the client goes on trying, is no answer and is passed over.
    ///
    /// # Panics
    /// When it is not refused within [`PATIENCE`].
    pub async fn refused(&self) -> String {
        let is_refused = |seen: &Seen| seen.kind == "connect_error" && goes_on(seen) != Some(true);
        self.next("refusal", is_refused).await.message.unwrap_or_default()
    }

    /// Waits until its namespace is disconnected and gives the client's word for why.
    ///
    /// # Panics
    /// When it is not within [`PATIENCE`].
    pub async fn disconnected(&self) -> String {
        self.of_kind("disconnect").await.reason.unwrap_or_default()
    }

    /// Waits for the next line of this kind.
    ///
    /// # Panics
    /// When none comes within [`PATIENCE`].
    pub async fn of_kind(&self, kind: &str) -> Seen {
        self.next(kind, |seen| seen.kind == kind).await
    }

    /// Emits an event, waits for its ack and gives the ack's first argument.
    ///
    /// # Panics
    /// When no ack comes within [`PATIENCE`].
    pub async fn call(&self, name: &str, payload: impl Into<Value>) -> Value {
        self.call_with(name, vec![payload.into()]).await
    }

    /// As [`call`](Self::call), with any number of arguments.
    ///
    /// # Panics
    /// When no ack comes within [`PATIENCE`].
    pub async fn call_with(&self, name: &str, args: Vec<Value>) -> Value {
        let reference = {
            let mut memory = self.memory();
            memory.last_reference += 1;
            memory.last_reference
        };
        self.tell(&json!({
            "do": "emit", "name": name, "args": args, "ack": true, "ref": reference
        }));
        let answer = self
            .next(&format!("answer {reference} to {name}"), |seen| {
                seen.reference == Some(reference) && seen.kind.starts_with("ack")
            })
            .await;
        assert_eq!(answer.kind, "ack", "{}", self.story());
        first_argument(&answer)
    }

    /// Emits an event and asks for no ack.
    pub fn emit(&self, name: &str, payload: impl Into<Value>) {
        let payload = payload.into();
        self.tell(&json!({ "do": "emit", "name": name, "args": [payload] }));
    }

    /// Runs something and insists that no event of this name comes until it is done.
    ///
    /// That something should wait for a sign which would come later than the event.
    ///
    /// # Panics
    /// When one comes.
    pub async fn never<T>(&self, name: &str, meanwhile: impl Future<Output = T>) -> T {
        let before = self.events(name).len();
        let result = meanwhile.await;
        assert_eq!(self.events(name).len(), before, "{name} came: {}", self.story());
        result
    }

    /// Leaves the namespace with a goodbye.
    pub fn disconnect(&self) {
        self.tell(&json!({ "do": "disconnect" }));
    }

    /// Connects again; [`connected`](Self::connected) waits for it.
    pub fn reconnect(&self) {
        self.tell(&json!({ "do": "connect" }));
    }

    /// Cuts the transport without a goodbye, as a lost network does.
    pub fn drop_connection(&self) {
        self.tell(&json!({ "do": "drop" }));
    }

    /// Sets what it connects with the next time.
    pub fn set_auth(&self, auth: impl Into<Value>) {
        let auth = auth.into();
        self.tell(&json!({ "do": "auth", "auth": auth }));
    }

    /// Any other command of the device's.
    ///
    /// # Panics
    /// When the device has ended.
    #[track_caller]
    pub fn tell(&self, command: &Value) {
        let told = self.child.say(&command.to_string());
        assert!(told.is_ok(), "the device has ended: {}", self.story());
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// SIGSTOP: it reads nothing more, as a device that hangs, until [`resume`](Self::resume).
    pub fn freeze(&mut self) {
        self.child.signal(Signal::STOP);
    }

    /// SIGCONT
    pub fn resume(&mut self) {
        self.child.signal(Signal::CONT);
    }

    /// Everything the device wrote, for a failing test's report.
    pub fn story(&self) -> String {
        let lines: Vec<_> = self.child.lines().into_iter().map(|line| line.text).collect();
        format!("the device has seen:\n  {}", lines.join("\n  "))
    }

    async fn next(&self, what: &str, fits: impl Fn(&Seen) -> bool) -> Seen {
        let found = self.child.wait_for(PATIENCE, |lines| {
            let mut memory = self.memory();
            memory.read(lines);
            memory.take(what, &fits)
        });
        let found = found.await;
        found.unwrap_or_else(|why| panic!("no {what} ({why}); {}", self.story()))
    }

    fn up_to_date(&self) -> MutexGuard<'_, Memory> {
        self.child.with_lines(|lines| {
            let mut memory = self.memory();
            // Another thread may have read further since.
            if lines.len() > memory.lines_read {
                memory.read(lines);
            }
            memory
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the client goes on trying after this; only JavaScript tells.
fn goes_on(seen: &Seen) -> Option<bool> {
    seen.rest.get("active").and_then(Value::as_bool)
}

fn is_event(seen: &Seen, name: &str) -> bool {
    seen.kind == "event" && seen.name.as_deref() == Some(name)
}

fn first_argument(seen: &Seen) -> Value {
    seen.args.first().cloned().unwrap_or_default()
}

impl Drop for Device {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {}\n---", self.story());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that plays this script.
    fn device(script: &str) -> Device {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Device { child: Spawned::new(&mut command, None).unwrap(), memory: Mutex::default() }
    }

    const TWO: &str = r#"
        echo '{"at":1,"kind":"connect","sid":"a"}'
        echo '{"at":2,"kind":"event","name":"n","args":[{"id":1}]}'
        echo '{"at":3,"kind":"event","name":"other","args":[]}'
        echo '{"at":4,"kind":"event","name":"n","args":[{"id":2}]}'
        read -r command
    "#;

    #[tokio::test]
    async fn every_event_is_given_once_in_order() {
        let device = device(TWO);
        assert_eq!(device.connected().await.rest["sid"], "a");
        assert_eq!(device.expect("n").await["id"], 1);
        assert_eq!(device.expect("n").await["id"], 2);
        assert_eq!(device.expect("other").await, Value::Null);
        assert_eq!(device.events("n").len(), 2);
    }

    #[tokio::test]
    async fn a_call_gets_its_own_answer() {
        let device = device(
            r#"read -r one; read -r two
            echo '{"kind":"ack","ref":2,"args":["second"]}'
            echo '{"kind":"ack","ref":1,"args":["first"]}'
            read -r end"#,
        );
        let (first, second) = tokio::join!(device.call("a", "x"), device.call("b", "y"));
        assert_eq!((first, second), ("first".into(), "second".into()));
    }

    #[tokio::test]
    async fn a_try_that_the_client_repeats_does_not_count() {
        let device = device(
            r#"echo '{"kind":"connect_error","message":"websocket error","active":true}'
            echo '{"kind":"connect"}'; read -r end"#,
        );
        device.connected().await;
    }

    #[tokio::test]
    #[should_panic(expected = "token_invalid")]
    async fn a_client_that_gives_up_is_not_waited_for() {
        let device = device(
            r#"echo '{"kind":"connect_error","message":"token_invalid","active":false}'; read -r end"#,
        );
        device.connected().await;
    }

    #[tokio::test]
    #[should_panic(expected = "the process has ended")]
    async fn a_wait_for_a_device_that_has_ended_does_not_take_its_time() {
        device("echo '{}'").expect("n").await;
    }

    #[tokio::test]
    #[should_panic(expected = "n came")]
    async fn what_must_never_come_is_noticed() {
        let device = device(&format!("read -r go; {TWO}"));
        let other = async {
            device.emit("go", Value::Null);
            device.expect("other").await
        };
        device.never("n", other).await;
    }
}
