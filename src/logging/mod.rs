//! The two logs: what the server says (the error log) and what it served (the access log).
//!
//! Both write gunicorn's lines, so that whatever reads gunicorn's logs reads these. Both hold to
//! one promise, kept in [`sink`]: a line goes out whole or not at all, and no target, however full,
//! broken or stalled, stops the server. This floor knows no settings table, no HTTP and no Python:
//! plain values come in, bytes go out.
//!
//! There are no threads here and no lock is held for longer than a copy of a pointer or one bounded
//! write. Whoever forks does so between two records ([`between_records`]): a hook may have started
//! threads that log.

pub mod access_format;
pub mod access_log;
mod basic_user;
mod error_log;
mod escape;
mod json;
mod local_time;
mod redirect;
mod sink;

use std::fmt;
use std::io;

pub use access_format::{AccessFormat, AccessRecord};
pub use access_log::AccessLog;
pub use error_log::{admit, between_records, init, last_resort, level, reopen, say, write_raw, write_stream};
pub use redirect::{LogRedirect, redirect};

/// The log target of a record that shows as `CRITICAL`, the level that Python has and the crate
/// `log` has not: `log::error!(target: logging::CRITICAL, "WORKER TIMEOUT (pid:{pid})")`.
pub const CRITICAL: &str = "monoceros::critical";

/// What the error log needs to know of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Where the lines go: `-` for standard error, or a file to append to.
    pub errorlog: String,
    /// The least level written: debug, info, warning, error or critical in any case; anything else
    /// means info, as in gunicorn.
    pub level: String,
    /// Whether a line is a JSON object.
    pub json: bool,
    /// Whether file descriptors 1 and 2 are laid onto the error log's file. Of no effect where
    /// `errorlog` is a standard stream.
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
