use tokio::time::Instant;

use super::fault::Fault;
use super::fault_test::{FaultTest, Pace};

/// The least number of notifications for each user in a round.
const ROUND: usize = 100;

/// Injects all faults in random order, some of them in pairs, until the number of notifications is reached.
#[tokio::test]
#[ignore = "a longer soak: BELFRY_SOAK=10000 says how many events, BELFRY_SEED repeats one"]
async fn soak() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let events = usize::try_from(number("BELFRY_SOAK").unwrap_or(10_000)).unwrap();
    let seed = number("BELFRY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("BELFRY_SEED={seed} BELFRY_SOAK={events}");
    let mut deck = FaultDeck { random: SplitMix64(seed), rest: Vec::new() };
    let mut test = FaultTest::new(2, 6, Pace::Slow, &Fault::ALL).await;
    let started = Instant::now();
    // All faults are injected, however small the number is.
    let (mut summary, mut drawn) = (String::new(), 0);
    while test.created() < events || drawn < Fault::ALL.len() {
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

/// All faults in random order, reshuffled when all were drawn.
struct FaultDeck {
    random: SplitMix64,
    rest: Vec<Fault>,
}

impl FaultDeck {
    /// One fault, or two that can be injected at the same time.
    fn draw(&mut self) -> Vec<Fault> {
        if self.rest.is_empty() {
            self.rest = Fault::ALL.to_vec();
        }
        let first = self.rest.swap_remove(self.random.below(self.rest.len()));
        let fitting: Vec<_> =
            (0..self.rest.len()).filter(|n| self.rest[*n].combines_with(first)).collect();
        if fitting.is_empty() || self.random.below(2) == 0 {
            return vec![first];
        }
        let second = fitting[self.random.below(fitting.len())];
        vec![first, self.rest.swap_remove(second)]
    }
}

/// A generator of pseudo-random numbers from a seed.
struct SplitMix64(u64);

impl SplitMix64 {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }
}
