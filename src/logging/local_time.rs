//! Local time for log lines: the process's, as in Python's logging.
//!
//! An application that sets `TZ` and calls `time.tzset()`, as Django does, sets the time zone of
//! the logs as well, as under gunicorn.

use std::time::SystemTime;

use chrono::{DateTime, FixedOffset, Offset, Utc};

use crate::sys::clock;

/// `time` with its offset from UTC.
pub fn local(time: SystemTime) -> DateTime<FixedOffset> {
    let time = DateTime::<Utc>::from(time);
    let offset = FixedOffset::east_opt(clock::utc_offset(time.timestamp())).unwrap_or_else(|| Utc.fix());
    time.with_timezone(&offset)
}

/// The current time.
pub fn now() -> DateTime<FixedOffset> {
    local(SystemTime::now())
}
