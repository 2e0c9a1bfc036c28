//! Durations counted by size: a worker adds to the words, a reader sums them up.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::layout::{BOUNDS_NS, HISTOGRAM_WORDS};

/// How often durations of each size were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// A count for each of [`BOUNDS_NS`], not cumulative, and one above them all.
    pub buckets: [u64; BOUNDS_NS.len() + 1],
    /// The sum in nanoseconds. A worker that is killed between two additions leaves it short.
    pub sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [0; BOUNDS_NS.len() + 1], sum_ns: 0 }
    }
}

impl Histogram {
    /// How many durations were seen.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The durations seen since an `earlier` reading.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let mut more = self.clone();
        more.buckets.iter_mut().zip(earlier.buckets).for_each(|(now, then)| *now = now.saturating_sub(then));
        more.sum_ns = more.sum_ns.saturating_sub(earlier.sum_ns);
        more
    }

    /// The duration in nanoseconds that a `share` from 0 to 1 of those seen stayed below, by linear
    /// interpolation in a bucket; at most the last bound. `None` where no duration was seen.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = share * self.count() as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (&count, &upper) in self.buckets.iter().zip(&BOUNDS_NS) {
            if count > 0 && below + count as f64 >= wanted {
                return Some(lower + (upper as f64 - lower) * (wanted - below) / count as f64);
            }
            (below, lower) = (below + count as f64, upper as f64);
        }
        (self.count() > 0).then_some(lower)
    }

    /// Adds what stands in these words, [`HISTOGRAM_WORDS`] of them.
    pub(super) fn add_words(&mut self, words: &[AtomicU64]) {
        debug_assert_eq!(words.len(), HISTOGRAM_WORDS);
        self.buckets.iter_mut().zip(words).for_each(|(bucket, word)| *bucket += word.load(Relaxed));
        self.sum_ns += words[BOUNDS_NS.len() + 1].load(Relaxed);
    }
}

/// Adds a duration to the words of a histogram.
pub(super) fn record(words: &[AtomicU64], nanoseconds: u64) {
    let bucket = BOUNDS_NS.iter().position(|&bound| nanoseconds <= bound).unwrap_or(BOUNDS_NS.len());
    words[bucket].fetch_add(1, Relaxed);
    words[BOUNDS_NS.len() + 1].fetch_add(nanoseconds, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(durations_ms: &[u64]) -> Histogram {
        let words: [AtomicU64; HISTOGRAM_WORDS] = std::array::from_fn(|_| AtomicU64::new(0));
        durations_ms.iter().for_each(|milliseconds| record(&words, milliseconds * 1_000_000));
        let mut histogram = Histogram::default();
        histogram.add_words(&words);
        histogram
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let histogram = of(&[1, 2, 60_000, 60_001]);
        assert_eq!((histogram.buckets[0], histogram.buckets[1]), (1, 1));
        assert_eq!(histogram.buckets[BOUNDS_NS.len() - 1..], [1, 1]);
        assert_eq!((histogram.count(), histogram.sum_ns), (4, 120_004_000_000));
    }

    #[test]
    fn quantiles_lie_in_the_bucket_that_holds_them() {
        let histogram = of(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 90]);
        assert_eq!(histogram.quantile(0.45), Some(500_000.0));
        assert_eq!(histogram.quantile(0.95), Some(87_500_000.0));
        assert_eq!(of(&[]).quantile(0.5), None);
        assert_eq!(of(&[100_000]).quantile(0.5), Some(60_000_000_000.0));
        assert_eq!(histogram.since(&histogram).count(), 0);
    }
}
