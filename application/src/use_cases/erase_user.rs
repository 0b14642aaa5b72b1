use std::sync::Arc;

use belfry_domain::UserId;
use tracing::info;

use crate::ports::{Erased, Erasure, PortError};

/// Erases a user's data from the store, for example after the user's account was closed; see [`Erasure::erase`]
/// for the exceptions. The user's devices start over with an empty list.
#[derive(Clone)]
pub struct EraseUser {
    erasure: Arc<dyn Erasure>,
}

impl EraseUser {
    /// Uses the store of `erasure`.
    pub fn new(erasure: Arc<dyn Erasure>) -> Self {
        Self { erasure }
    }

    /// Erases the user. The log line is the record of the erasure: after a backup is restored, the erasures
    /// since then must be repeated.
    pub async fn run(&self, user: &UserId) -> Result<Erased, PortError> {
        let erased = self.erasure.erase(user).await?;
        let Erased { notifications, idempotency_keys, events, .. } = erased;
        info!(erased_user = %user, notifications, idempotency_keys, events, "user erased");
        Ok(erased)
    }
}
