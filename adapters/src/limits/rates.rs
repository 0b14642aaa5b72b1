use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use parking_lot::Mutex;

/// So many a second in the long run, and twice as many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerSecond(NonZeroU32);

impl PerSecond {
    /// The highest rate that can be set.
    pub const MOST: u32 = 1_000_000;

    /// So many a second, [`MOST`](Self::MOST) at most; `None` for 0, which stands for no limit.
    pub fn new(rate: u32) -> Option<Self> {
        NonZeroU32::new(rate.min(Self::MOST)).map(Self)
    }

    /// How long it takes for one more to be allowed.
    pub(super) fn interval(self) -> Duration {
        Duration::from_secs(1) / self.0.get()
    }

    fn quota(self, times: NonZeroU32) -> Quota {
        const TWICE: NonZeroU32 = NonZeroU32::new(2).unwrap();
        let rate = self.0.saturating_mul(times);
        Quota::per_second(rate).allow_burst(rate.saturating_mul(TWICE))
    }
}

impl From<NonZeroU32> for PerSecond {
    fn from(rate: NonZeroU32) -> Self {
        Self(rate)
    }
}

/// A rate is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// For how long it is.
    pub(crate) wait: Duration,
}

#[expect(clippy::needless_pass_by_value, reason = "the limiter gives it away")]
fn exceeded(until: NotUntil<Instant>) -> Exceeded {
    Exceeded { wait: until.wait_time_from(DefaultClock::default().now()) }
}

/// A rate for all that is counted together. Costs 40 bytes.
#[derive(Debug)]
pub(crate) struct Rate(DefaultDirectRateLimiter);

impl Rate {
    pub(crate) fn of(rate: PerSecond) -> Self {
        Self::times(rate, NonZeroU32::MIN)
    }

    /// So many times that rate.
    pub(crate) fn times(rate: PerSecond, times: NonZeroU32) -> Self {
        Self(RateLimiter::direct(rate.quota(times)))
    }

    /// Counts one, if it is within the rate.
    pub(crate) fn take(&self) -> Result<(), Exceeded> {
        self.0.check().map_err(exceeded)
    }
}

/// A rate for each key. What is remembered of a key is a hash of it, and that only until its rate is
/// whole again.
pub(crate) struct RateByKey {
    rates: DefaultKeyedRateLimiter<u64>,
    /// With a secret of its own: nobody can choose keys that are counted together.
    hasher: RandomState,
    swept: Mutex<Instant>,
    most_keys: usize,
}

impl RateByKey {
    /// So many keys, some megabytes, are told apart at a time. When there are more, the rate holds for
    /// none until some are forgotten: whoever has so many users or addresses cannot be held back by
    /// what each of them may do, and to refuse would let them keep all others out.
    const MOST_KEYS: usize = 65_536;
    /// Below this nothing needs to be forgotten.
    const SWEEP_AT: usize = 1_024;
    const SWEEP_EVERY: Duration = Duration::from_secs(1);

    pub(crate) fn of(rate: PerSecond) -> Self {
        Self {
            rates: RateLimiter::hashmap(rate.quota(NonZeroU32::MIN)),
            hasher: RandomState::new(),
            swept: Mutex::new(Instant::now()),
            most_keys: Self::MOST_KEYS,
        }
    }

    /// Counts one for this key, if it is within the rate.
    pub(crate) fn take(&self, key: &impl Hash) -> Result<(), Exceeded> {
        let keys = self.rates.len();
        if keys >= Self::SWEEP_AT.min(self.most_keys) {
            self.sweep(Instant::now());
            if keys >= self.most_keys && self.rates.len() >= self.most_keys {
                return Ok(());
            }
        }
        self.rates.check_key(&self.hasher.hash_one(key)).map_err(exceeded)
    }

    /// Forgets the keys whose rate is whole again, unless that was done a moment ago.
    fn sweep(&self, now: Instant) {
        let Some(mut swept) = self.swept.try_lock() else { return };
        if now.duration_since(*swept) >= Self::SWEEP_EVERY {
            *swept = now;
            self.rates.retain_recent();
            self.rates.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(rate: u32) -> PerSecond {
        PerSecond::new(rate).unwrap()
    }

    #[test]
    fn twice_as_many_may_come_at_once_and_then_one_after_the_other() {
        let one = Rate::of(rate(1));
        assert_eq!([one.take(), one.take()], [Ok(()), Ok(())]);
        let wait = one.take().unwrap_err().wait;
        assert!(wait <= Duration::from_secs(1) && wait > Duration::from_millis(500), "{wait:?}");
        let ten = Rate::times(rate(1), NonZeroU32::new(10).unwrap());
        assert!((0..20).all(|_| ten.take().is_ok()));
        assert!(ten.take().is_err());
    }

    #[test]
    fn no_limit_is_none_and_the_highest_is_one() {
        assert_eq!(PerSecond::new(0), None);
        assert!(Rate::of(rate(u32::MAX)).take().is_ok());
    }

    #[test]
    fn each_key_has_its_own() {
        let rates = RateByKey::of(rate(1));
        for name in ["ada", "bob"] {
            assert_eq!([(); 3].map(|()| rates.take(&name).is_ok()), [true, true, false]);
        }
    }

    #[test]
    fn only_so_many_keys_are_kept_and_those_that_had_a_pause_are_forgotten() {
        let rates = RateByKey { most_keys: 100, ..RateByKey::of(rate(100)) };
        for key in 0..1_000 {
            assert!(rates.take(&key).is_ok());
        }
        assert_eq!(rates.rates.len(), 100);
        std::thread::sleep(Duration::from_millis(50));
        rates.sweep(Instant::now() + RateByKey::SWEEP_EVERY);
        assert_eq!(rates.rates.len(), 0);
    }

    #[test]
    fn a_rate_is_small_as_there_may_be_one_for_each_device() {
        assert!(size_of::<Rate>() <= 40, "{}", size_of::<Rate>());
    }
}
