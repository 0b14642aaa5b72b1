use std::collections::BTreeSet;
use std::fmt;

use tokio::sync::watch;

/// RabbitMQ refuses an operation that Belfry needs. A retry succeeds only after an operator has granted the
/// right.
#[derive(Debug, thiserror::Error)]
#[error("missing right `{right}` on {object}: {error}")]
pub(crate) struct MissingRight {
    pub(super) right: Right,
    /// The object that the right is missing on, such as `queue belfry.ingest`.
    pub(super) object: String,
    pub(super) error: lapin::Error,
}

/// A right of a RabbitMQ user (<https://www.rabbitmq.com/docs/access-control>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Needed on a queue or exchange to declare it.
    Configure,
    /// Needed on an exchange to publish to it, and on a queue to bind it.
    Write,
    /// Needed on a queue to consume it, and on an exchange to bind a queue to it.
    Read,
    /// Needed to log in and to use the virtual host.
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

/// The tasks and channels of this process that cannot work because they lack a right. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct MissingRights(watch::Sender<BTreeSet<&'static str>>);

impl MissingRights {
    /// Records whether `component`, a task or a channel, lacks a right.
    pub(super) fn set(&self, component: &'static str, missing: bool) {
        self.0.send_if_modified(|components| {
            if missing { components.insert(component) } else { components.remove(component) }
        });
    }

    /// Watches the tasks and channels that lack a right. The current ones count as the first change.
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
    fn component_is_listed_only_while_it_lacks_a_right() {
        let rights = MissingRights::default();
        let components = rights.subscribe();
        rights.set("ingest", true);
        rights.set("events", true);
        rights.set("ingest", false);
        assert_eq!(*components.borrow(), BTreeSet::from(["events"]));
        rights.set("events", false);
        assert!(components.borrow().is_empty());
    }
}
