use std::time::Duration;

use belfry_application::ports::PortError;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Why a store cannot do its work now.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {error}")]
pub struct NotReady {
    /// A short sentence without details: `/health/ready` shows it to anyone who may call it.
    pub reason: &'static str,
    /// The cause with its details, for the log. `Rejected` if waiting cannot help.
    #[source]
    pub error: PortError,
}

/// A fault of a database that makes calls fail regardless of their arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    ReadOnly,
    Full,
    Storage,
    Corrupt,
    Privilege,
}

impl Fault {
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::ReadOnly => "the database is read-only",
            Self::Full => "the disk of the database is full",
            Self::Storage => "the storage of the database fails",
            Self::Corrupt => "the database is damaged",
            Self::Privilege => "the database role lacks a privilege",
        }
    }
}

/// The reasons that are no [`Fault`].
pub(crate) mod reason {
    pub(crate) const NO_ANSWER: &str = "the database does not answer";
    pub(crate) const LOCKED: &str = "another process locks the database";
    pub(crate) const NOT_MIGRATED: &str = "the migrations of this version are missing";
    pub(crate) const UNSUPPORTED: &str = "the database is of an unsupported kind";
}

/// The latest fault that made a call fail.
///
/// A check that changes nothing cannot find every fault: a full disk fails only writes that need
/// space. So the store stays not ready for a while after each such failure.
#[derive(Debug, Default)]
pub(crate) struct FaultRecord(Mutex<Option<(Fault, Instant)>>);

impl FaultRecord {
    /// How long a fault counts after the latest call that failed because of it.
    pub(crate) const DURATION: Duration = Duration::from_secs(10);

    pub(crate) fn record(&self, fault: Fault) {
        *self.0.lock() = Some((fault, Instant::now()));
    }

    pub(crate) fn recent(&self) -> Option<Fault> {
        let (fault, at) = (*self.0.lock())?;
        (at.elapsed() < Self::DURATION).then_some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fault_counts_for_a_while_after_its_latest_failure() {
        let faults = FaultRecord::default();
        assert_eq!(faults.recent(), None);
        faults.record(Fault::ReadOnly);
        tokio::time::advance(FaultRecord::DURATION / 2).await;
        faults.record(Fault::Full);
        tokio::time::advance(FaultRecord::DURATION / 2).await;
        assert_eq!(faults.recent(), Some(Fault::Full));
        tokio::time::advance(FaultRecord::DURATION / 2).await;
        assert_eq!(faults.recent(), None);
    }
}
