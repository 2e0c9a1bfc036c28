//! Workers that have lived too long or grown too large are replaced: one at a time, and each serves until another does.

use std::time::{Duration, Instant};

use log::info;

use crate::settings::{Config, MemoryMeasure};
use crate::sys::memory;
use crate::sys::process::Pid;

use super::Master;
use super::jitter::up_to;
use super::worker::{Fate, Worker};

/// Samples above the limit, one after the other, that condemn a worker: a peak is no leak.
const SAMPLES_IN_A_ROW: u32 = 3;

/// Between two samples: reading the resident size is one small file.
const RESIDENT_EVERY: Duration = Duration::from_secs(1);
/// The proportional size makes the kernel walk every page.
const PROPORTIONAL_EVERY: Duration = Duration::from_secs(5);

/// How long and how large one worker may become, with its own share of chance.
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
    fn look(&mut self, pid: Pid, now: Instant) {
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

    /// Why the worker should go, if it should.
    fn reached(&self, now: Instant) -> Option<&'static str> {
        if self.samples_above >= SAMPLES_IN_A_ROW {
            return Some("it has grown above max_worker_memory");
        }
        self.lives_until.filter(|&end| end <= now).map(|_| "it has reached max_worker_lifetime")
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let sample = self.memory.map(|_| self.next_sample);
        let end = self.lives_until.filter(|&end| end > now);
        [sample, end].into_iter().flatten().min()
    }
}

impl Master {
    pub(super) fn recycle_workers(&mut self) {
        let now = Instant::now();
        for worker in self.workers.iter_mut().filter(|worker| worker.is_serving()) {
            worker.limits.look(worker.pid, now);
        }
        if self.is_replacing() {
            return;
        }
        let due = |worker: &&mut Worker| worker.fate == Fate::Serving && worker.is_serving();
        let mut serving = self.workers.iter_mut().filter(due);
        let reached = serving.find_map(|worker| worker.limits.reached(now).map(|reason| (worker, reason)));
        if let Some((worker, reason)) = reached {
            info!("Replacing worker (pid:{}): {reason}.", worker.pid);
            worker.fate = Fate::Retiring;
        }
    }

    /// Whether some worker waits for its replacement, or a new one for its turn: the next one is not touched meanwhile.
    fn is_replacing(&self) -> bool {
        let unsettled = |worker: &Worker| worker.fate == Fate::Retiring || worker.is_booting();
        self.candidate.is_some() || self.workers.iter().any(unsettled)
    }

    /// When the next sample is due or the next life ends. While a replacement is under way, its progress wakes the loop.
    pub(super) fn recycle_deadline(&self, now: Instant) -> Option<Instant> {
        let serving = self.workers.iter().filter(|worker| worker.is_serving());
        serving.filter_map(|worker| worker.limits.deadline(now)).min()
    }
}
