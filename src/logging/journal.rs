//! Priorities for systemd's journal: lines that the journal reads from a stream may begin with
//! `<N>` (sd-daemon(3)).
//!
//! `JOURNAL_STREAM` has the device and inode of the stream that goes to the journal
//! (systemd.exec(5)).

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use super::Level;

/// Set by systemd for a service whose standard output or standard error goes to the journal.
const VARIABLE: &str = "JOURNAL_STREAM";

/// Whether the journal reads what is written to `file`.
pub(super) fn reads(file: &File) -> bool {
    let Ok(said) = std::env::var(VARIABLE) else { return false };
    file.metadata().is_ok_and(|data| said == format!("{}:{}", data.dev(), data.ino()))
}

/// The text with the priority of `level` before each of its lines: the journal takes each line for
/// a record.
pub(super) fn prefixed(text: &[u8], level: Level) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 16);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        out.extend_from_slice(format!("<{}>", priority(level)).as_bytes());
        out.extend_from_slice(line);
    }
    out
}

/// The number of the level in syslog (RFC 5424, 6.2.1).
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::Debug => 7,
        Level::Info => 6,
        Level::Warning => 4,
        Level::Error => 3,
        Level::Critical => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_record_has_its_priority() {
        assert_eq!(prefixed(b"first\nsecond\n", Level::Error), b"<3>first\n<3>second\n");
        assert!(prefixed(b"", Level::Info).is_empty());
    }
}
