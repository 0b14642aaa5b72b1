use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use parking_lot::Mutex;

/// A number of operations per second. After a pause, a burst of twice that number is allowed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerSecond(NonZeroU32);

impl PerSecond {
    /// The highest supported rate.
    pub const MAX: u32 = 1_000_000;

    /// A rate of at most [`MAX`](Self::MAX); `None` for 0, which means no limit.
    pub fn new(rate: u32) -> Option<Self> {
        NonZeroU32::new(rate.min(Self::MAX)).map(Self)
    }

    /// The time between two operations at this rate.
    pub(super) fn interval(self) -> Duration {
        Duration::from_secs(1) / self.0.get()
    }

    /// The quota for this rate, multiplied by `times`.
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
pub(crate) struct RateExceeded {
    /// The time after which another operation is allowed.
    pub(crate) wait: Duration,
}

#[expect(clippy::needless_pass_by_value, reason = "used as an argument of `map_err`")]
fn exceeded(until: NotUntil<Instant>) -> RateExceeded {
    RateExceeded { wait: until.wait_time_from(DefaultClock::default().now()) }
}

/// A rate limit. It uses only 40 bytes, because each device may have one.
#[derive(Debug)]
pub(crate) struct Rate(DefaultDirectRateLimiter);

impl Rate {
    pub(crate) fn of(rate: PerSecond) -> Self {
        Self::multiplied(rate, NonZeroU32::MIN)
    }

    /// A limit of `rate`, multiplied by `times`.
    pub(crate) fn multiplied(rate: PerSecond, times: NonZeroU32) -> Self {
        Self(RateLimiter::direct(rate.quota(times)))
    }

    /// Counts an operation if it is within the rate.
    pub(crate) fn take(&self) -> Result<(), RateExceeded> {
        self.0.check().map_err(exceeded)
    }
}

/// A rate limit for each key. A key is stored as a hash, and only until its full rate is available again.
pub(crate) struct RateByKey {
    rates: DefaultKeyedRateLimiter<u64>,
    /// Randomly seeded, so that no client can choose keys that collide.
    hasher: RandomState,
    last_sweep: Mutex<Instant>,
    max_keys: usize,
}

impl RateByKey {
    /// The maximum number of keys, which need some megabytes. Further keys are not limited: an attacker with
    /// so many users or addresses evades a limit per key anyway, and rejecting further keys would let the
    /// attacker lock out all other clients.
    const MAX_KEYS: usize = 65_536;
    /// Idle keys are removed only if there are at least this many keys.
    const SWEEP_AT: usize = 1_024;
    /// The minimum time between two removals of idle keys.
    const SWEEP_EVERY: Duration = Duration::from_secs(1);

    pub(crate) fn of(rate: PerSecond) -> Self {
        Self::multiplied(rate, NonZeroU32::MIN)
    }

    /// A limit of `rate`, multiplied by `times`, for each key.
    pub(crate) fn multiplied(rate: PerSecond, times: NonZeroU32) -> Self {
        Self {
            rates: RateLimiter::hashmap(rate.quota(times)),
            hasher: RandomState::new(),
            last_sweep: Mutex::new(Instant::now()),
            max_keys: Self::MAX_KEYS,
        }
    }

    /// Counts an operation of this key if it is within the rate.
    pub(crate) fn take(&self, key: &impl Hash) -> Result<(), RateExceeded> {
        let keys = self.rates.len();
        if keys >= Self::SWEEP_AT.min(self.max_keys) {
            self.sweep(Instant::now());
            if keys >= self.max_keys && self.rates.len() >= self.max_keys {
                return Ok(());
            }
        }
        self.rates.check_key(&self.hasher.hash_one(key)).map_err(exceeded)
    }

    /// Removes the keys whose full rate is available again, at most once per [`SWEEP_EVERY`](Self::SWEEP_EVERY).
    fn sweep(&self, now: Instant) {
        let Some(mut last_sweep) = self.last_sweep.try_lock() else { return };
        if now.duration_since(*last_sweep) >= Self::SWEEP_EVERY {
            *last_sweep = now;
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
    fn burst_is_twice_the_rate() {
        let one = Rate::of(rate(1));
        assert_eq!([one.take(), one.take()], [Ok(()), Ok(())]);
        let wait = one.take().unwrap_err().wait;
        assert!(wait <= Duration::from_secs(1) && wait > Duration::from_millis(500), "{wait:?}");
        let ten = Rate::multiplied(rate(1), NonZeroU32::new(10).unwrap());
        assert!((0..20).all(|_| ten.take().is_ok()));
        assert!(ten.take().is_err());
    }

    #[test]
    fn rate_of_zero_is_no_limit_and_the_highest_rate_is_capped() {
        assert_eq!(PerSecond::new(0), None);
        assert!(Rate::of(rate(u32::MAX)).take().is_ok());
    }

    #[test]
    fn each_key_has_its_own_rate() {
        let rates = RateByKey::of(rate(1));
        for name in ["ada", "bob"] {
            assert_eq!([(); 3].map(|()| rates.take(&name).is_ok()), [true, true, false]);
        }
    }

    #[test]
    fn number_of_keys_is_limited_and_idle_keys_are_removed() {
        let rates = RateByKey { max_keys: 100, ..RateByKey::of(rate(100)) };
        for key in 0..1_000 {
            assert!(rates.take(&key).is_ok());
        }
        assert_eq!(rates.rates.len(), 100);
        std::thread::sleep(Duration::from_millis(50));
        rates.sweep(Instant::now() + RateByKey::SWEEP_EVERY);
        assert_eq!(rates.rates.len(), 0);
    }

    #[test]
    fn rate_uses_at_most_40_bytes() {
        assert!(size_of::<Rate>() <= 40, "{}", size_of::<Rate>());
    }
}
