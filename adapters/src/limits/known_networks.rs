use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The networks from which a device has signed in lately. A network is known for 12 to 24 hours after its latest
/// sign-in, or for less if devices sign in from very many networks.
///
/// A network is stored as a hash in the younger of two generations. When that generation is full or old, it becomes
/// the older one, and the previous older one is dropped. So both the age and the number of entries are bounded.
pub(crate) struct KnownNetworks {
    /// Randomly seeded, so that no client can choose networks that collide.
    hasher: RandomState,
    generations: Mutex<Generations>,
    max_in_generation: usize,
}

struct Generations {
    young: HashSet<u64>,
    old: HashSet<u64>,
    young_since: Instant,
}

impl KnownNetworks {
    /// The age at which a generation becomes the older one.
    const GENERATION: Duration = Duration::from_hours(12);
    /// The maximum number of networks in a generation. Each needs some 10 bytes.
    const MAX_IN_GENERATION: usize = 65_536;

    pub(crate) fn new() -> Self {
        let generations =
            Generations { young: HashSet::new(), old: HashSet::new(), young_since: Instant::now() };
        Self {
            hasher: RandomState::new(),
            generations: Mutex::new(generations),
            max_in_generation: Self::MAX_IN_GENERATION,
        }
    }

    /// Records that a device of this network has signed in.
    pub(crate) fn remember(&self, network: IpAddr) {
        self.remember_at(network, Instant::now());
    }

    /// Whether a device of this network has signed in lately.
    pub(crate) fn contains(&self, network: IpAddr) -> bool {
        self.contains_at(network, Instant::now())
    }

    fn remember_at(&self, network: IpAddr, now: Instant) {
        let mut generations = self.generations.lock();
        generations.age(now);
        if generations.young.len() >= self.max_in_generation {
            generations.rotate(now);
        }
        generations.young.insert(self.hasher.hash_one(network));
    }

    fn contains_at(&self, network: IpAddr, now: Instant) -> bool {
        let key = self.hasher.hash_one(network);
        let mut generations = self.generations.lock();
        generations.age(now);
        generations.young.contains(&key) || generations.old.contains(&key)
    }
}

impl Generations {
    /// Replaces generations that are too old.
    fn age(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.young_since);
        if age >= KnownNetworks::GENERATION * 2 {
            self.young.clear();
        }
        if age >= KnownNetworks::GENERATION {
            self.rotate(now);
        }
    }

    /// Drops the older generation, makes the younger one the older one, and begins a new one.
    fn rotate(&mut self, now: Instant) {
        self.old = std::mem::take(&mut self.young);
        self.young_since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn network_is_known_for_at_least_one_generation_and_at_most_two() {
        let (networks, start) = (KnownNetworks::new(), Instant::now());
        let generation = KnownNetworks::GENERATION;
        networks.remember_at(network(1), start + generation / 2);
        assert!(networks.contains_at(network(1), start + generation * 3 / 2));
        assert!(!networks.contains_at(network(2), start + generation * 3 / 2));
        assert!(!networks.contains_at(network(1), start + generation * 7 / 2));
        networks.remember_at(network(1), start + generation * 4);
        assert!(!networks.contains_at(network(1), start + generation * 9));
    }

    #[test]
    fn number_of_networks_is_bounded_and_the_latest_stay() {
        let networks = KnownNetworks { max_in_generation: 100, ..KnownNetworks::new() };
        for number in 0..1_000 {
            networks.remember(network(number));
        }
        let known = (0..1_000).filter(|number| networks.contains(network(*number))).count();
        assert!((100..=200).contains(&known), "{known}");
        assert!((900..1_000).all(|number| networks.contains(network(number))));
    }
}
