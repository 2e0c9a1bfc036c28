//! The two logs: what the server says (the error log) and what it served (the access log).
//!
//! Both write gunicorn's lines, so that programs that read gunicorn's logs read these. [`sink`]
//! keeps one promise for both: a line is written whole or not at all, and no target, however full,
//! broken or stalled, stops the server. This layer knows neither the settings table, nor HTTP, nor
//! Python: it takes plain values and writes bytes.
//!
//! The layer has no threads, and holds no lock for longer than a copy of a pointer or one bounded
//! write. A process forks between two records
//! ([`fork::hold_at_forks`](crate::sys::fork::hold_at_forks)): a thread of a hook or of the
//! application may log at that moment, and the child may log too.

pub mod access_format;
pub mod access_log;
mod basic_user;
mod entry;
mod error_log;
mod escape;
mod journal;
mod json;
mod level;
mod line_counts;
mod local_time;
mod object;
mod redirect;
mod schemas;
mod scope;
mod sink;
mod syslog;

use std::fmt;
use std::io;

pub use access_format::{AccessFormat, AccessRecord};
pub use access_log::{AccessLog, TakenLine};
pub use entry::{AccessEntry, Schema, note_worker};
pub use error_log::{
    admit, init, last_resort, level, reopen, set_level, syslog, write_access_to_syslog, write_raw, write_record,
    write_stream,
};
pub use json::access_object;
pub use level::Level;
pub use line_counts::{note_dropped, note_exception, take_dropped_lines, take_line_counts};
pub use redirect::{LogRedirect, redirect};
pub use scope::{Failure, RequestIds, Scope, TraceIds, within};
pub use syslog::{Syslog, SyslogSettings};

/// The log target of a record that is shown as `CRITICAL`, a level of Python that the crate `log`
/// lacks: `log::error!(target: logging::CRITICAL, "WORKER TIMEOUT (pid:{pid})")`.
pub const CRITICAL: &str = "monoceros::critical";

/// The settings of the error log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Where the lines go: `-` for standard error, or a file to append to.
    pub errorlog: String,
    /// The least level written: debug, info, warning, error or critical in any case; anything else
    /// means info, as in gunicorn.
    pub level: String,
    /// The names by which each line is a JSON object; `None` writes gunicorn's lines.
    pub json: Option<Schema>,
    /// The way to syslog, if the server itself sends the lines there as well.
    pub syslog: Option<SyslogSettings>,
    /// Whether file descriptors 1 and 2 become the error log's file. It has no effect if `errorlog`
    /// is a standard stream.
    pub capture_output: bool,
    /// The user and group id that own the file, so that workers without privileges can reopen it.
    pub owner: Option<(u32, u32)>,
}

/// A log that cannot be opened; its text names the setting, the path and the system's reason.
#[derive(Debug)]
pub struct LogError {
    setting: &'static str,
    target: String,
    source: io::Error,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}' isn't writable: {}", self.setting, self.target, self.source)
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
