use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limits the bytes that several tasks hold in memory together. Clones share the limit.
#[derive(Debug, Clone)]
pub(crate) struct ByteLimiter {
    /// One permit for each free byte.
    free: Arc<Semaphore>,
    limit: u32,
}

impl ByteLimiter {
    pub(crate) fn new(limit: u32) -> Self {
        Self { free: Arc::new(Semaphore::new(limit as usize)), limit }
    }

    /// Waits until this number of bytes is free. Callers are served in order. A caller that asks for more
    /// than the limit waits until all bytes are free, and gets all of them. Dropping the permit frees the
    /// bytes.
    pub(crate) async fn acquire(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.limit);
        let permit = self.free.clone().acquire_many_owned(bytes).await;
        permit.expect("the semaphore is never closed")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn caller_waits_for_free_bytes_and_asking_for_more_than_the_limit_gets_all() {
        let limiter = ByteLimiter::new(10);
        let acquire = |bytes| limiter.acquire(bytes).now_or_never();
        let first = acquire(7).expect("enough is free");
        assert!(acquire(4).is_none());
        let second = acquire(3).expect("enough is free");
        drop(first);
        assert!(acquire(11).is_none(), "not all is free");
        drop(second);
        let all = acquire(usize::MAX).expect("all is free");
        assert!(acquire(1).is_none());
        drop(all);
        assert!(acquire(10).is_some());
    }
}
