//! Clocks: coarse ones, which are read at every request, and the one that several processes share.
//!
//! The coarse clocks of Linux lag behind by a few milliseconds at most, and reading them costs a
//! tenth of reading the exact ones (clock_gettime(2), CLOCK_MONOTONIC_COARSE).

use std::time::Instant;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// Milliseconds of CLOCK_MONOTONIC (clock_gettime(2)): the same scale in the master and in every
/// worker, untouched by changes of the wall clock. `Instant` does not do, because its value is
/// private to the process.
pub fn monotonic_ms() -> u64 {
    let now = read(ClockId::CLOCK_MONOTONIC_COARSE);
    now.tv_sec() as u64 * 1000 + now.tv_nsec() as u64 / 1_000_000
}

/// The same clock, exactly, in microseconds, as sd_notify(3) wants it.
pub fn monotonic_us() -> u64 {
    let now = read(ClockId::CLOCK_MONOTONIC);
    now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1000
}

/// The same clock, exactly, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let now = read(ClockId::CLOCK_MONOTONIC);
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Turns an `Instant` into nanoseconds of the clock that several processes share, without a look at
/// the clock.
#[derive(Debug, Clone, Copy)]
pub struct SharedScale {
    origin: Instant,
    origin_ns: u64,
}

impl SharedScale {
    /// A scale whose origin is this moment. It also holds for earlier moments.
    pub fn new() -> SharedScale {
        SharedScale { origin_ns: monotonic_ns(), origin: Instant::now() }
    }

    /// Nanoseconds of CLOCK_MONOTONIC at this moment.
    pub fn nanoseconds(&self, at: Instant) -> u64 {
        match at.checked_duration_since(self.origin) {
            Some(since) => self.origin_ns + since.as_nanos() as u64,
            None => self.origin_ns.saturating_sub((self.origin - at).as_nanos() as u64),
        }
    }
}

impl Default for SharedScale {
    fn default() -> SharedScale {
        SharedScale::new()
    }
}

/// Milliseconds since the epoch (CLOCK_REALTIME). A clock set before 1970 reads 0.
pub fn unix_time_ms() -> u64 {
    let now = read(ClockId::CLOCK_REALTIME);
    u64::try_from(now.tv_sec()).map_or(0, |seconds| seconds * 1000 + now.tv_nsec() as u64 / 1_000_000)
}

/// Seconds since the epoch (CLOCK_REALTIME). A clock set before 1970 reads 0.
pub fn unix_time() -> u64 {
    read(ClockId::CLOCK_REALTIME_COARSE).tv_sec().try_into().unwrap_or(0)
}

/// By how many seconds local time is ahead of UTC at `second` since the epoch. 0 where that is
/// unknown.
///
/// The time zone is the one that the C library has read (tzset(3)), as for Python's
/// `time.localtime`: at its first use, and at each call of `time.tzset()`. glibc's localtime_r(3)
/// does not read the environment, which the application may be changing on another thread. musl's
/// does, at each call.
pub fn utc_offset(second: i64) -> i32 {
    // SAFETY: an all-zero tm is a valid value of plain numbers and a null pointer; localtime_r
    // reads one live value and fills the other, or returns null, and keeps neither.
    unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&second, &mut local).is_null() { 0 } else { local.tm_gmtoff as i32 }
    }
}

/// Makes the C library read `TZ` again, after the settings have changed it.
pub fn take_up_time_zone() {
    unsafe extern "C" {
        fn tzset();
    }
    // SAFETY: POSIX's tzset(3), which takes nothing and returns nothing; called where no other
    // thread changes the environment.
    unsafe { tzset() }
}

/// The call fails for an unknown clock only. Every kernel that the server runs on has these.
fn read(clock: ClockId) -> TimeSpec {
    clock_gettime(clock).unwrap_or(TimeSpec::new(0, 0))
}
