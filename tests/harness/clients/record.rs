//! The records that a device reports.

use serde::Deserialize;
use serde_json::{Map, Value};

/// One line that a device reported.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct DeviceRecord {
    /// Milliseconds since the device's start.
    #[serde(default)]
    pub at: f64,
    /// `connect`, `connect_error`, `disconnect`, `engine_close`, `event`, `ack`, `ack_timeout` …
    pub kind: String,
    /// The name of an event.
    pub name: Option<String>,
    /// The arguments of an event or an ack.
    #[serde(default)]
    pub args: Vec<Value>,
    /// The message of a `connect_error`.
    pub message: Option<String>,
    /// The reason of a `disconnect` or `engine_close`.
    pub reason: Option<String>,
    /// The number of the call that an `ack` answers.
    #[serde(rename = "ref")]
    pub reference: Option<u64>,
    /// All other fields of the line.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl DeviceRecord {
    /// Whether the client continues to try to connect after this record. `None` with the Python client, which
    /// does not report it.
    pub(super) fn retries(&self) -> Option<bool> {
        self.rest.get("active").and_then(Value::as_bool)
    }

    pub(super) fn is_event(&self, name: &str) -> bool {
        self.kind == "event" && self.name.as_deref() == Some(name)
    }

    /// [`Value::Null`] if there is none.
    pub(super) fn first_argument(&self) -> Value {
        self.args.first().cloned().unwrap_or_default()
    }
}
