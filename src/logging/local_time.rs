//! Local time for log lines: that of the process, as Python's logging has it.
//!
//! An application that sets `TZ` and calls `time.tzset()`, as Django does, sets it for the logs,
//! too; so it does under gunicorn.

use std::time::SystemTime;

use chrono::{DateTime, FixedOffset, Offset, Utc};

use crate::sys::clock;

/// `time` with its distance from UTC.
pub fn local(time: SystemTime) -> DateTime<FixedOffset> {
    let time = DateTime::<Utc>::from(time);
    let offset = FixedOffset::east_opt(clock::utc_offset(time.timestamp())).unwrap_or_else(|| Utc.fix());
    time.with_timezone(&offset)
}

/// The time that it is.
pub fn now() -> DateTime<FixedOffset> {
    local(SystemTime::now())
}
