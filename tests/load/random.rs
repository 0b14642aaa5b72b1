//! A fast random number generator.

use crate::figures::float;

/// `SplitMix64` (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A random number in `0..end`; 0 if `end` is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// An exponentially distributed number with this mean, 0 included.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        // Uniform in [0, 1), with the 53 bits of a float.
        let uniform = float(self.next() >> 11) / float(1 << 53);
        -mean * (-uniform).ln_1p()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_cover_the_whole_range() {
        let mut random = Random::seeded(7);
        let mut hits = [0; 10];
        for _ in 0..1_000 {
            hits[usize::try_from(random.below(10)).unwrap()] += 1;
        }
        assert!(hits.iter().all(|count| *count > 50), "{hits:?}");
        assert_eq!(random.below(0), 0);
    }
}
