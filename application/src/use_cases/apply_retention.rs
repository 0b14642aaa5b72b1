use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use belfry_domain::ExpiryCutoff;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::ports::{Clock, PortError, Retention};

/// Removes old data from the store. Expired and old notifications are deleted, with an event as if their
/// user had deleted them. Old tombstones, idempotency keys and revocations are purged.
pub struct ApplyRetention {
    store: Arc<dyn Retention>,
    clock: Arc<dyn Clock>,
    policy: RetentionPolicy,
}

/// How long data is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// The maximum age of a notification; `None` keeps it until it expires or is deleted.
    pub notifications: Option<Duration>,
    /// The time for which tombstones are kept. A device that was offline for longer starts over.
    pub deleted: Duration,
    /// The time for which idempotency keys are kept.
    pub requests: Duration,
    /// The time for which revocations are kept. It must exceed the lifetime of any token.
    pub revocations: Duration,
    /// The time between two cleanups.
    pub interval: Duration,
    /// The maximum number of items removed in one transaction.
    pub batch_size: usize,
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        const DAY: Duration = Duration::from_hours(24);
        Self {
            notifications: None,
            deleted: DAY * 30,
            requests: DAY * 2,
            revocations: DAY * 90,
            interval: Duration::from_secs(10),
            batch_size: 200,
        }
    }
}

/// The numbers of items that one cleanup removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Removed {
    notifications: usize,
    tombstones: usize,
    requests: usize,
    revocations: usize,
}

impl ApplyRetention {
    /// Applies the policy to the store.
    pub fn new(store: Arc<dyn Retention>, clock: Arc<dyn Clock>, policy: RetentionPolicy) -> Self {
        Self { store, clock, policy }
    }

    /// Cleans up periodically until `stop` is cancelled. After a failure it continues at the next interval.
    pub async fn run(&self, stop: CancellationToken) {
        let retry_in = self.policy.interval;
        while stop.run_until_cancelled(sleep(retry_in)).await.is_some() {
            match self.clean_up(&stop).await {
                Ok(removed) if removed == Removed::default() => {}
                Ok(Removed { notifications, tombstones, requests, revocations }) => {
                    info!(
                        notifications,
                        tombstones, requests, revocations, "retention cleanup removed old data"
                    );
                }
                Err(error) => {
                    let error = &error as &dyn Error;
                    warn!(error, ?retry_in, "retention cleanup failed; retrying");
                }
            }
        }
    }

    async fn clean_up(&self, stop: &CancellationToken) -> Result<Removed, PortError> {
        let RetentionPolicy { notifications, deleted, requests, revocations, batch_size, .. } =
            self.policy;
        let now = self.clock.now();
        let cutoff = ExpiryCutoff { now, created_before: notifications.map(|age| now.minus(age)) };
        let store = &self.store;
        Ok(Removed {
            notifications: self.in_batches(stop, || store.expire(&cutoff, batch_size)).await?,
            tombstones: self
                .in_batches(stop, || store.purge_deleted(now.minus(deleted), batch_size))
                .await?,
            requests: self
                .in_batches(stop, || store.purge_idempotency_keys(now.minus(requests), batch_size))
                .await?,
            revocations: self
                .in_batches(stop, || store.purge_revocations(now.minus(revocations), batch_size))
                .await?,
        })
    }

    /// Repeats `remove` while it removes full batches. After each batch, pauses for as long as the batch took.
    /// Even if very many notifications expire at once, the store can therefore serve other work half of the
    /// time, and the relay can publish their events.
    async fn in_batches<F>(
        &self,
        stop: &CancellationToken,
        remove: impl Fn() -> F,
    ) -> Result<usize, PortError>
    where
        F: Future<Output = Result<usize, PortError>>,
    {
        let mut removed = 0;
        loop {
            let started = Instant::now();
            let count = remove().await?;
            removed += count;
            let pause = sleep(started.elapsed());
            if count < self.policy.batch_size || stop.run_until_cancelled(pause).await.is_none() {
                return Ok(removed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use belfry_domain::{Draft, Timestamp};

    use super::*;
    use crate::ports::retention::MockRetention;
    use crate::ports::{InboxRepository, Outbox};
    use crate::testing::{InMemoryStore, ManualClock, a_draft, at, epoch, user};

    const HOUR: Duration = Duration::from_hours(1);

    fn policy() -> RetentionPolicy {
        RetentionPolicy { batch_size: 2, ..RetentionPolicy::default() }
    }

    fn retention(
        store: impl Retention + 'static,
        now: i64,
        policy: RetentionPolicy,
    ) -> ApplyRetention {
        ApplyRetention::new(Arc::new(store), Arc::new(ManualClock::at(now)), policy)
    }

    async fn store_with(count: i64, expires_at: Option<Timestamp>) -> Arc<InMemoryStore> {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let draft = |n| Draft { created_at: at(n), expires_at, ..a_draft("ada", &format!("n{n}")) };
        store.create((1..=count).map(draft).collect()).await.unwrap();
        store
    }

    #[tokio::test(start_paused = true)]
    async fn expired_notifications_are_deleted_in_batches_with_events() {
        let store = store_with(5, Some(at(1_000))).await;
        let clock = Arc::new(ManualClock::at(999));
        let retention = ApplyRetention::new(store.clone(), clock.clone(), policy());
        let stop = CancellationToken::new();

        assert_eq!(retention.clean_up(&stop).await.unwrap(), Removed::default());
        clock.set(1_000);
        let removed = retention.clean_up(&stop).await.unwrap();

        assert_eq!(removed, Removed { notifications: 5, ..Removed::default() });
        let state = store.state(&user("ada")).await.unwrap();
        assert_eq!((state.revision.get(), state.unread.get()), (8, 0));
        assert_eq!(store.backlog().await.unwrap().entries, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn old_notifications_are_deleted_and_their_tombstones_are_purged_later() {
        let store = store_with(3, None).await;
        let clock = Arc::new(ManualClock::at(0));
        let one_hour = RetentionPolicy { notifications: Some(HOUR), deleted: HOUR, ..policy() };
        let retention = ApplyRetention::new(store.clone(), clock.clone(), one_hour);
        let stop = CancellationToken::new();

        let mut removed = Vec::new();
        for now in [HOUR, HOUR * 2, HOUR * 3, HOUR * 4] {
            clock.set(at(2).plus(now).unix_millis());
            let Removed { notifications, tombstones, .. } =
                retention.clean_up(&stop).await.unwrap();
            removed.push((notifications, tombstones));
        }
        // At first only one notification is older than an hour, then all three.
        assert_eq!(removed, [(1, 0), (2, 0), (0, 1), (0, 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn cleanup_continues_after_an_outage() {
        let mut store = MockRetention::new();
        let mut calls = 0;
        store.expect_expire().times(3).returning(move |_, _| {
            calls += 1;
            if calls < 3 { Err(PortError::unavailable("down")) } else { Ok(0) }
        });
        store.expect_purge_deleted().once().returning(|_, _| Ok(0));
        store.expect_purge_idempotency_keys().once().returning(|_, _| Ok(0));
        store.expect_purge_revocations().once().returning(|_, _| Ok(0));
        let stop = CancellationToken::new();
        let policy = policy();
        let retention = retention(store, 0, policy);
        let wait = async {
            sleep(policy.interval * 3 + policy.interval / 2).await;
            stop.cancel();
        };
        tokio::join!(retention.run(stop.clone()), wait);
    }

    #[tokio::test(start_paused = true)]
    async fn stop_ends_the_removal_although_the_batch_was_full() {
        let stop = CancellationToken::new();
        let mut store = MockRetention::new();
        let stopping = stop.clone();
        store.expect_expire().once().returning(move |_, limit| {
            stopping.cancel();
            Ok(limit)
        });
        store.expect_purge_deleted().returning(|_, _| Ok(0));
        store.expect_purge_idempotency_keys().returning(|_, _| Ok(0));
        store.expect_purge_revocations().returning(|_, _| Ok(0));
        assert_eq!(retention(store, 0, policy()).clean_up(&stop).await.unwrap().notifications, 2);
    }
}
