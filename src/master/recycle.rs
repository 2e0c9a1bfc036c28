//! Workers that have lived too long or grown too large are replaced: one at a time, and each serves
//! until its replacement does.

use std::time::{Duration, Instant};

use crate::scoreboard::ExitCause;
use crate::settings::{Config, MemoryMeasure};
use crate::sys::memory;
use crate::sys::process::Pid;

use super::jitter::up_to;

/// A worker is replaced after this many samples above the limit in a row: one alone may be a peak,
/// not a leak.
const SAMPLES_IN_A_ROW: u32 = 3;

/// Between two samples. Reading the resident size costs one small file.
const RESIDENT_EVERY: Duration = Duration::from_secs(1);
/// The proportional size costs more: the kernel walks every page.
const PROPORTIONAL_EVERY: Duration = Duration::from_secs(5);

/// How long one worker may live and how large it may grow, each with the worker's own jitter.
#[derive(Debug)]
pub(super) struct RecycleLimits {
    lives_until: Option<Instant>,
    memory: Option<u64>,
    measure: MemoryMeasure,
    next_sample: Instant,
    samples_above: u32,
}

impl RecycleLimits {
    pub fn draw(config: &Config) -> RecycleLimits {
        let now = Instant::now();
        let drawn = |limit: u64, jitter: u64| (limit > 0).then(|| limit.saturating_add(up_to(jitter)));
        let lifetime = drawn(config.max_worker_lifetime, config.max_worker_lifetime_jitter).map(Duration::from_secs);
        RecycleLimits {
            lives_until: lifetime.and_then(|lifetime| now.checked_add(lifetime)),
            memory: drawn(config.max_worker_memory, config.max_worker_memory_jitter),
            measure: config.worker_memory_measure,
            next_sample: now,
            samples_above: 0,
        }
    }

    /// Takes a sample if one is due.
    pub fn sample(&mut self, pid: Pid, now: Instant) {
        let Some(limit) = self.memory else { return };
        if now < self.next_sample {
            return;
        }
        let (used, pause) = match self.measure {
            MemoryMeasure::Rss => (memory::resident(pid), RESIDENT_EVERY),
            MemoryMeasure::Pss => (memory::proportional(pid), PROPORTIONAL_EVERY),
        };
        self.next_sample = now + pause;
        self.samples_above = if used.is_some_and(|used| used > limit) { self.samples_above + 1 } else { 0 };
    }

    /// The reason to replace the worker, if there is one.
    pub fn reached(&self, now: Instant) -> Option<(ExitCause, &'static str)> {
        if self.samples_above >= SAMPLES_IN_A_ROW {
            return Some((ExitCause::Memory, "it has grown above max_worker_memory"));
        }
        self.lives_until.filter(|&end| end <= now).map(|_| (ExitCause::Lifetime, "it has reached max_worker_lifetime"))
    }

    /// When the next sample is due or the life ends. A worker whose life has ended waits for the
    /// replacement under way, whose progress wakes the master.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let sample = self.memory.map(|_| self.next_sample);
        let end = self.lives_until.filter(|&end| end > now);
        [sample, end].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(lives_until: Option<Instant>, samples_above: u32) -> RecycleLimits {
        let next_sample = Instant::now();
        RecycleLimits { lives_until, memory: Some(1), measure: MemoryMeasure::Rss, next_sample, samples_above }
    }

    #[test]
    fn a_peak_is_not_a_leak() {
        let now = Instant::now();
        assert_eq!(limits(None, SAMPLES_IN_A_ROW - 1).reached(now), None);
        assert_eq!(
            limits(None, SAMPLES_IN_A_ROW).reached(now),
            Some((ExitCause::Memory, "it has grown above max_worker_memory"))
        );
    }

    #[test]
    fn samples_are_taken_no_more_often_than_due_and_one_below_the_limit_starts_anew() {
        let (now, own) = (Instant::now(), crate::sys::process::getpid());
        let mut limits = RecycleLimits { next_sample: now, ..limits(None, 0) };
        limits.sample(own, now);
        limits.sample(own, now);
        assert_eq!((limits.samples_above, limits.deadline(now)), (1, Some(now + RESIDENT_EVERY)));
        limits.memory = Some(u64::MAX);
        limits.sample(own, now + RESIDENT_EVERY);
        assert_eq!(limits.samples_above, 0);
    }

    #[test]
    fn a_life_ends_at_its_moment_and_then_wakes_no_more() {
        let (now, end) = (Instant::now(), Instant::now() + Duration::from_secs(5));
        let limits = RecycleLimits { memory: None, ..limits(Some(end), 0) };
        assert_eq!((limits.reached(now), limits.deadline(now)), (None, Some(end)));
        assert_eq!(
            (limits.reached(end), limits.deadline(end)),
            (Some((ExitCause::Lifetime, "it has reached max_worker_lifetime")), None)
        );
    }
}
