use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Add;
use std::sync::Arc;
use std::time::{Duration, Instant};

use belfry_domain::{Notification, UserId};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::rates::{PerSecond, RateExceeded};

/// Limits the work of each user on this node, over all of the user's devices and requests.
///
/// - **A budget** in units of work: one for each message or request, one for every ten notifications that it
///   reads, replays, lists or marks, and one for every 4 KiB of text that it lists or replays. The burst is the
///   budget of two seconds.
/// - **Store operations in flight**, so that one user never holds all connections to the database.
///   Further operations wait in order. The number of waiting operations is limited by the limits on the user's
///   connections.
///
/// Clones share the budgets.
#[derive(Clone)]
pub struct UserWork(Arc<WorkState>);

struct WorkState {
    /// The time in which one unit of work becomes available again; zero for no limit.
    unit: Duration,
    max_in_flight: usize,
    /// Hashes the user ids. Randomly seeded, so that no client can choose ids that collide.
    hasher: RandomState,
    start: Instant,
    users: Mutex<Users>,
    max_users: usize,
}

struct Users {
    by_hash: HashMap<u64, Budget>,
    last_sweep: Instant,
}

struct Budget {
    /// When the full budget is available again, relative to [`WorkState::start`]. The generic cell rate
    /// algorithm needs no other state.
    full_at: Duration,
    /// The permits for store operations.
    permits: Arc<Semaphore>,
}

/// The cost of an operation, in units of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost(u32);

impl Cost {
    /// The cost of a message or request itself, before the number of notifications is known.
    pub(crate) const REQUEST: Self = Self(1);

    /// The cost of reading, replaying, listing or marking notifications.
    pub(crate) fn of_notifications(count: usize) -> Self {
        Self(u32::try_from(count.div_ceil(10)).unwrap_or(u32::MAX))
    }

    /// The additional cost of the text of notifications that are read and sent. It is small for notifications
    /// of a usual size. With it, a page of large notifications costs as much as several pages of small ones.
    pub(crate) fn of_text(bytes: usize) -> Self {
        const BYTES_PER_UNIT: usize = 4_096;
        Self(u32::try_from(bytes / BYTES_PER_UNIT).unwrap_or(u32::MAX))
    }

    /// The cost of notifications that were read to be sent, by number and text.
    pub(crate) fn of_page(notifications: &[Notification]) -> Self {
        let bytes = notifications.iter().map(Notification::text_bytes).sum();
        Self::of_notifications(notifications.len()) + Self::of_text(bytes)
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// The permit for a store operation in flight. Dropping it allows the user's next operation. Empty if there
/// are too many users to track this one.
#[derive(Debug)]
#[must_use = "dropping it allows the user's next operation"]
pub(crate) struct WorkPermit(
    #[expect(dead_code, reason = "only dropped")] Option<OwnedSemaphorePermit>,
);

impl UserWork {
    /// The maximum number of users that are tracked, which need some megabytes. Further users are not
    /// limited, for the same reason as in [`super::RateByKey`].
    const MAX_USERS: usize = 65_536;
    /// Idle users are removed only if there are at least this many users.
    const SWEEP_AT: usize = 1_024;
    /// The minimum time between two removals of idle users.
    const SWEEP_EVERY: Duration = Duration::from_secs(1);
    /// The full budget, as the time in which it becomes available.
    const BURST: Duration = Duration::from_secs(2);
    /// The maximum debt, as the time in which it is paid off. A user is in debt if work that is charged
    /// afterwards exceeds the budget.
    const MAX_DEBT: Duration = Duration::from_mins(1);

    /// The limits of each user. `rate` is the number of units of work per second, `None` for no limit.
    /// `max_in_flight` is the number of store operations; 0 counts as 1.
    pub fn new(rate: Option<PerSecond>, max_in_flight: usize) -> Self {
        let now = Instant::now();
        Self(Arc::new(WorkState {
            unit: rate.map_or(Duration::ZERO, PerSecond::interval),
            max_in_flight: max_in_flight.max(1),
            hasher: RandomState::new(),
            start: now,
            users: Mutex::new(Users { by_hash: HashMap::new(), last_sweep: now }),
            max_users: Self::MAX_USERS,
        }))
    }

    /// Waits until the user may start another store operation, and spends `cost`. If the budget does not suffice,
    /// nothing is spent.
    ///
    /// The budget is checked twice: before the wait, to reject early, and after it, because operations in flight
    /// are charged for what they read only when they end.
    pub(crate) async fn acquire(
        &self,
        user: &UserId,
        cost: Cost,
    ) -> Result<WorkPermit, RateExceeded> {
        let now = Instant::now();
        let Some(permits) = self.with_budget(user, now, |budget, shared| {
            shared.check(budget, cost, now).map(|()| budget.permits.clone())
        }) else {
            return Ok(WorkPermit(None));
        };
        let permit = permits?.acquire_owned().await.expect("the semaphore is never closed");
        let now = Instant::now();
        self.with_budget(user, now, |budget, shared| shared.spend(budget, cost, now))
            .transpose()?;
        Ok(WorkPermit(Some(permit)))
    }

    /// Charges work that is already done, because its cost is known only at its end. May leave the user in debt.
    pub(crate) fn charge(&self, user: &UserId, cost: Cost) {
        let now = Instant::now();
        self.with_budget(user, now, |budget, shared| shared.charge(budget, cost, now));
    }

    /// The time until the user is out of debt; zero without debt.
    pub(crate) fn time_to_available(&self, user: &UserId) -> Duration {
        const NOTHING: Cost = Cost(0);
        let now = Instant::now();
        let checked =
            self.with_budget(user, now, |budget, shared| shared.check(budget, NOTHING, now));
        checked.and_then(Result::err).map_or(Duration::ZERO, |exceeded| exceeded.wait)
    }

    /// Calls `work` with the user's budget. Returns `None` if there are too many users to track this one.
    fn with_budget<T>(
        &self,
        user: &UserId,
        now: Instant,
        work: impl FnOnce(&mut Budget, &WorkState) -> T,
    ) -> Option<T> {
        let shared = &*self.0;
        let key = shared.hasher.hash_one(user);
        let mut users = shared.users.lock();
        if !users.by_hash.contains_key(&key) {
            if users.by_hash.len() >= Self::SWEEP_AT.min(shared.max_users) {
                shared.sweep(&mut users, now);
            }
            if users.by_hash.len() >= shared.max_users {
                return None;
            }
        }
        let budget = users.by_hash.entry(key).or_insert_with(|| Budget {
            full_at: Duration::ZERO,
            permits: Arc::new(Semaphore::new(shared.max_in_flight)),
        });
        Some(work(budget, shared))
    }
}

impl WorkState {
    fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }

    fn check(&self, budget: &Budget, cost: Cost, now: Instant) -> Result<(), RateExceeded> {
        let spent = budget.full_at.saturating_sub(self.since_start(now));
        // Work that costs more than the full budget needs all of it.
        let price = self.price(cost).min(UserWork::BURST);
        let wait = (spent + price).saturating_sub(UserWork::BURST);
        if wait.is_zero() { Ok(()) } else { Err(RateExceeded { wait }) }
    }

    fn spend(&self, budget: &mut Budget, cost: Cost, now: Instant) -> Result<(), RateExceeded> {
        self.check(budget, cost, now)?;
        let now = self.since_start(now);
        budget.full_at = now.max(budget.full_at) + self.price(cost);
        Ok(())
    }

    fn charge(&self, budget: &mut Budget, cost: Cost, now: Instant) {
        let now = self.since_start(now);
        let spent = budget.full_at.saturating_sub(now) + self.price(cost);
        budget.full_at = now + spent.min(UserWork::BURST + UserWork::MAX_DEBT);
    }

    /// The time in which the units become available again.
    fn price(&self, Cost(units): Cost) -> Duration {
        self.unit.saturating_mul(units)
    }

    /// Removes the users with a full budget and no operation in flight, at most once per
    /// [`UserWork::SWEEP_EVERY`].
    fn sweep(&self, users: &mut Users, now: Instant) {
        if now.duration_since(users.last_sweep) < UserWork::SWEEP_EVERY {
            return;
        }
        users.last_sweep = now;
        let elapsed = self.since_start(now);
        // Permits and waiting operations hold a reference to the semaphore. No new reference can appear now,
        // because references are cloned only under the lock of the users, which the caller holds.
        let in_use = |budget: &Budget| Arc::strong_count(&budget.permits) > 1;
        users.by_hash.retain(|_, budget| budget.full_at > elapsed || in_use(budget));
        users.by_hash.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use belfry_application::testing::user;
    use futures_util::FutureExt as _;

    use super::*;

    fn work(rate: u32, max_in_flight: usize) -> UserWork {
        UserWork::new(PerSecond::new(rate), max_in_flight)
    }

    /// Spends the cost if the user's budget allows it now. Releases the permit at once.
    fn try_work(work: &UserWork, name: &str, cost: Cost) -> Result<(), RateExceeded> {
        work.acquire(&user(name), cost).now_or_never().expect("no operation is in flight").map(drop)
    }

    #[test]
    fn burst_of_each_user_is_the_budget_of_two_seconds() {
        let work = work(1, 8);
        for name in ["ada", "bob"] {
            assert_eq!(try_work(&work, name, Cost::REQUEST), Ok(()));
            assert_eq!(try_work(&work, name, Cost::REQUEST), Ok(()));
            let wait = try_work(&work, name, Cost::REQUEST).unwrap_err().wait;
            assert!(
                wait <= Duration::from_secs(1) && wait > Duration::from_millis(500),
                "{wait:?}"
            );
        }
        let unlimited = UserWork::new(None, 8);
        assert!((0..10_000).all(|_| try_work(&unlimited, "ada", Cost(1_000)).is_ok()));
    }

    #[test]
    fn ten_notifications_cost_one_unit() {
        let costs = [0, 1, 10, 11, 1_000].map(Cost::of_notifications);
        assert_eq!(costs, [0, 1, 1, 2, 100].map(Cost));
        assert_eq!(Cost::of_notifications(usize::MAX), Cost(u32::MAX));
    }

    #[test]
    fn four_kib_of_text_cost_one_unit() {
        let costs = [0, 4_095, 4_096, 256 * 1024].map(Cost::of_text);
        assert_eq!(costs, [0, 0, 1, 64].map(Cost));
        assert_eq!(Cost::of_text(usize::MAX) + Cost(1), Cost(u32::MAX));
    }

    #[tokio::test]
    async fn waiting_operation_is_rejected_if_earlier_ones_spend_the_budget() {
        let work = work(1_000, 1);
        let first = work.acquire(&user("ada"), Cost::REQUEST).await.unwrap();
        let ada = user("ada");
        let mut second = pin!(work.acquire(&ada, Cost::REQUEST));
        assert!(second.as_mut().now_or_never().is_none());
        work.charge(&ada, Cost(10_000));
        drop(first);
        assert!(second.await.is_err());
    }

    #[test]
    fn work_charged_afterwards_delays_later_work() {
        let work = work(1_000, 8);
        work.charge(&user("ada"), Cost(3_000));
        let wait = try_work(&work, "ada", Cost::REQUEST).unwrap_err().wait;
        assert!(
            wait > Duration::from_millis(900) && wait < Duration::from_millis(1_100),
            "{wait:?}"
        );
        assert_eq!(try_work(&work, "bob", Cost::REQUEST), Ok(()));
        work.charge(&user("ada"), Cost(u32::MAX));
        let wait = try_work(&work, "ada", Cost::REQUEST).unwrap_err().wait;
        assert!(wait <= UserWork::MAX_DEBT + Duration::from_secs(1), "{wait:?}");
    }

    #[test]
    fn work_above_the_budget_needs_the_full_budget() {
        let work = work(1, 8);
        assert_eq!(try_work(&work, "ada", Cost(100)), Ok(()));
        assert!(try_work(&work, "ada", Cost::REQUEST).is_err());
        assert_eq!(try_work(&work, "bob", Cost::REQUEST), Ok(()));
        assert!(try_work(&work, "bob", Cost(100)).is_err());
    }

    #[tokio::test]
    async fn operation_above_the_limit_waits_until_another_of_the_same_user_ends() {
        let work = work(1_000, 2);
        let ada = user("ada");
        let first = work.acquire(&ada, Cost::REQUEST).await.unwrap();
        let _second = work.acquire(&ada, Cost::REQUEST).await.unwrap();
        let third = work.acquire(&ada, Cost::REQUEST);
        tokio::pin!(third);
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!(try_work(&work, "bob", Cost::REQUEST), Ok(()));
        drop(first);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn number_of_users_is_limited_and_users_with_work_in_flight_are_kept() {
        let mut work = work(1_000, 1);
        Arc::get_mut(&mut work.0).unwrap().max_users = 100;
        let in_flight = work.acquire(&user("ada"), Cost::REQUEST).await.unwrap();
        for n in 0..1_000 {
            assert_eq!(try_work(&work, &format!("u{n}"), Cost::REQUEST), Ok(()));
        }
        let tracked = || work.0.users.lock().by_hash.len();
        assert_eq!(tracked(), 100);
        let later = Instant::now() + UserWork::SWEEP_EVERY;
        work.0.sweep(&mut work.0.users.lock(), later);
        assert_eq!(tracked(), 1);
        assert!(work.acquire(&user("ada"), Cost::REQUEST).now_or_never().is_none());
        drop(in_flight);
    }
}
