use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use belfry_domain::UserId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::rates::{Exceeded, PerSecond};

/// Bounds what all devices and requests of one user may ask of this node together.
///
/// - **A budget**, in units of work: one for each message or request, and one for every ten notifications
///   that it reads, replays, lists or marks. Two seconds' worth may be spent at once.
/// - **Store operations in flight**, so that one user never holds all connections to the database.
///   Further ones wait for these, in order. Only as many wait as may be in flight on the user's
///   connections, each of which is bounded by itself.
///
/// Clones share the budgets.
#[derive(Clone)]
pub struct UserWork(Arc<Shared>);

struct Shared {
    /// What one unit takes away for how long; zero where there is no limit.
    unit: Duration,
    at_once: usize,
    /// What is remembered of a user is a hash, with a secret of its own: nobody can choose names that
    /// are counted together.
    hasher: RandomState,
    begin: Instant,
    users: Mutex<Users>,
    most_users: usize,
}

struct Users {
    by_hash: HashMap<u64, Budget>,
    swept: Instant,
}

struct Budget {
    /// When it is whole again, counted from [`Shared::begin`] (the generic cell rate algorithm, which
    /// needs nothing but this instant).
    whole_at: Duration,
    store: Arc<Semaphore>,
}

/// How much work something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost(u32);

impl Cost {
    /// A message or a request, before it is known how much it reads.
    pub(crate) const REQUEST: Self = Self(1);

    /// So many notifications that are read, replayed, listed or marked.
    pub(crate) fn of_notifications(count: usize) -> Self {
        Self(u32::try_from(count.div_ceil(10)).unwrap_or(u32::MAX))
    }
}

/// One store operation in flight, until it is dropped. A user of whom nothing is remembered has none.
#[derive(Debug)]
#[must_use = "dropped, it lets the user's next operation begin"]
pub(crate) struct WorkPermit(
    #[expect(dead_code, reason = "held, not used")] Option<OwnedSemaphorePermit>,
);

impl UserWork {
    /// So many users, some megabytes, are told apart at a time; see [`super::RateByKey`], which does the
    /// same when there are more.
    const MOST_USERS: usize = 65_536;
    /// Below this nobody needs to be forgotten.
    const SWEEP_AT: usize = 1_024;
    const SWEEP_EVERY: Duration = Duration::from_secs(1);
    /// How much may be spent at once.
    const BURST: Duration = Duration::from_secs(2);
    /// For how long a user can be in debt: work that is charged after the fact can exceed any budget.
    const LONGEST_DEBT: Duration = Duration::from_mins(1);

    /// So many units of work a second (`None` for as many as come), and so many store operations in flight
    /// (at least one) of each user.
    pub fn new(rate: Option<PerSecond>, at_once: usize) -> Self {
        let now = Instant::now();
        Self(Arc::new(Shared {
            unit: rate.map_or(Duration::ZERO, PerSecond::interval),
            at_once: at_once.max(1),
            hasher: RandomState::new(),
            begin: now,
            users: Mutex::new(Users { by_hash: HashMap::new(), swept: now }),
            most_users: Self::MOST_USERS,
        }))
    }

    /// Spends `cost` and waits until the user may begin another store operation. Nothing is spent where
    /// the budget does not suffice.
    pub(crate) async fn acquire(&self, user: &UserId, cost: Cost) -> Result<WorkPermit, Exceeded> {
        let now = Instant::now();
        let Some(store) = self.with_budget(user, now, |budget, shared| {
            shared.spend(budget, cost, now).map(|()| budget.store.clone())
        }) else {
            return Ok(WorkPermit(None));
        };
        let permit = store?.acquire_owned().await.expect("nobody closes it");
        Ok(WorkPermit(Some(permit)))
    }

    /// Spends what was done already, such as a replay, which is known in full only at its end. May leave
    /// the user in debt.
    pub(crate) fn charge(&self, user: &UserId, cost: Cost) {
        let now = Instant::now();
        self.with_budget(user, now, |budget, shared| shared.charge(budget, cost, now));
    }

    /// `None` if there are too many users to remember this one.
    fn with_budget<T>(
        &self,
        user: &UserId,
        now: Instant,
        work: impl FnOnce(&mut Budget, &Shared) -> T,
    ) -> Option<T> {
        let shared = &*self.0;
        let key = shared.hasher.hash_one(user);
        let mut users = shared.users.lock();
        if !users.by_hash.contains_key(&key) {
            if users.by_hash.len() >= Self::SWEEP_AT.min(shared.most_users) {
                shared.sweep(&mut users, now);
            }
            if users.by_hash.len() >= shared.most_users {
                return None;
            }
        }
        let budget = users.by_hash.entry(key).or_insert_with(|| Budget {
            whole_at: Duration::ZERO,
            store: Arc::new(Semaphore::new(shared.at_once)),
        });
        Some(work(budget, shared))
    }
}

impl Shared {
    fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begin)
    }

    fn spend(&self, budget: &mut Budget, cost: Cost, now: Instant) -> Result<(), Exceeded> {
        let now = self.time(now);
        let spent = budget.whole_at.saturating_sub(now);
        // Work that costs more than the whole budget needs all of it.
        let price = self.price(cost).min(UserWork::BURST);
        let wait = (spent + price).saturating_sub(UserWork::BURST);
        if !wait.is_zero() {
            return Err(Exceeded { wait });
        }
        budget.whole_at = now + spent + self.price(cost);
        Ok(())
    }

    fn charge(&self, budget: &mut Budget, cost: Cost, now: Instant) {
        let now = self.time(now);
        let spent = budget.whole_at.saturating_sub(now) + self.price(cost);
        budget.whole_at = now + spent.min(UserWork::BURST + UserWork::LONGEST_DEBT);
    }

    fn price(&self, Cost(units): Cost) -> Duration {
        self.unit.saturating_mul(units)
    }

    /// Forgets the users whose budget is whole and who have nothing in flight, unless that was done a
    /// moment ago.
    fn sweep(&self, users: &mut Users, now: Instant) {
        if now.duration_since(users.swept) < UserWork::SWEEP_EVERY {
            return;
        }
        users.swept = now;
        let time = self.time(now);
        // Permits and waiters hold the semaphore, and get it only under the lock that is held here.
        let in_use = |budget: &Budget| Arc::strong_count(&budget.store) > 1;
        users.by_hash.retain(|_, budget| budget.whole_at > time || in_use(budget));
        users.by_hash.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use belfry_application::testing::user;
    use futures_util::FutureExt as _;

    use super::*;

    fn work(rate: u32, at_once: usize) -> UserWork {
        UserWork::new(PerSecond::new(rate), at_once)
    }

    /// Whether the user may do this now, and has nothing in flight for it afterwards.
    fn may(work: &UserWork, name: &str, cost: Cost) -> Result<(), Exceeded> {
        work.acquire(&user(name), cost).now_or_never().expect("nothing is in flight").map(drop)
    }

    #[test]
    fn each_user_may_spend_two_seconds_worth_at_once() {
        let work = work(1, 8);
        for name in ["ada", "bob"] {
            assert_eq!(may(&work, name, Cost::REQUEST), Ok(()));
            assert_eq!(may(&work, name, Cost::REQUEST), Ok(()));
            let wait = may(&work, name, Cost::REQUEST).unwrap_err().wait;
            assert!(
                wait <= Duration::from_secs(1) && wait > Duration::from_millis(500),
                "{wait:?}"
            );
        }
        let unlimited = UserWork::new(None, 8);
        assert!((0..10_000).all(|_| may(&unlimited, "ada", Cost(1_000)).is_ok()));
    }

    #[test]
    fn ten_notifications_cost_as_much_as_a_request() {
        let costs = [0, 1, 10, 11, 1_000].map(Cost::of_notifications);
        assert_eq!(costs, [0, 1, 1, 2, 100].map(Cost));
        assert_eq!(Cost::of_notifications(usize::MAX), Cost(u32::MAX));
    }

    #[test]
    fn work_that_is_charged_afterwards_is_paid_off_first() {
        let work = work(1_000, 8);
        work.charge(&user("ada"), Cost(3_000));
        let wait = may(&work, "ada", Cost::REQUEST).unwrap_err().wait;
        assert!(
            wait > Duration::from_millis(900) && wait < Duration::from_millis(1_100),
            "{wait:?}"
        );
        assert_eq!(may(&work, "bob", Cost::REQUEST), Ok(()));
        work.charge(&user("ada"), Cost(u32::MAX));
        let wait = may(&work, "ada", Cost::REQUEST).unwrap_err().wait;
        assert!(wait <= UserWork::LONGEST_DEBT + Duration::from_secs(1), "{wait:?}");
    }

    #[test]
    fn work_larger_than_the_budget_needs_all_of_it() {
        let work = work(1, 8);
        assert_eq!(may(&work, "ada", Cost(100)), Ok(()));
        assert!(may(&work, "ada", Cost::REQUEST).is_err());
        assert_eq!(may(&work, "bob", Cost::REQUEST), Ok(()));
        assert!(may(&work, "bob", Cost(100)).is_err());
    }

    #[tokio::test]
    async fn operations_past_the_limit_wait_for_those_of_the_same_user() {
        let work = work(1_000, 2);
        let ada = user("ada");
        let first = work.acquire(&ada, Cost::REQUEST).await.unwrap();
        let _second = work.acquire(&ada, Cost::REQUEST).await.unwrap();
        let third = work.acquire(&ada, Cost::REQUEST);
        tokio::pin!(third);
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!(may(&work, "bob", Cost::REQUEST), Ok(()));
        drop(first);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn only_so_many_users_are_remembered_and_none_that_has_work_in_flight_is_forgotten() {
        let mut work = work(1_000, 1);
        Arc::get_mut(&mut work.0).unwrap().most_users = 100;
        let in_flight = work.acquire(&user("ada"), Cost::REQUEST).await.unwrap();
        for n in 0..1_000 {
            assert_eq!(may(&work, &format!("u{n}"), Cost::REQUEST), Ok(()));
        }
        let remembered = || work.0.users.lock().by_hash.len();
        assert_eq!(remembered(), 100);
        let later = Instant::now() + UserWork::SWEEP_EVERY;
        work.0.sweep(&mut work.0.users.lock(), later);
        assert_eq!(remembered(), 1);
        assert!(work.acquire(&user("ada"), Cost::REQUEST).now_or_never().is_none());
        drop(in_flight);
    }
}
