//! The times when events are due, computed before the first one is published.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::clock;
use crate::figures::{float, whole};
use crate::random::Random;

const TICK: Duration = Duration::from_millis(1);

/// How events are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// In ticks of 1 ms: the events of a tick are published in one write
    Ticks,
    /// One at a time, with exponentially distributed gaps: a Poisson process, as of many independent producers
    Poisson,
}

/// Options of commands that publish events at a rate.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct EventTiming {
    /// How events are spread over time.
    #[arg(long, value_enum, default_value_t = Arrivals::Ticks)]
    pub(crate) arrivals: Arrivals,
    /// With --arrivals poisson: the seed of the gaps. They differ between runs, but not between the servers
    /// of a run.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// The plan of a producer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// The clock's time of the first event.
    pub(crate) begin: u64,
    /// Events per second.
    pub(crate) rate: f64,
    /// The number of the first event.
    pub(crate) first: u64,
    /// How many events there are.
    pub(crate) total: u64,
    pub(crate) timing: EventTiming,
}

impl Arrivals {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Ticks => "in ticks of 1 ms",
            Self::Poisson => "one at a time with exponentially distributed gaps",
        }
    }
}

impl EventTiming {
    pub(crate) const TICKS: Self = Self { arrivals: Arrivals::Ticks, seed: 0 };

    /// The timing of this run: each run has its own gaps.
    pub(crate) fn in_run(self, run: u32) -> Self {
        Self { seed: self.seed.wrapping_add(run.into()), ..self }
    }
}

impl Schedule {
    /// The clock's time of each event, in order.
    pub(crate) fn times(&self) -> Vec<u64> {
        match self.timing.arrivals {
            Arrivals::Ticks => self.ticks(),
            Arrivals::Poisson => self.poisson(),
        }
    }

    fn ticks(&self) -> Vec<u64> {
        let mut times = Vec::new();
        for tick in 0.. {
            let due = usize::try_from(self.due_until(tick)).unwrap_or(usize::MAX);
            times.resize(due, self.begin + tick * clock::nanos(TICK));
            if self.due_until(tick) >= self.total {
                break;
            }
        }
        times
    }

    /// The number of events that are due at this tick or before. Tick `n` is `n` ms after the begin.
    fn due_until(&self, tick: u64) -> u64 {
        let due = float(tick + 1) * self.rate * TICK.as_secs_f64();
        // Corrects rounding errors just below a whole number.
        whole(due + 1e-6).min(self.total)
    }

    fn poisson(&self) -> Vec<u64> {
        let mut random = Random::seeded(self.timing.seed);
        let mean_gap = 1e9 / self.rate;
        let mut elapsed = 0.0;
        let next = |_| {
            elapsed += random.exponential(mean_gap);
            self.begin + whole(elapsed)
        };
        (0..self.total).map(next).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: f64, total: u64, arrivals: Arrivals, seed: u64) -> Schedule {
        let timing = EventTiming { arrivals, seed };
        Schedule { begin: 1_000, rate, first: 0, total, timing }
    }

    #[test]
    fn events_are_spread_over_ticks() {
        let even = schedule(5_000.0, 12, Arrivals::Ticks, 0);
        let expected = [[1_000; 5].as_slice(), &[1_001_000; 5], &[2_001_000; 2]].concat();
        assert_eq!(even.times(), expected);
        let slow = schedule(300.0, 3, Arrivals::Ticks, 0);
        assert_eq!(slow.times(), [3_001_000, 6_001_000, 9_001_000]);
        assert!(schedule(0.0, 0, Arrivals::Ticks, 0).times().is_empty());
    }

    #[test]
    fn poisson_arrivals_have_exponentially_distributed_gaps() {
        const GAP: f64 = 200_000.0;
        let times = schedule(5_000.0, 100_000, Arrivals::Poisson, 7).times();
        let gaps: Vec<f64> = times.windows(2).map(|pair| float(pair[1] - pair[0])).collect();
        let count = float(gaps.len() as u64);
        let mean = gaps.iter().sum::<f64>() / count;
        assert!((mean / GAP - 1.0).abs() < 0.02, "mean {mean}");
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        // The standard deviation of an exponential distribution is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "variance {variance}");
        let long = gaps.iter().filter(|gap| **gap > 3.0 * GAP).count();
        // Of 100,000 gaps, a share of e⁻³ = 0.0498 is longer than three means.
        assert!((4_700..5_250).contains(&long), "{long}");
    }

    #[test]
    fn seed_determines_the_gaps() {
        let times = |seed| schedule(1_000.0, 100, Arrivals::Poisson, seed).times();
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
    }
}
