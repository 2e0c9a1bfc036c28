//! The access log: a line for each answered request, gathered in a buffer and written once per turn
//! of the event loop.
//!
//! Lines have gunicorn's text (see [`super::access_format`]). A line costs neither a system call
//! nor an allocation of its own. A crash of the process loses the lines of one turn at most.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::access_format::{AccessFormat, AccessRecord};
use super::line_counts::note_dropped;
use super::local_time;
use super::sink::{Sink, Standard};
use super::syslog::{Origin, Syslog};
use super::{Level, LogError};

/// The buffer is written early at this many bytes: some four hundred lines.
const FLUSH_AT: usize = 64 * 1024;

/// How long a turn of the event loop waits for a full target before its lines are dropped.
const FULL_LOG_WAIT: Duration = Duration::from_millis(20);

/// How long the lines of a turn of the event loop wait for a syslog that is full. The rest is
/// dropped.
const FULL_SYSLOG_WAIT: Duration = Duration::from_millis(200);

/// An open access log. Lines recorded and not flushed are lost when it is dropped.
pub struct AccessLog {
    outlet: Outlet,
    format: AccessFormat,
    buffer: Vec<u8>,
    clock: Option<Clock>,
    /// Syslog, if the lines go there as well.
    syslog: Option<Arc<Syslog>>,
}

/// Where the lines go.
enum Outlet {
    File {
        target: String,
        owner: Option<(u32, u32)>,
        sink: Sink,
    },
    /// A function takes them, one by one.
    Taker {
        take: Taker,
        atoms: AccessFormat,
    },
    /// Nowhere but to syslog.
    Nowhere,
}

/// Takes a line. Must not block.
pub type Taker = Box<dyn Fn(TakenLine) + Send>;

/// A line for somebody else to write, who may want to know what it was made of.
#[derive(Debug, PartialEq, Eq)]
pub struct TakenLine {
    /// The line, without its end.
    pub line: String,
    /// What the atoms h, u, m, r, U, q, H, s, B, D, f and a would show, in this order. Between two
    /// of them stands U+001F, which is in none of them: controls are escaped there.
    pub atoms: String,
}

/// Stands between two of the atoms of a [`TakenLine`].
const SEPARATOR: &str = "\x1f";

/// The atoms of a [`TakenLine`].
const ATOMS: [&str; 12] = ["h", "u", "m", "r", "U", "q", "H", "s", "B", "D", "f", "a"];

impl AccessLog {
    /// Opens `target`: `-` for standard output, or a file to append to, which is given to `owner`
    /// (user and group id), if any.
    pub fn open(target: &str, format: AccessFormat, owner: Option<(u32, u32)>) -> Result<Self, LogError> {
        let sink = open_sink(target, owner)?;
        Ok(AccessLog::with_outlet(Outlet::File { target: target.to_owned(), owner, sink }, format))
    }

    /// A log that passes its lines to syslog alone.
    pub fn in_syslog(syslog: Arc<Syslog>, format: AccessFormat) -> Self {
        AccessLog::with_outlet(Outlet::Nowhere, format).copied_to(Some(syslog))
    }

    /// The same log, whose lines go to `syslog` as well.
    pub fn copied_to(self, syslog: Option<Arc<Syslog>>) -> Self {
        AccessLog { syslog, ..self }
    }

    /// A log that passes its lines to `taker`.
    pub fn handed_to(taker: Taker, format: AccessFormat) -> Self {
        AccessLog::with_outlet(Outlet::taker(taker), format)
    }

    /// Passes the lines to `taker` from now on, unless another taker is set. Earlier lines still go
    /// to the earlier target.
    pub fn hand_to(&mut self, taker: impl FnOnce() -> Taker) {
        if !matches!(self.outlet, Outlet::Taker { .. }) {
            self.flush();
            self.outlet = Outlet::taker(taker());
            self.syslog = None;
        }
    }

    fn with_outlet(outlet: Outlet, format: AccessFormat) -> Self {
        AccessLog { outlet, buffer: Vec::new(), clock: format.shows_time().then(Clock::new), format, syslog: None }
    }

    /// The format, which tells the values to keep of a response.
    pub fn format(&self) -> &AccessFormat {
        &self.format
    }

    /// Adds the line of one request.
    pub fn record(&mut self, record: &impl AccessRecord) {
        let time = self.clock.as_mut().map_or(b"".as_slice(), |clock| clock.show(SystemTime::now()));
        self.format.render(&mut self.buffer, record, time);
        if let Outlet::Taker { take, atoms } = &self.outlet {
            let line = as_line(&mut self.buffer);
            atoms.render(&mut self.buffer, record, b"");
            take(TakenLine { line, atoms: as_line(&mut self.buffer) });
        }
        if self.buffer.len() >= FLUSH_AT {
            self.flush();
        }
    }

    /// Writes the recorded lines, if any. The event loop calls it once per turn before it sleeps,
    /// and at the end. Lines that the target does not take are dropped.
    pub fn flush(&mut self) {
        if !self.buffer.is_empty() {
            if let Outlet::File { sink, .. } = &self.outlet {
                sink.write_lines(&self.buffer, FULL_LOG_WAIT);
            }
            if let Some(syslog) = &self.syslog {
                let lines = String::from_utf8_lossy(&self.buffer);
                let end = Instant::now() + FULL_SYSLOG_WAIT;
                for line in lines.lines() {
                    if Instant::now() < end {
                        syslog.send(Origin::Access, Level::Info, line);
                    } else {
                        note_dropped(1);
                    }
                }
            }
            self.buffer.clear();
        }
    }

    /// Reopens the target (USR1, after log rotation). Lines recorded before go to the old file. If
    /// the target cannot be opened, the old file stays in use.
    pub fn reopen(&mut self) -> Result<(), LogError> {
        self.flush();
        if let Outlet::File { target, owner, sink } = &mut self.outlet {
            *sink = open_sink(target, *owner)?;
        }
        Ok(())
    }
}

impl Outlet {
    fn taker(take: Taker) -> Outlet {
        let atoms = ATOMS.map(|name| format!("%({name})s")).join(SEPARATOR);
        Outlet::Taker { take, atoms: AccessFormat::compile(&atoms) }
    }
}

/// Takes the line that the buffer holds out of it, without its end.
fn as_line(buffer: &mut Vec<u8>) -> String {
    let line = String::from_utf8_lossy(buffer).trim_end_matches('\n').to_owned();
    buffer.clear();
    line
}

fn open_sink(target: &str, owner: Option<(u32, u32)>) -> Result<Sink, LogError> {
    Sink::open(target, Standard::Output, owner).map_err(|source| LogError {
        setting: "accesslog",
        target: target.to_owned(),
        source,
    })
}

/// The time of day as the Common Log Format shows it, `[20/Nov/2026:07:37:18 +0000]`, rendered at
/// most once a second.
#[derive(Debug)]
struct Clock {
    second: u64,
    text: Vec<u8>,
}

impl Clock {
    fn new() -> Self {
        // No second is rendered yet: u64::MAX is never the current one.
        Clock { second: u64::MAX, text: Vec::new() }
    }

    fn show(&mut self, now: SystemTime) -> &[u8] {
        // A clock set before 1970 shows 1970 instead of stopping the log.
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second {
            self.second = second;
            let local = local_time::local(UNIX_EPOCH + Duration::from_secs(second));
            self.text = local.format("[%d/%b/%Y:%H:%M:%S %z]").to_string().into_bytes();
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    struct Hello;

    impl AccessRecord for Hello {
        fn remote_addr(&self) -> &[u8] {
            b"127.0.0.1"
        }
        fn method(&self) -> &[u8] {
            b"GET"
        }
        fn raw_uri(&self) -> &[u8] {
            b"/"
        }
        fn protocol(&self) -> &[u8] {
            b"HTTP/1.1"
        }
        fn path(&self) -> &[u8] {
            b"/"
        }
        fn query(&self) -> &[u8] {
            b""
        }
        fn status(&self) -> u16 {
            200
        }
        fn bytes_sent(&self) -> u64 {
            12
        }
        fn duration(&self) -> Duration {
            Duration::from_micros(42)
        }
        fn request_header(&self, _name: &str) -> Option<&[u8]> {
            None
        }
        fn response_header(&self, _index: usize) -> Option<&[u8]> {
            None
        }
        fn environ_value(&self, _index: usize) -> Option<&str> {
            None
        }
    }

    fn open(path: &Path) -> AccessLog {
        AccessLog::open(path.to_str().unwrap(), AccessFormat::compile("%(r)s %(L)s"), None).unwrap()
    }

    fn lines(path: &Path) -> usize {
        std::fs::read_to_string(path).unwrap().lines().filter(|line| *line == "GET / HTTP/1.1 0.000042").count()
    }

    #[test]
    fn lines_are_written_at_the_flush_and_before_the_buffer_grows_past_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access");
        let mut log = open(&path);
        log.record(&Hello);
        log.record(&Hello);
        assert_eq!(lines(&path), 0);
        log.flush();
        assert_eq!(lines(&path), 2);
        for _ in 0..FLUSH_AT / 24 + 1 {
            log.record(&Hello);
        }
        assert!(lines(&path) > 2000);
        assert!(log.buffer.len() < FLUSH_AT);
    }

    #[test]
    fn reopening_starts_a_new_file_and_a_failure_keeps_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let path = inner.join("access");
        let mut log = open(&path);
        log.record(&Hello);
        std::fs::rename(&path, inner.join("access.1")).unwrap();
        log.reopen().unwrap();
        log.record(&Hello);
        log.flush();
        assert_eq!((lines(&inner.join("access.1")), lines(&path)), (1, 1));

        let moved = folder.path().join("moved");
        std::fs::rename(&inner, &moved).unwrap();
        assert!(log.reopen().unwrap_err().to_string().starts_with("accesslog '"));
        log.record(&Hello);
        log.flush();
        assert_eq!(lines(&moved.join("access")), 2);
    }

    #[test]
    fn the_time_of_day_is_rendered_once_a_second() {
        let mut clock = Clock::new();
        let now = UNIX_EPOCH + Duration::from_millis(1_795_160_238_100);
        let shown = String::from_utf8(clock.show(now).to_vec()).unwrap();
        let parsed = chrono::DateTime::parse_from_str(&shown, "[%d/%b/%Y:%H:%M:%S %z]").unwrap();
        assert_eq!(parsed.timestamp(), 1_795_160_238);
        assert_eq!(clock.show(now + Duration::from_millis(800)), shown.as_bytes());
        assert_ne!(clock.show(now + Duration::from_millis(900)), shown.as_bytes());
    }
}
