//! The clock that never jumps, as a number that several processes can share.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds of CLOCK_MONOTONIC (clock_gettime(2)): the same scale in the master and in every worker, untouched by
/// changes of the wall clock. `Instant` would do, were its value not private to the process.
pub fn monotonic_ms() -> u64 {
    monotonic_us() / 1000
}

/// The same in microseconds, as sd_notify(3) wants it.
pub fn monotonic_us() -> u64 {
    // The call can only fail for an unknown clock, and POSIX requires this one wherever it is defined.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(|now| now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1000)
        .unwrap_or(0)
}
