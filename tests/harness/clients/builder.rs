//! The configuration of a device, and its start.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value, json};

use super::device::Device;
use super::runtime::{folder, node, python};
use crate::child::ChildProcess;

/// The configuration of a device that is not started yet.
#[derive(Debug, Clone)]
pub struct Builder {
    program: PathBuf,
    script: PathBuf,
    config: Map<String, Value>,
}

impl Device {
    /// The JavaScript client. `url` has the form of [`Belfry::url`](crate::process::Belfry::url).
    pub fn node(url: &str) -> Builder {
        Builder::new(node(), "device.mjs", url)
    }

    /// The JavaScript client of version 3, the oldest that supports this protocol. If the connection is lost
    /// before an ack arrives, this client reports the missing ack only after its timeout.
    pub fn node3(url: &str) -> Builder {
        Self::node(url).option("version", 3)
    }

    /// The Python client.
    pub fn python(url: &str) -> Builder {
        Builder::new(python(), "device.py", url)
    }
}

impl Builder {
    fn new(program: PathBuf, script: &str, url: &str) -> Self {
        let mut config = Map::new();
        config.insert("url".to_owned(), url.into());
        Self { program, script: folder().join(script), config }
    }

    /// Sets any key of the device's configuration; see `tests/clients/README.md`.
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

    /// The transports, `websocket` and `polling`, in the order in which the client uses them.
    #[must_use]
    pub fn transports<const N: usize>(self, transports: [&str; N]) -> Self {
        self.option("transports", transports.to_vec())
    }

    /// Sets `auth.token` of the handshake.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.auth("token", token)
    }

    /// Sets any key of `auth`.
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

    /// Whether the client library reconnects by itself.
    #[must_use]
    pub fn reconnection(self, reconnection: bool) -> Self {
        self.option("reconnection", reconnection)
    }

    /// Whether the device remembers the newest revision and epoch and sends them when it reconnects.
    #[must_use]
    pub fn track(self, track: bool) -> Self {
        self.option("track", track)
    }

    /// Starts the device and does not wait for its connection.
    ///
    /// # Panics
    /// When its program cannot be run.
    #[track_caller]
    pub fn start(self) -> Device {
        let mut command = Command::new(&self.program);
        command.arg(&self.script).arg(Value::Object(self.config).to_string()).current_dir(folder());
        let child = ChildProcess::new(&mut command, None).unwrap_or_else(|error| {
            panic!("{} cannot be run ({error}); `tests/run` installs it", self.program.display())
        });
        Device::new(child)
    }

    /// Starts the device and waits until it is connected.
    ///
    /// # Panics
    /// When it is rejected or takes longer than [`PATIENCE`](crate::wait::PATIENCE).
    pub async fn connect(self) -> Device {
        let device = self.start();
        device.connected().await;
        device
    }
}
