//! The error log: every record of the crate `log`, in gunicorn's shape, through env_logger.
//!
//! ```text
//! [2026-11-20 07:37:16 +0000] [31384] [INFO] Starting monoceros 0.2.0
//! ```
//!
//! env_logger is installed once for the life of the process. [`CURRENT`] holds what may change
//! under HUP, and [`LEAST`] the level. A record is formatted into one buffer and written at once,
//! so a traceback stays together and lines of many processes do not mix.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use log::{LevelFilter, Record};

use super::sink::{Sink, Standard, standard_stream};
use super::syslog::{Origin, Syslog};
use super::{
    CRITICAL, Level, LogError, LogSettings, Scope, SyslogSettings, escape, journal, json, line_counts, local_time,
    redirect, scope,
};
use crate::base::unpoisoned::Unpoisoned;
use crate::sys::{fork, output};

/// Only records of this crate are written: records of libraries tell an operator nothing.
const OWN_RECORDS: &str = "monoceros";

/// How long a record waits for a target that is full. An error is worth a longer wait than an
/// access line, but a bounded one.
const FULL_LOG_WAIT: Duration = Duration::from_millis(200);

/// The level of lines from `wsgi.errors` when they become records: the stream is for errors.
const STREAM_LEVEL: Level = Level::Error;

/// The log in use. The lock is held only to copy or to exchange the pointer, never while writing.
static CURRENT: RwLock<Option<Arc<ErrorLog>>> = RwLock::new(None);

/// The least level that is written, as Python's `logging` numbers it. It may change without
/// [`CURRENT`], and reopening keeps it.
static LEAST: AtomicU32 = AtomicU32::new(20);

/// Formats the lines of [`CURRENT`].
static LINES: OnceLock<env_logger::Logger> = OnceLock::new();

/// Held while a record is written, and while the process forks. So a child can log although another
/// thread was logging at the fork.
static GATE: Mutex<()> = Mutex::new(());

/// See [`last_resort`].
static LAST_RESORT: Mutex<Option<OwnedFd>> = Mutex::new(None);

struct ErrorLog {
    settings: LogSettings,
    sink: Sink,
    /// Whether systemd's journal reads the lines, which then have their priorities in front.
    is_journal: bool,
    syslog: Option<Arc<Syslog>>,
}

/// Starts the error log, or points it to another target when called again (HUP).
///
/// If the target cannot be opened, the log in use stays unchanged and the error tells why. Call it
/// after daemonizing, or call [`reopen`] then: it uses the standard streams that are open at this
/// moment.
pub fn init(settings: &LogSettings) -> Result<(), LogError> {
    let syslog = settings.syslog.as_ref().map(open_syslog).transpose()?;
    let opened = ErrorLog::open(settings, syslog)?;
    set_level(Level::named(&settings.level));
    exchange(opened);
    install();
    Ok(())
}

/// Reopens the target (USR1, after log rotation). If that fails, the old file stays in use and the
/// error is returned.
pub fn reopen() -> Result<(), LogError> {
    match current() {
        Some(log) => ErrorLog::open(&log.settings, log.syslog.clone()).map(exchange),
        None => Ok(()),
    }
}

/// A descriptor of the error log whose number stays the same while the target changes, for code
/// that can only write to a descriptor (CPython's faulthandler). Before [`init`] it is a copy of
/// standard error.
///
/// # Errors
/// No descriptors are left.
pub fn last_resort() -> io::Result<RawFd> {
    let mut last_resort = LAST_RESORT.lock().unpoisoned();
    let descriptor = match &*last_resort {
        Some(descriptor) => descriptor.as_raw_fd(),
        None => {
            let made = match current() {
                Some(log) => log.sink.duplicate()?,
                None => io::stderr().as_fd().try_clone_to_owned()?,
            };
            last_resort.insert(made).as_raw_fd()
        }
    };
    Ok(descriptor)
}

/// Writes `text` as a line of the log, past the redirect and the level: records from Python must
/// not go back to Python, which has already applied its levels.
pub fn write_record(level: Level, text: &str) {
    let target = if level == Level::Critical { CRITICAL } else { OWN_RECORDS };
    write(&Record::builder().level(level.in_log()).target(target).args(format_args!("{text}")).build());
}

/// Sets the least level of the log, until [`init`] is called again.
pub fn set_level(level: Level) {
    LEAST.store(level.python_number(), Relaxed);
    admit(level);
}

/// Sets the least level that the crate `log` lets pass. Where Python's `logging` writes the logs,
/// Python decides that level.
pub fn admit(level: Level) {
    log::set_max_level(level.filter());
}

/// The least level that is logged.
pub fn level() -> Level {
    Level::from_python(LEAST.load(Relaxed))
}

/// Writes lines of an application to the error log's stream, for `wsgi.errors`. In JSON each line
/// is a record.
pub fn write_stream(text: &str) {
    let Some(log) = current() else { return };
    let mut records = Vec::new();
    match log.settings.json {
        None => records.extend_from_slice(escape::lines(text).as_bytes()),
        Some(schema) => text.lines().for_each(|line| {
            // Writing to a Vec cannot fail.
            let _ = json::write_record(&mut records, schema, STREAM_LEVEL, line, scope::current());
        }),
    }
    log.put(&records, STREAM_LEVEL);
}

/// Writes `bytes` as they are to the error log's stream. They are dropped before [`init`], and when
/// the target is full or broken.
pub fn write_raw(bytes: &[u8]) {
    if let Some(log) = current() {
        log.sink.write_piece(bytes, FULL_LOG_WAIT);
    }
}

impl ErrorLog {
    fn open(settings: &LogSettings, syslog: Option<Arc<Syslog>>) -> Result<Self, LogError> {
        let failed = |source| LogError { setting: "errorlog", target: settings.errorlog.clone(), source };
        let is_standard = standard_stream(&settings.errorlog, Standard::Error).is_some();
        if is_standard {
            // The log is to be the stream itself, not the file that has captured it.
            output::release_standard_streams().map_err(failed)?;
        }
        let sink = Sink::open(&settings.errorlog, Standard::Error, settings.owner).map_err(failed)?;
        if settings.capture_output && !is_standard {
            sink.capture_standard_streams().map_err(failed)?;
        } else {
            output::release_standard_streams().map_err(failed)?;
        }
        let is_journal = sink.is_journal();
        Ok(ErrorLog { settings: settings.clone(), sink, is_journal, syslog })
    }

    /// The lines of a record for the log's file. Syslog gets it here as well.
    fn render(&self, record: &Record<'_>) -> Vec<u8> {
        let (level, scope) = (Level::of(record), scope::current());
        let text = record.args().to_string();
        let mut lines = Vec::new();
        // Writing to a Vec cannot fail.
        let _ = match self.settings.json {
            Some(schema) => json::write_record(&mut lines, schema, level, &text, scope.clone()),
            None => write_line(&mut lines, level, &marked(&text, scope.clone())),
        };
        if let Some(syslog) = &self.syslog {
            match self.settings.json {
                Some(_) => syslog.send(Origin::Error, level, String::from_utf8_lossy(&lines).trim_end()),
                None => syslog.send(Origin::Error, level, &escape::message(&marked(&text, scope))),
            }
        }
        if self.is_journal { journal::prefixed(&lines, level) } else { lines }
    }

    /// Writes whole lines of this level.
    fn put(&self, lines: &[u8], level: Level) {
        if self.is_journal {
            self.sink.write_piece(&journal::prefixed(lines, level), FULL_LOG_WAIT);
        } else {
            self.sink.write_piece(lines, FULL_LOG_WAIT);
        }
    }
}

/// The way to syslog, if the server itself sends lines there.
pub fn syslog() -> Option<Arc<Syslog>> {
    current().and_then(|log| log.syslog.clone())
}

/// Sends an access line that Python's logging has made to syslog, if the server itself sends access
/// lines there.
pub fn write_access_to_syslog(line: &str) {
    if let Some(syslog) = syslog().filter(|syslog| syslog.takes_access_lines()) {
        syslog.send(Origin::Access, Level::Info, &escape::message(line));
    }
}

fn open_syslog(settings: &SyslogSettings) -> Result<Arc<Syslog>, LogError> {
    let failed = |source| LogError { setting: "syslog_addr", target: settings.address.clone(), source };
    Syslog::open(settings).map(Arc::new).map_err(failed)
}

fn current() -> Option<Arc<ErrorLog>> {
    CURRENT.read().unpoisoned().clone()
}

fn exchange(log: ErrorLog) {
    if let Some(descriptor) = &mut *LAST_RESORT.lock().unpoisoned() {
        // If it fails, faulthandler's stacks go to the former target.
        let _ = log.sink.redirect(descriptor);
    }
    let replaced = CURRENT.write().unpoisoned().replace(Arc::new(log));
    // The old file is closed here, after the lock was released.
    drop(replaced);
}

/// Installs env_logger. A second call changes nothing.
fn install() {
    let lines = env_logger::Builder::new()
        .filter_module(OWN_RECORDS, LevelFilter::Trace)
        .format(|line, record| current().map_or(Ok(()), |log| line.write_all(&log.render(record))))
        .target(env_logger::Target::Pipe(Box::new(CurrentLog)))
        .build();
    let _ = LINES.set(lines);
    let _ = log::set_logger(&Front);
    fork::hold_at_forks(&GATE);
}

/// Writes a record into the log's own lines.
fn write(record: &Record<'_>) {
    if let Some(lines) = LINES.get() {
        // Formatted before the lock is taken: an error of Python asks the interpreter for its text.
        let text = record.args().to_string();
        let metadata = record.metadata().clone();
        let _gate = GATE.lock().unpoisoned();
        log::Log::log(lines, &Record::builder().metadata(metadata).args(format_args!("{text}")).build());
    }
}

/// Passes records to the redirect, if one is set, else to the log's own lines.
struct Front;

impl log::Log for Front {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        LINES.get().is_some_and(|lines| lines.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        line_counts::note(Level::of(record), scope::current().is_some_and(|scope| scope.failure.is_some()));
        match redirect::current() {
            Some(take) if self.enabled(record.metadata()) => {
                let text = marked(&record.args().to_string(), scope::current());
                scope::outside(|| take(Level::of(record), &escape::message(&text)));
            }
            Some(_) => {}
            // The crate `log` has already checked its maximum level, which cannot tell an error
            // from a critical record.
            None if level() == Level::Critical && record.target() != CRITICAL => {}
            None => write(record),
        }
    }

    /// Nothing is buffered: each record is written at once.
    fn flush(&self) {}
}

fn write_line(line: &mut impl Write, level: Level, text: &str) -> io::Result<()> {
    let time = local_time::now().format("%Y-%m-%d %H:%M:%S %z");
    // Asked each time: the process may have been forked since.
    let pid = std::process::id();
    writeln!(line, "[{time}] [{pid}] [{}] {}", level.name(), escape::message(text))
}

/// The text, behind the id of its request if the request has one.
fn marked(text: &str, scope: Option<Scope>) -> String {
    match scope.and_then(|scope| scope.request.id) {
        Some(id) => format!("[{id}] {text}"),
        None => text.to_owned(),
    }
}

/// Writes to the log that is in use. env_logger passes a whole record at each call.
struct CurrentLog;

impl Write for CurrentLog {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        write_raw(record);
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_line_looks_like_gunicorns() {
        let cases = [
            (log::Level::Error, CRITICAL, "CRITICAL"),
            (log::Level::Error, OWN_RECORDS, "ERROR"),
            (log::Level::Warn, OWN_RECORDS, "WARNING"),
            (log::Level::Info, OWN_RECORDS, "INFO"),
            (log::Level::Debug, OWN_RECORDS, "DEBUG"),
        ];
        for (level, target, name) in cases {
            let mut line = Vec::new();
            let record = Record::builder().level(level).target(target).build();
            write_line(&mut line, Level::of(&record), "first\nsecond").unwrap();
            let line = String::from_utf8(line).unwrap();
            let time = chrono::DateTime::parse_from_str(&line[1..26], "%Y-%m-%d %H:%M:%S %z");
            assert!(time.is_ok(), "{line}");
            assert_eq!(line[26..], format!("] [{}] [{name}] first\nsecond\n", std::process::id()));
        }
    }

    /// One test for all the global state, since tests of one process run at the same time.
    #[test]
    fn opening_repointing_and_reopening_the_log_change_all_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));

        init(&settings(&first, "info")).unwrap();
        log::info!(target: OWN_RECORDS, "one");
        log::debug!(target: OWN_RECORDS, "too small");
        log::info!(target: "another_crate", "not ours");
        write_raw(b"from wsgi.errors\n");
        assert_lines(&first, &["[INFO] one", "from wsgi.errors"]);

        let error = init(&settings(Path::new("/proc/nonexistent/log"), "debug")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "errorlog '/proc/nonexistent/log' isn't writable: No such file or directory (os error 2)"
        );
        log::info!(target: OWN_RECORDS, "still here");
        assert_lines(&first, &["[INFO] one", "from wsgi.errors", "[INFO] still here"]);

        init(&settings(&second, "critical")).unwrap();
        log::error!(target: OWN_RECORDS, "a plain error");
        log::error!(target: CRITICAL, "WORKER TIMEOUT (pid:7)");
        assert_lines(&second, &["[CRITICAL] WORKER TIMEOUT (pid:7)"]);

        let rotated = folder.path().join("second.1");
        std::fs::rename(&second, &rotated).unwrap();
        reopen().unwrap();
        log::error!(target: CRITICAL, "after the rotation");
        assert_lines(&second, &["[CRITICAL] after the rotation"]);

        set_level(Level::Debug);
        reopen().unwrap();
        log::debug!(target: OWN_RECORDS, "small again");
        assert_eq!(level(), Level::Debug);
        assert_lines(&second, &["[CRITICAL] after the rotation", "[DEBUG] small again"]);
        assert_lines(&rotated, &["[CRITICAL] WORKER TIMEOUT (pid:7)"]);
    }

    fn settings(target: &Path, level: &str) -> LogSettings {
        LogSettings {
            errorlog: target.to_str().unwrap().to_owned(),
            level: level.to_owned(),
            json: None,
            syslog: None,
            capture_output: false,
            owner: None,
        }
    }

    fn assert_lines(path: &Path, endings: &[&str]) {
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), endings.len(), "{text}");
        for (line, ending) in text.lines().zip(endings) {
            assert!(line.ends_with(ending), "{line} should end with {ending}");
        }
    }
}
