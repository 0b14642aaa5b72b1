use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// A number that nobody else is likely to draw: for spreading pauses and naming traces, not for
/// secrets. The system's randomness comes in by the keys of the standard library's hash maps.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_draws_are_alike() {
        let drawn: BTreeSet<_> = (0..1_000).map(|_| random()).collect();
        assert_eq!(drawn.len(), 1_000);
    }
}
