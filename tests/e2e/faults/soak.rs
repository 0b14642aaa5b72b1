//! All faults in random order, for as long as wanted.

use tokio::time::Instant;

use super::fault::Fault;
use super::fault_test::{FaultTest, Pace};

/// The minimum number of notifications for each user in a round.
const ROUND: usize = 100;

/// Injects all faults in random order, some of them in pairs, until the number of notifications is reached.
#[tokio::test]
#[ignore = "takes long; BELFRY_SOAK sets the number of notifications, BELFRY_SEED repeats a run"]
async fn soak() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let notifications = usize::try_from(number("BELFRY_SOAK").unwrap_or(10_000)).unwrap();
    let seed = number("BELFRY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("BELFRY_SEED={seed} BELFRY_SOAK={notifications}");
    let mut deck = FaultDeck { random: SplitMix64(seed), remaining: Vec::new() };
    let mut test = FaultTest::new(2, 6, Pace::Slow, &Fault::ALL).await;
    let started = Instant::now();
    // Even with a small number of notifications, each fault is injected once.
    let (mut summary, mut drawn) = (String::new(), 0);
    while test.created() < notifications || drawn < Fault::ALL.len() {
        let groups: Vec<_> = (0..3).map(|_| deck.draw()).collect();
        let seconds = started.elapsed().as_secs_f64();
        println!("{seconds:>6.1} s: {} notifications, now {groups:?}", test.created());
        let groups: Vec<_> = groups.iter().map(Vec::as_slice).collect();
        drawn += groups.iter().map(|group| group.len()).sum::<usize>();
        test.inject(ROUND, &groups).await;
        summary = test.check().await;
    }
    println!("{:>6.1} s, {drawn} faults: {summary}", started.elapsed().as_secs_f64());
}

/// Draws all faults in random order. When all were drawn, it starts again with all of them.
struct FaultDeck {
    random: SplitMix64,
    /// The faults that were not drawn yet.
    remaining: Vec<Fault>,
}

impl FaultDeck {
    /// One fault, or two that can be injected at the same time.
    fn draw(&mut self) -> Vec<Fault> {
        if self.remaining.is_empty() {
            self.remaining = Fault::ALL.to_vec();
        }
        let first = self.remaining.swap_remove(self.random.below(self.remaining.len()));
        let combinable: Vec<_> =
            (0..self.remaining.len()).filter(|n| self.remaining[*n].combines_with(first)).collect();
        if combinable.is_empty() || self.random.below(2) == 0 {
            return vec![first];
        }
        let second = combinable[self.random.below(combinable.len())];
        vec![first, self.remaining.swap_remove(second)]
    }
}

/// A generator of pseudo-random numbers from a seed.
struct SplitMix64(u64);

impl SplitMix64 {
    /// The next number, less than `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }
}
