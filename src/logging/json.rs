//! Both logs as JSON: one object per line (`log_format = "json"`), for log collectors.
//!
//! Bytes of the client become characters as in the text form (see [`super::access_format`]); JSON's
//! escapes keep an object on one line, and control characters out of it (see [`super::escape`]).

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use super::access_format::AccessRecord;
use super::basic_user::basic_user;
use super::{escape, local_time};

#[derive(Serialize)]
struct Entry<'a> {
    time: String,
    pid: u32,
    level: &'a str,
    message: String,
}

#[derive(Serialize)]
struct AccessEntry {
    time: String,
    pid: u32,
    remote_addr: String,
    user: Option<String>,
    method: String,
    target: String,
    protocol: String,
    status: u16,
    bytes: u64,
    /// Seconds.
    duration: f64,
    referer: Option<String>,
    user_agent: Option<String>,
}

/// Writes a record of the error log.
///
/// # Errors
/// Those of `out`.
pub(super) fn write_record(out: &mut impl Write, level: &str, message: &fmt::Arguments<'_>) -> io::Result<()> {
    let mut line = Vec::new();
    push(&mut line, &Entry { time: now(), pid: std::process::id(), level, message: message.to_string() });
    line.push(b'\n');
    out.write_all(&line)
}

/// Appends the object of one answered request to `out`.
pub(super) fn render_access(out: &mut Vec<u8>, record: &impl AccessRecord) {
    let entry = AccessEntry {
        time: now(),
        pid: std::process::id(),
        remote_addr: latin1(record.remote_addr()),
        user: record.request_header("authorization").and_then(basic_user),
        method: latin1(record.method()),
        target: latin1(record.raw_uri()),
        protocol: latin1(record.protocol()),
        status: record.status(),
        bytes: record.bytes_sent(),
        duration: record.duration().as_secs_f64(),
        referer: record.request_header("referer").map(latin1),
        user_agent: record.request_header("user-agent").map(latin1),
    };
    push(out, &entry);
}

fn push(out: &mut Vec<u8>, entry: &impl Serialize) {
    // JSON has a form for every field of an entry, so this cannot fail.
    escape::push_json(out, &serde_json::to_string(entry).unwrap_or_default());
}

/// RFC 3339, local time with its offset, to the millisecond.
fn now() -> String {
    local_time::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, false)
}

/// Each byte is the Latin-1 character of that number (PEP 3333).
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_that_reads_back() {
        let mut line = Vec::new();
        write_record(&mut line, "ERROR", &format_args!("first \"quoted\"\nsecond \u{1}\u{85}\u{2028}")).unwrap();
        let text = String::from_utf8(line.clone()).unwrap();
        assert_eq!(text.find(['\n', '\u{85}', '\u{2028}']), Some(text.len() - 1));
        let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(read["message"], "first \"quoted\"\nsecond \u{1}\u{85}\u{2028}");
        assert_eq!(read["level"], "ERROR");
        assert!(chrono::DateTime::parse_from_rfc3339(read["time"].as_str().unwrap()).is_ok());
    }
}
