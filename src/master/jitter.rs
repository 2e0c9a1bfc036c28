//! Random numbers for jitter: good enough to keep workers from doing the same thing at the same
//! moment.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number from 0 to `most`, both included.
pub(super) fn up_to(most: u64) -> u64 {
    match most {
        0 => 0,
        // The hasher has random keys, which is random enough.
        _ => RandomState::new().build_hasher().finish() % most.saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_within_its_bounds_and_moves() {
        let drawn: std::collections::HashSet<u64> = (0..200).map(|_| up_to(3)).collect();
        assert_eq!(drawn, (0..=3).collect());
        assert_eq!(up_to(0), 0);
    }
}
