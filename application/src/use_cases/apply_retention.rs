use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use belfry_domain::Due;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::ports::{Clock, PortError, Retention};

/// Takes out of the store what has had its time: notifications that expire or grow old disappear from
/// their inboxes, with an event as if their user had deleted them; and what is remembered of deleted
/// ones and of requests is forgotten after a while.
pub struct ApplyRetention {
    store: Arc<dyn Retention>,
    clock: Arc<dyn Clock>,
    rules: RetentionRules,
}

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionRules {
    /// How old a notification becomes; `None` keeps it until it expires or is deleted.
    pub notifications: Option<Duration>,
    /// How long it is remembered what was deleted. A device that was away for longer starts over.
    pub deleted: Duration,
    /// How long a request is known again by its idempotency key.
    pub requests: Duration,
    /// How long it is remembered whose tokens were revoked: longer than any token lives.
    pub revocations: Duration,
    /// The time between two looks at what is due.
    pub every: Duration,
    /// How many are taken out by one transaction.
    pub batch: usize,
}

impl Default for RetentionRules {
    fn default() -> Self {
        const DAY: Duration = Duration::from_hours(24);
        Self {
            notifications: None,
            deleted: DAY * 30,
            requests: DAY * 2,
            revocations: DAY * 90,
            every: Duration::from_secs(10),
            batch: 200,
        }
    }
}

/// What a look at the store took out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Removed {
    notifications: usize,
    tombstones: usize,
    requests: usize,
    revocations: usize,
}

impl ApplyRetention {
    /// Applies these rules to that store.
    pub fn new(store: Arc<dyn Retention>, clock: Arc<dyn Clock>, rules: RetentionRules) -> Self {
        Self { store, clock, rules }
    }

    /// Applies them again and again until told to stop. A failure is waited out until the next time.
    pub async fn run(&self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(self.rules.every)).await.is_some() {
            match self.once(&stop).await {
                Ok(removed) if removed == Removed::default() => {}
                Ok(Removed { notifications, tombstones, requests, revocations }) => {
                    info!(
                        notifications,
                        tombstones, requests, revocations, "removed what has had its time"
                    );
                }
                Err(error) => {
                    let error = &error as &dyn Error;
                    warn!(error, again_in = ?self.rules.every, "what has had its time stays");
                }
            }
        }
    }

    async fn once(&self, stop: &CancellationToken) -> Result<Removed, PortError> {
        let RetentionRules { notifications, deleted, requests, revocations, batch, .. } =
            self.rules;
        let now = self.clock.now();
        let due = Due { now, created_before: notifications.map(|age| now.minus(age)) };
        let deleted_before = now.minus(deleted);
        let asked_before = now.minus(requests);
        let revoked_before = now.minus(revocations);
        Ok(Removed {
            notifications: self.all(stop, || self.store.expire(&due, batch)).await?,
            tombstones: self.all(stop, || self.store.purge_deleted(deleted_before, batch)).await?,
            requests: self.all(stop, || self.store.purge_requests(asked_before, batch)).await?,
            revocations: self
                .all(stop, || self.store.purge_revocations(revoked_before, batch))
                .await?,
        })
    }

    /// Removes one batch after the other while they are full. The store has half of the time to
    /// itself, and the outbox time to be emptied: however much expires at once (a campaign, say),
    /// what is new gets through.
    async fn all<F>(
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
            let rest = sleep(started.elapsed());
            if count < self.rules.batch || stop.run_until_cancelled(rest).await.is_none() {
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

    fn rules() -> RetentionRules {
        RetentionRules { batch: 2, ..RetentionRules::default() }
    }

    fn by(store: impl Retention + 'static, now: i64, rules: RetentionRules) -> ApplyRetention {
        ApplyRetention::new(Arc::new(store), Arc::new(ManualClock::at(now)), rules)
    }

    async fn store_with(count: i64, expires_at: Option<Timestamp>) -> Arc<InMemoryStore> {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let draft = |n| Draft { created_at: at(n), expires_at, ..a_draft("ada", &format!("n{n}")) };
        store.create((1..=count).map(draft).collect()).await.unwrap();
        store
    }

    #[tokio::test(start_paused = true)]
    async fn what_expired_is_deleted_and_told_batch_by_batch() {
        let store = store_with(5, Some(at(1_000))).await;
        let clock = Arc::new(ManualClock::at(999));
        let retention = ApplyRetention::new(store.clone(), clock.clone(), rules());
        let stop = CancellationToken::new();

        assert_eq!(retention.once(&stop).await.unwrap(), Removed::default());
        clock.set(1_000);
        let removed = retention.once(&stop).await.unwrap();

        assert_eq!(removed, Removed { notifications: 5, ..Removed::default() });
        let state = store.state(&user("ada")).await.unwrap();
        assert_eq!((state.revision.get(), state.unread.get()), (8, 0));
        assert_eq!(store.backlog().await.unwrap(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_goes_and_is_forgotten_later() {
        let store = store_with(3, None).await;
        let clock = Arc::new(ManualClock::at(0));
        let old = RetentionRules { notifications: Some(HOUR), deleted: HOUR, ..rules() };
        let retention = ApplyRetention::new(store.clone(), clock.clone(), old);
        let stop = CancellationToken::new();

        let mut removed = Vec::new();
        for now in [HOUR, HOUR * 2, HOUR * 3, HOUR * 4] {
            clock.set(at(2).plus(now).unix_millis());
            let Removed { notifications, tombstones, .. } = retention.once(&stop).await.unwrap();
            removed.push((notifications, tombstones));
        }
        // The first is older than an hour, then all are.
        assert_eq!(removed, [(1, 0), (2, 0), (0, 1), (0, 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_out() {
        let mut store = MockRetention::new();
        let mut calls = 0;
        store.expect_expire().times(3).returning(move |_, _| {
            calls += 1;
            if calls < 3 { Err(PortError::unavailable("down")) } else { Ok(0) }
        });
        store.expect_purge_deleted().once().returning(|_, _| Ok(0));
        store.expect_purge_requests().once().returning(|_, _| Ok(0));
        store.expect_purge_revocations().once().returning(|_, _| Ok(0));
        let stop = CancellationToken::new();
        let rules = rules();
        let retention = by(store, 0, rules);
        let wait = async {
            sleep(rules.every * 3 + rules.every / 2).await;
            stop.cancel();
        };
        tokio::join!(retention.run(stop.clone()), wait);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_for_the_last_batch() {
        let stop = CancellationToken::new();
        let mut store = MockRetention::new();
        let stopping = stop.clone();
        store.expect_expire().once().returning(move |_, limit| {
            stopping.cancel();
            Ok(limit)
        });
        store.expect_purge_deleted().returning(|_, _| Ok(0));
        store.expect_purge_requests().returning(|_, _| Ok(0));
        store.expect_purge_revocations().returning(|_, _| Ok(0));
        assert_eq!(by(store, 0, rules()).once(&stop).await.unwrap().notifications, 2);
    }
}
