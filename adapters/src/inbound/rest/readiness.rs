//! Readiness: whether this process can serve requests. Each dependency has a named check.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

/// The dependencies that this process needs, and the state of each.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<RwLock<Checks>>);

/// The state of each check, by name.
type Checks = BTreeMap<&'static str, Arc<RwLock<CheckState>>>;

/// `Ok` while the dependency is up, else the reason why it is down.
pub(super) type CheckState = Result<(), &'static str>;

/// The reason of a check that has not reported yet.
const STARTING: &str = "not checked yet";
/// The reason of a check whose [`ReadinessCheck`] was dropped.
const STOPPED: &str = "not checked any more";

impl Readiness {
    /// Adds a check. The check is down until the returned [`ReadinessCheck`] reports up, and after the
    /// `ReadinessCheck` is dropped.
    pub fn register(&self, name: &'static str) -> ReadinessCheck {
        let state = Arc::new(RwLock::new(Err(STARTING)));
        self.0.write().insert(name, state.clone());
        ReadinessCheck(state)
    }

    /// Whether all checks are up.
    pub fn is_ready(&self) -> bool {
        self.checks().into_values().all(|state| state.is_ok())
    }

    /// A snapshot of all checks by name.
    pub(super) fn checks(&self) -> BTreeMap<&'static str, CheckState> {
        self.0.read().iter().map(|(name, state)| (*name, *state.read())).collect()
    }
}

/// Reports the state of one dependency.
#[must_use = "a check is down once it is dropped"]
pub struct ReadinessCheck(Arc<RwLock<CheckState>>);

impl ReadinessCheck {
    /// Reports that the dependency works.
    pub fn up(&self) {
        self.set(Ok(()));
    }

    /// Reports that the dependency does not work. The reason is public, so it must not contain an address, a
    /// name or a secret.
    pub fn down(&self, reason: &'static str) {
        self.set(Err(reason));
    }

    fn set(&self, state: CheckState) {
        *self.0.write() = state;
    }
}

impl Drop for ReadinessCheck {
    fn drop(&mut self) {
        self.down(STOPPED);
    }
}

impl fmt::Debug for ReadinessCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadinessCheck").field(&self.0.read()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_is_ready_while_all_checks_are_up() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready(), "without checks");
        let (database, keys) = (readiness.register("database"), readiness.register("keys"));
        assert!(!readiness.is_ready());
        database.up();
        assert!(!readiness.is_ready());
        keys.up();
        assert!(readiness.clone().is_ready());
        database.down("no answer");
        assert!(!readiness.is_ready());
    }

    #[test]
    fn dropped_check_is_down() {
        let readiness = Readiness::default();
        let database = readiness.register("database");
        database.up();
        drop(database);
        assert!(!readiness.is_ready());
    }

    #[test]
    fn latest_reason_of_a_check_is_kept() {
        let readiness = Readiness::default();
        let database = readiness.register("database");
        assert_eq!(readiness.checks()["database"], Err(STARTING));
        database.down("read-only");
        assert_eq!(readiness.checks()["database"], Err("read-only"));
        database.up();
        assert_eq!(readiness.checks()["database"], Ok(()));
    }
}
