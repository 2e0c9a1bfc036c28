//! Counts the lines of this process's error log, by the kinds that statsd reports, and the lines of
//! both logs that were dropped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Level;

/// Lines since the counts were last taken: critical ones, errors, warnings, exceptions of the
/// application.
static COUNTS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// Lines of both logs that were dropped since this count was last taken.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Counts a line of this level. A line that tells of an exception counts only as that.
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

/// Counts an exception of the application that Python's logging has written.
pub fn note_exception() {
    note(Level::Error, true);
}

/// How many lines there were since the last call: critical ones, errors, warnings, exceptions.
pub fn take_line_counts() -> [u64; 4] {
    std::array::from_fn(|kind| if COUNTS[kind].load(Relaxed) == 0 { 0 } else { COUNTS[kind].swap(0, Relaxed) })
}

/// Counts lines that were dropped because their target does not take them.
pub fn note_dropped(lines: u64) {
    DROPPED.fetch_add(lines, Relaxed);
}

/// How many lines were dropped since the last call.
pub fn take_dropped_lines() -> u64 {
    if DROPPED.load(Relaxed) == 0 { 0 } else { DROPPED.swap(0, Relaxed) }
}
