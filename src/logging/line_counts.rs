//! How many lines of this process's error log there were, by kinds that statsd tells; and how many
//! of its lines, of either log, nobody has.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Level;

/// Critical ones, errors, warnings, exceptions of the application's; since they were last taken.
static COUNTS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// Lines of both logs that were dropped since they were last taken.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// A line of this level was logged, of an exception or not.
pub(super) fn note(level: Level, is_exception: bool) {
    let kind = match level {
        _ if is_exception => 3,
        Level::Critical => 0,
        Level::Error => 1,
        Level::Warning => 2,
        Level::Info | Level::Debug => return,
    };
    COUNTS[kind].fetch_add(1, Relaxed);
}

/// How many there were since the last call: critical ones, errors, warnings, exceptions.
pub fn take_line_counts() -> [u64; 4] {
    std::array::from_fn(|kind| if COUNTS[kind].load(Relaxed) == 0 { 0 } else { COUNTS[kind].swap(0, Relaxed) })
}

/// Lines were dropped: their target does not take them.
pub fn note_dropped(lines: u64) {
    DROPPED.fetch_add(lines, Relaxed);
}

/// How many were dropped since the last call.
pub fn take_dropped_lines() -> u64 {
    if DROPPED.load(Relaxed) == 0 { 0 } else { DROPPED.swap(0, Relaxed) }
}
