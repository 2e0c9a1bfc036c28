//! Scaling by load (`autoscale`): more workers as soon as the present ones have little time left,
//! fewer when they have had more than enough for long.
//!
//! The decision is made over plain numbers, which the master reads from the scoreboard once a
//! second. The module must not know processes or signals, and changes nothing but the count that is
//! wanted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use log::info;

use crate::scoreboard::{Histogram, Scoreboard};
use crate::settings::{Config, WorkerClass};

use super::generation::Generation;
use super::resources::Resources;
use super::worker_count::{found_count, most_by_memory};
use super::workers::MOST_WORKERS;
use super::{Master, Phase};

/// How often the master looks at the load.
const INTERVAL: Duration = Duration::from_secs(1);

/// The time over which the load is measured. A single second may be that of a garbage collection.
const GROW_WINDOW: Duration = Duration::from_secs(2);

/// The time for which fewer workers must have been enough. So a worker stays for at least this long
/// after the load that it was started for.
const SHRINK_WINDOW: Duration = Duration::from_secs(45);

/// The busy share above which there are too few workers.
const GROW_ABOVE: f64 = 0.75;

/// The busy share that a change aims at, upwards and downwards. It leaves room for requests that
/// come unevenly. It is well below [`GROW_ABOVE`], so that a change does not cause the next one.
const AIM: f64 = 0.6;

/// If requests wait for a thread longer than this on average, there are too few workers, however
/// little those are busy.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// What the workers had done by a moment.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    /// How long their threads were busy, all added up.
    busy: Duration,
    /// How long requests waited for a thread.
    waits: Histogram,
    /// Workers that serve.
    workers: usize,
    /// How many threads of each worker can be busy.
    threads: usize,
}

/// The numbers of workers that the autoscaler may choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    fewest: usize,
    most: usize,
}

/// What was seen of the load, and what it asks for.
#[derive(Debug)]
pub(super) struct Autoscaler {
    /// The samples of the last [`GROW_WINDOW`], and one before them.
    recent: VecDeque<Sample>,
    /// How many workers each look found to be needed, over the last [`SHRINK_WINDOW`].
    needed: VecDeque<(Instant, usize)>,
    last: Instant,
}

/// The load between two samples.
struct Load {
    /// How many workers were busy, on average.
    busy_workers: f64,
    /// How many workers serve.
    workers: usize,
    mean_wait: Duration,
}

impl Load {
    fn between(from: &Sample, to: &Sample) -> Load {
        let capacity = (to.at - from.at).as_secs_f64() * to.threads as f64;
        let busy = to.busy.saturating_sub(from.busy).as_secs_f64();
        let waits = to.waits.since(&from.waits);
        Load {
            busy_workers: busy / capacity.max(f64::EPSILON),
            workers: to.workers,
            mean_wait: Duration::from_nanos(waits.sum_ns / waits.count().max(1)),
        }
    }

    /// How many workers the load asks for.
    fn needed(&self) -> usize {
        let enough = (self.busy_workers / AIM).ceil() as usize;
        if self.is_too_much() { enough.max(self.workers + 1) } else { enough.max(1) }
    }

    fn is_too_much(&self) -> bool {
        self.share() > GROW_ABOVE || self.mean_wait > LONGEST_WAIT
    }

    /// The part of the workers' time that was used, 0 to 1.
    fn share(&self) -> f64 {
        self.busy_workers / self.workers.max(1) as f64
    }
}

impl Autoscaler {
    pub fn new() -> Autoscaler {
        Autoscaler { recent: VecDeque::new(), needed: VecDeque::new(), last: Instant::now() }
    }

    /// Takes in a sample. Returns how many workers there should be instead of `wanted`, and the
    /// load that asks for them; `None` for no change.
    fn look(&mut self, sample: Sample, wanted: usize, bounds: Bounds) -> Option<(usize, Load)> {
        let now = sample.at;
        self.recent.push_back(sample);
        while self.recent.len() > 2 && now - self.recent[1].at >= GROW_WINDOW {
            self.recent.pop_front();
        }
        let (from, to) = (self.recent.front()?, self.recent.back()?);
        if to.at - from.at < GROW_WINDOW || to.workers == 0 {
            return None;
        }
        let load = Load::between(from, to);
        self.needed.push_back((now, load.needed()));
        let count = match load.needed() {
            more if more > wanted && load.is_too_much() => more,
            _ => wanted.min(self.most_needed_for_long(now)?),
        };
        let count = count.clamp(bounds.fewest, bounds.most.max(bounds.fewest));
        (count != wanted).then_some((count, load))
    }

    /// The most workers that were needed within the last [`SHRINK_WINDOW`]; `None` until that time
    /// has passed.
    fn most_needed_for_long(&mut self, now: Instant) -> Option<usize> {
        while self.needed.get(1).is_some_and(|&(at, _)| now - at >= SHRINK_WINDOW) {
            self.needed.pop_front();
        }
        let &(first, _) = self.needed.front()?;
        (now - first >= SHRINK_WINDOW).then(|| self.needed.iter().map(|&(_, count)| count).max())?
    }

    /// Forgets the samples, because the workers have changed.
    pub(super) fn forget(&mut self) {
        *self = Autoscaler { last: self.last, ..Autoscaler::new() };
    }
}

impl Sample {
    fn take(board: &Scoreboard, config: &Config, workers: usize) -> Sample {
        // Where requests have no thread of their own, processor time counts as busy time.
        let by_threads = matches!(config.worker_class, WorkerClass::Sync | WorkerClass::Gthread);
        let busy = board.read_workers().into_iter().filter_map(|worker| match by_threads {
            true => Some(worker.totals.busy),
            false => board.cpu_of(worker.number),
        });
        Sample {
            at: Instant::now(),
            busy: busy.sum(),
            waits: board.queue_times(),
            workers,
            threads: if by_threads { config.threads.max(1) } else { 1 },
        }
    }
}

/// The most workers that `config` and the memory have room for.
fn most_workers(config: &Config, resources: Resources) -> usize {
    match config.max_workers {
        0 => found_count(config, resources),
        most => most.min(most_by_memory(config, resources)).min(MOST_WORKERS),
    }
}

impl Master {
    /// Changes the number of workers if the load asks for another one.
    pub(super) fn scale_by_load(&mut self) {
        let now = Instant::now();
        if self.autoscale_deadline().is_none_or(|due| due > now) {
            return;
        }
        self.sizing.autoscaler.last = now;
        if self.generations.candidate.is_some() {
            return self.sizing.autoscaler.forget();
        }
        let serving = &self.generations.serving;
        let config = serving.service.config.clone();
        let workers = self.workers.iter().filter(|worker| worker.is_serving()).count();
        let sample = Sample::take(self.workers.own_scoreboard(), &config, workers);
        let bounds = Bounds { fewest: serving.floor, most: most_workers(&config, Resources::measure(&config)) };
        let before = serving.wanted;
        let Some((count, load)) = self.sizing.autoscaler.look(sample, before, bounds) else { return };
        info!(
            "autoscale: {before} to {count} workers: {:.0} % busy, requests wait {} ms",
            load.share() * 100.0,
            load.mean_wait.as_millis()
        );
        self.workers.scoreboard().count_scaling(count > before);
        self.generations.serving.wanted = count;
        self.call_nworkers_changed(before);
    }

    /// Gives a generation that a reload has called the number of workers that the load has asked
    /// for.
    pub(super) fn keep_scale(&self, called: &mut Generation) {
        keep_wanted(called, self.generations.serving.wanted);
    }

    /// When to look at the load next; `None` without `autoscale`, where no workers are wanted, and
    /// before a stop.
    pub(super) fn autoscale_deadline(&self) -> Option<Instant> {
        let serving = &self.generations.serving;
        let follows =
            serving.service.config.autoscale && serving.wanted > 0 && !matches!(self.phase, Phase::Leaving(_));
        follows.then(|| self.sizing.autoscaler.last + INTERVAL)
    }
}

/// Gives a generation the number of workers that was `wanted` of the one before it, as far as its
/// settings allow; without `autoscale` it keeps its own.
pub(super) fn keep_wanted(generation: &mut Generation, wanted: usize) {
    let config = &generation.service.config;
    if config.autoscale {
        let most = most_workers(config, Resources::measure(config));
        generation.wanted = wanted.min(most).max(generation.floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { fewest: 2, most: 8 };

    /// A server whose workers follow at once, under a load of so many busy workers a second.
    struct Simulation {
        scaler: Autoscaler,
        now: Instant,
        busy: Duration,
        wanted: usize,
        changes: Vec<(u64, usize)>,
        seconds: u64,
    }

    impl Simulation {
        fn new(wanted: usize) -> Simulation {
            let (scaler, busy) = (Autoscaler::new(), Duration::ZERO);
            Simulation { scaler, now: Instant::now(), busy, wanted, changes: Vec::new(), seconds: 0 }
        }

        fn run(&mut self, seconds: u64, busy_workers: impl Fn(u64) -> f64) {
            for _ in 0..seconds {
                self.seconds += 1;
                self.now += INTERVAL;
                let busy = busy_workers(self.seconds).min(self.wanted as f64);
                self.busy += INTERVAL.mul_f64(busy);
                let (busy, waits) = (self.busy, Histogram::default());
                let sample = Sample { at: self.now, busy, waits, workers: self.wanted, threads: 1 };
                if let Some((count, _)) = self.scaler.look(sample, self.wanted, BOUNDS) {
                    self.wanted = count;
                    self.changes.push((self.seconds, count));
                }
            }
        }
    }

    #[test]
    fn a_load_that_doubles_and_falls_is_followed_fast_and_slowly_with_no_change_beside() {
        let mut server = Simulation::new(2);
        server.run(60, |_| 1.2);
        assert_eq!(server.changes, [], "two workers are enough");
        server.run(60, |_| 2.4);
        let grown = server.changes.clone();
        assert_eq!(server.wanted, 4);
        assert!(grown.iter().all(|&(second, _)| second <= 65), "{grown:?}");
        server.run(120, |_| 1.2);
        assert_eq!(server.wanted, 2);
        let shrunk = &server.changes[grown.len()..];
        assert!(!shrunk.is_empty() && shrunk.iter().all(|&(second, _)| (160..=180).contains(&second)), "{shrunk:?}");
    }

    #[test]
    fn a_load_that_comes_and_goes_within_a_minute_keeps_its_workers() {
        let mut server = Simulation::new(2);
        server.run(600, |second| if second / 20 % 2 == 0 { 0.1 } else { 3.0 });
        let (_, most) = server.changes[server.changes.len() - 1];
        assert_eq!(server.wanted, most);
        assert!(server.changes.windows(2).all(|pair| pair[0].1 < pair[1].1), "{:?}", server.changes);
    }

    #[test]
    fn the_bounds_hold_and_a_floor_that_moves_is_followed() {
        let mut server = Simulation::new(2);
        server.run(60, |_| 100.0);
        assert_eq!(server.wanted, BOUNDS.most);
        server.run(120, |_| 0.0);
        assert_eq!(server.wanted, BOUNDS.fewest);
        let narrow = Bounds { fewest: 3, most: 1 };
        let mut scaler = Autoscaler::new();
        let start = Instant::now();
        let idle = |second: u64| Sample {
            at: start + INTERVAL * second as u32,
            busy: Duration::ZERO,
            waits: Histogram::default(),
            workers: 2,
            threads: 1,
        };
        let counts: Vec<_> = (0..60).filter_map(|second| scaler.look(idle(second), 3, narrow)).collect();
        assert!(counts.is_empty(), "the floor counts where there is room for less");
    }

    #[test]
    fn requests_that_wait_ask_for_a_worker_more_though_threads_are_idle() {
        let mut scaler = Autoscaler::new();
        let start = Instant::now();
        let sample = |second: u64| {
            let mut waits = Histogram { sum_ns: second * 1_000_000_000, ..Histogram::default() };
            waits.buckets[0] = second * 10;
            let at = start + INTERVAL * second as u32;
            Sample { at, busy: Duration::ZERO, waits, workers: 2, threads: 4 }
        };
        let counts: Vec<usize> =
            (0..4).filter_map(|second| scaler.look(sample(second), 2, BOUNDS)).map(|(count, _)| count).collect();
        assert_eq!(counts, [3, 3]);
    }
}
