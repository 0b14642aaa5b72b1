use std::collections::BTreeSet;
use std::fmt;

use tokio::sync::watch;

/// RabbitMQ refuses an operation that Belfry needs. A retry succeeds only after an operator has granted the
/// right.
#[derive(Debug, thiserror::Error)]
#[error("missing right `{right}` on {object}: {error}")]
pub(crate) struct MissingRight {
    pub(super) right: Right,
    /// Such as `queue belfry.ingest`.
    pub(super) object: String,
    pub(super) error: lapin::Error,
}

/// A right of a RabbitMQ user (<https://www.rabbitmq.com/docs/access-control>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// To declare.
    Configure,
    /// To publish to an exchange. On a queue: to bind it.
    Write,
    /// To consume a queue. On an exchange: to bind a queue to it.
    Read,
    /// To connect to the virtual host.
    Connect,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
            Self::Connect => "connect",
        })
    }
}

/// The tasks and channels of this process that a missing right keeps from working.
#[derive(Debug, Clone, Default)]
pub struct MissingRights(watch::Sender<BTreeSet<&'static str>>);

impl MissingRights {
    /// Records whether `component`, a task or a channel, lacks a right.
    pub(super) fn set(&self, component: &'static str, missing: bool) {
        self.0.send_if_modified(|blocked| {
            if missing { blocked.insert(component) } else { blocked.remove(component) }
        });
    }

    /// Returns the tasks and channels that lack a right, and later changes. The current state counts as the first
    /// change.
    pub fn subscribe(&self) -> watch::Receiver<BTreeSet<&'static str>> {
        let mut changes = self.0.subscribe();
        changes.mark_changed();
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_component_is_left_once_each_has_its_rights() {
        let rights = MissingRights::default();
        let state = rights.subscribe();
        rights.set("ingest", true);
        rights.set("events", true);
        rights.set("ingest", false);
        assert_eq!(*state.borrow(), BTreeSet::from(["events"]));
        rights.set("events", false);
        assert!(state.borrow().is_empty());
    }
}
