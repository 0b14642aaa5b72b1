//! Whether this process can serve requests: a registry of named checks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

/// The dependencies that this process needs, and whether each of them is up.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<&'static str, Arc<AtomicBool>>>>);

impl Readiness {
    /// Adds a check. It is down until its [`ReadinessCheck`] reports up, and down again when the
    /// `ReadinessCheck` is dropped.
    pub fn register(&self, name: &'static str) -> ReadinessCheck {
        let up = Arc::new(AtomicBool::new(false));
        self.0.write().insert(name, up.clone());
        ReadinessCheck(up)
    }

    /// Whether all checks are up.
    pub fn is_ready(&self) -> bool {
        self.checks().into_values().all(|up| up)
    }

    /// Each check's name and whether it is up, read once.
    pub(super) fn checks(&self) -> BTreeMap<&'static str, bool> {
        self.0.read().iter().map(|(name, up)| (*name, up.load(Ordering::Relaxed))).collect()
    }
}

/// Reports the state of one dependency.
#[must_use = "a check is down once it is dropped"]
pub struct ReadinessCheck(Arc<AtomicBool>);

#[expect(missing_docs, reason = "the names say it")]
impl ReadinessCheck {
    pub fn up(&self) {
        self.set(true);
    }

    pub fn down(&self) {
        self.set(false);
    }

    pub fn set(&self, up: bool) {
        self.0.store(up, Ordering::Relaxed);
    }
}

impl Drop for ReadinessCheck {
    fn drop(&mut self) {
        self.down();
    }
}

impl fmt::Debug for ReadinessCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadinessCheck").field(&self.0.load(Ordering::Relaxed)).finish()
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
        database.down();
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
}
