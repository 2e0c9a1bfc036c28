//! How many workers there should be: the user's number, or as many as the machine has room for.

use std::num::NonZero;
use std::thread;

use log::{info, warn};

use crate::settings::{Config, Workers};
use crate::sys::{cgroup, memory};

use super::workers::MOST_WORKERS;

/// The memory that a worker is expected to need if `max_worker_memory` does not say: that of a
/// Django site of middling size.
const USUAL_WORKER_MEMORY: u64 = 100 << 20;

/// The number of workers that `config` asks for, at most as many as the scoreboard holds.
pub(super) fn worker_count(config: &Config) -> usize {
    let asked = match config.workers {
        Workers::Count(count) => count,
        Workers::Auto => automatic(config),
    };
    let wanted = asked.min(MOST_WORKERS);
    if wanted < asked {
        warn!("{asked} workers are asked for, {wanted} are the most there can be");
    }
    wanted
}

fn automatic(config: &Config) -> usize {
    // The standard library respects affinity and the cgroup's quota, of both versions.
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let room = [cgroup::memory_limit(), memory::total()].into_iter().flatten().min();
    let each = match config.max_worker_memory {
        0 => USUAL_WORKER_MEMORY,
        bytes => bytes,
    };
    let count = fitting(processors, room, each, config.max_workers);
    let room = room.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} MB", bytes >> 20));
    info!("workers = auto: {count} for {processors} processors and a memory of {room}");
    count
}

/// gunicorn's rule of thumb, bounded. At least one worker.
fn fitting(processors: usize, room: Option<u64>, each: u64, most: usize) -> usize {
    let by_memory = room.map_or(usize::MAX, |room| usize::try_from(room / each.max(1)).unwrap_or(usize::MAX));
    (2 * processors + 1).min(by_memory).min(most).max(1)
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
            ((1, None, 100, 0), 1),
            ((1, Some(10), 0, 32), 3),
        ];
        for ((processors, room, each, most), expected) in cases {
            assert_eq!(fitting(processors, room, each, most), expected, "{processors} {room:?} {each} {most}");
        }
    }
}
