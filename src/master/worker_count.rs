//! How many workers there should be: the user's number, or as many as there is room for.

use log::{info, warn};

use crate::settings::{Config, WorkersSetting};

use super::resources::{self, Resources};
use super::workers::MOST_WORKERS;

/// The memory that a worker is expected to need if `max_worker_memory` does not say: Heroku's
/// figure, which its buildpack and its users size by.
const USUAL_WORKER_MEMORY: u64 = 256 << 20;

/// The master warns if a limit leaves each worker less than this: an interpreter with a small
/// application needs as much.
const LEAST_WORKER_MEMORY: u64 = 32 << 20;

/// A number of workers, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WorkerCount {
    /// At most as many as the scoreboard holds.
    pub count: usize,
    /// The resources for which `workers = auto` has found the number; `None` for the user's own
    /// number.
    pub found_for: Option<Resources>,
}

/// The number of workers that `config` asks for. Logs what `auto` has found, and what cannot be
/// right.
pub(super) fn worker_count(config: &Config) -> WorkerCount {
    let resources = Resources::measure(config);
    match config.workers {
        WorkersSetting::Auto => {
            resources::warn_of_unreadable(config);
            log_found(config, resources);
            WorkerCount { count: found_count(config, resources), found_for: Some(resources) }
        }
        WorkersSetting::Count(asked) => {
            let count = asked.min(MOST_WORKERS);
            if count < asked {
                warn!("{asked} workers are asked for, {count} are the most there can be");
            }
            warn_of_little_room(count, resources);
            WorkerCount { count, found_for: None }
        }
    }
}

/// What `workers = auto` means with these resources.
pub(super) fn found_count(config: &Config, resources: Resources) -> usize {
    let Resources { processors, memory, .. } = resources;
    fitting(processors, memory, worker_memory(config), config.max_workers).min(MOST_WORKERS)
}

/// The most workers that there is memory for.
pub(super) fn most_by_memory(config: &Config, resources: Resources) -> usize {
    fit_into(resources.memory, worker_memory(config))
}

/// Says what `workers = auto` has found, and whether there is room for a worker at all.
pub(super) fn log_found(config: &Config, resources: Resources) {
    let Resources { processors, memory, .. } = resources;
    let (count, each) = (found_count(config, resources), worker_memory(config));
    let room = memory.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} MB", bytes >> 20));
    info!("workers = auto: {count} for {processors} processors and a memory of {room}");
    if memory.is_some_and(|memory| memory < each) {
        warn!("A memory of {room} has no room for a worker of {} MB; one is started all the same", each >> 20);
    }
}

fn worker_memory(config: &Config) -> u64 {
    match config.max_worker_memory {
        0 => USUAL_WORKER_MEMORY,
        bytes => bytes,
    }
}

/// Two workers for each processor and one more, but no more than there is memory for. At least one;
/// with a `most` that is not 0, at most that many.
fn fitting(processors: usize, memory: Option<u64>, each: u64, most: usize) -> usize {
    let most = if most == 0 { usize::MAX } else { most };
    processors.saturating_mul(2).saturating_add(1).min(fit_into(memory, each)).min(most).max(1)
}

fn fit_into(memory: Option<u64>, each: u64) -> usize {
    memory.map_or(usize::MAX, |memory| usize::try_from(memory / each.max(1)).unwrap_or(usize::MAX))
}

fn warn_of_little_room(count: usize, resources: Resources) {
    let Some(memory) = resources.memory.filter(|_| resources.is_limited) else { return };
    let each = memory / count.max(1) as u64;
    if each < LEAST_WORKER_MEMORY {
        let memory = memory >> 20;
        warn!(
            "{count} workers share a memory of {memory} MB, which has no room for them; workers = auto starts as many as fit"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcest_decides_and_one_there_is_always() {
        let cases = [
            ((4, None, 100, 32), 9),
            ((4, Some(500), 100, 32), 5),
            ((4, Some(50), 100, 32), 1),
            ((64, Some(1 << 40), 100, 32), 32),
            ((64, Some(1 << 40), 100, 0), 129),
            ((1, Some(10), 0, 32), 3),
            ((usize::MAX, None, 1, 0), usize::MAX),
        ];
        for ((processors, memory, each, most), expected) in cases {
            assert_eq!(fitting(processors, memory, each, most), expected, "{processors} {memory:?} {each} {most}");
        }
    }

    /// What its buildpack makes of the memory and the processors of its dynos.
    #[test]
    fn herokus_table_holds() {
        for (mebibytes, processors, workers) in [
            (512, 8, 2),
            (1024, 8, 4),
            (2560, 2, 5),
            (14 << 10, 8, 17),
            (30 << 10, 4, 9),
            (128 << 10, 16, 33),
            (64, 1, 1),
        ] {
            let count = fitting(processors, Some(mebibytes << 20), USUAL_WORKER_MEMORY, 0);
            assert_eq!(count, workers, "{mebibytes} MiB, {processors} processors");
        }
    }
}
