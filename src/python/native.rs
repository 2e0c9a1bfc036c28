//! The module `_monoceros`: the server's functions for the `gunicorn` package that it contains (see
//! [`super::facade`]).

use std::os::fd::{IntoRawFd, RawFd};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use super::environ::SERVER_SOFTWARE;
use super::errors::ErrorStream;
use super::request_context::{self, trace_ids};
use super::{loggers, signals, title};
use crate::base::unpoisoned::Unpoisoned;
use crate::http::request_id::parse_traceparent;
use crate::logging::{self, AccessEntry, Failure, Level, RequestIds, Schema};
use crate::settings::{self, Config, Kind, Setting, Store, Value};
use crate::sys::log_file;
use crate::sys::process::{self, Pid};

/// Makes the module.
///
/// # Errors
/// `MemoryError`.
pub fn module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    let module = PyModule::new(py, "_monoceros")?;
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add("SERVER_SOFTWARE", SERVER_SOFTWARE)?;
    module.add_class::<ErrorStream>()?;
    module.add_function(wrap_pyfunction!(rows, &module)?)?;
    module.add_function(wrap_pyfunction!(write_record, &module)?)?;
    module.add_function(wrap_pyfunction!(write_error, &module)?)?;
    module.add_function(wrap_pyfunction!(reopen_logs, &module)?)?;
    module.add_function(wrap_pyfunction!(log_level, &module)?)?;
    module.add_function(wrap_pyfunction!(open_log, &module)?)?;
    module.add_function(wrap_pyfunction!(access_log, &module)?)?;
    module.add_function(wrap_pyfunction!(access_object, &module)?)?;
    module.add_function(wrap_pyfunction!(has_access_syslog, &module)?)?;
    module.add_function(wrap_pyfunction!(write_access_to_syslog, &module)?)?;
    module.add_function(wrap_pyfunction!(loggers_are, &module)?)?;
    module.add_function(wrap_pyfunction!(lend_title, &module)?)?;
    module.add_function(wrap_pyfunction!(want_workers, &module)?)?;
    module.add_function(wrap_pyfunction!(watch_files, &module)?)?;
    module.add_function(wrap_pyfunction!(is_told_to_stop, &module)?)?;
    module.add_function(wrap_pyfunction!(set_title, &module)?)?;
    module.add_function(wrap_pyfunction!(die_with_parent, &module)?)?;
    Ok(module)
}

/// A setting's value as the Python object that a config file can hold.
///
/// # Errors
/// `MemoryError`.
pub fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::None => py.None().into_bound(py),
        Value::Bool(yes) => yes.into_pyobject(py)?.to_owned().into_any(),
        Value::Int(number) => number.into_pyobject(py)?.into_any(),
        Value::Str(text) | Value::Object(text) => text.into_pyobject(py)?.into_any(),
        Value::List(items) => {
            let list = PyList::empty(py);
            items.iter().try_for_each(|item| list.append(to_python(py, item)?))?;
            list.into_any()
        }
        Value::Map(entries) => {
            let dict = PyDict::new(py);
            entries.iter().try_for_each(|(name, item)| dict.set_item(name, to_python(py, item)?))?;
            dict.into_any()
        }
    })
}

/// `settings()`: every row of the table, each as a dict.
#[pyfunction]
#[pyo3(name = "settings")]
fn rows(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let defaults = Config::default();
    let list = PyList::empty(py);
    for setting in settings::all().chain(settings::NOT_SUPPORTED) {
        list.append(row(py, setting, &defaults)?)?;
    }
    Ok(list)
}

fn row<'py>(py: Python<'py>, setting: &Setting, defaults: &Config) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("name", setting.name)?;
    row.set_item("section", setting.section.title())?;
    row.set_item("flags", setting.flags)?;
    row.set_item("meta", setting.meta)?;
    row.set_item("kind", kind_name(setting.kind))?;
    row.set_item("default", to_python(py, &setting.value_in(defaults))?)?;
    row.set_item("doc", setting.doc)?;
    row.set_item("supported", !matches!(setting.store, Store::Missing(_)))?;
    Ok(row)
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Int => "int",
        Kind::IntOrAuto => "int or auto",
        Kind::Mode => "mode",
        Kind::List => "list",
        Kind::CommaList => "comma list",
        Kind::Switch => "switch",
        Kind::SwitchOff => "switch off",
        Kind::OptionalText { .. } => "optional text",
        Kind::Map => "map",
        Kind::Hook => "hook",
    }
}

/// `log(level, text, failure=None)`: writes a record of the error log. `level` is a number of
/// Python's `logging`; `failure` is the class of an exception, its message, and the traceback that
/// `text` contains.
#[pyfunction]
#[pyo3(name = "log", signature = (level, text, failure=None))]
fn write_record(py: Python<'_>, level: u32, text: &Bound<'_, PyString>, failure: Option<FailureTexts<'_>>) {
    let mut scope = request_context::scope(py);
    scope.failure = failure.map(|(kind, reason, stack)| {
        let [kind, reason, stack] = [kind, reason, stack].map(|text| text.to_string_lossy().into_owned());
        Failure { kind, reason, stack }
    });
    let text = text.to_string_lossy();
    // What the server itself tells of a request has the id already (`loggers::exception`); the log
    // puts it before each line of a request.
    let mark = scope.request.id.as_ref().map(|id| format!("[{id}] "));
    let text = mark.and_then(|mark| text.strip_prefix(&mark)).unwrap_or(&text);
    // The log may be a slow pipe: other Python threads need not wait for it.
    py.detach(|| logging::within(scope, || logging::write_record(Level::from_python(level), text)));
}

/// Class, message and traceback. A text of Python may hold what UTF-8 cannot (a lone surrogate).
type FailureTexts<'py> = (Bound<'py, PyString>, Bound<'py, PyString>, Bound<'py, PyString>);

/// `write_error(text)`: writes the text to the error log, unchanged.
#[pyfunction]
fn write_error(py: Python<'_>, text: &Bound<'_, PyString>) {
    let text = text.to_string_lossy();
    py.detach(|| logging::write_raw(text.as_bytes()));
}

/// `reopen_logs()`: reopens the error log's file, as SIGUSR1 does.
#[pyfunction]
fn reopen_logs() -> PyResult<()> {
    logging::reopen().map_err(|error| pyo3::exceptions::PyOSError::new_err(error.to_string()))
}

/// How many workers a hook has asked for since the master last looked, plus one; 0 if no hook has.
static WANTED_WORKERS: AtomicUsize = AtomicUsize::new(0);

/// `want_workers(count)`: `server.num_workers` was set.
#[pyfunction]
fn want_workers(count: usize) {
    WANTED_WORKERS.store(count.saturating_add(1), Relaxed);
}

/// The number of workers that a hook has asked for since the last call.
pub fn take_wanted_workers() -> Option<usize> {
    WANTED_WORKERS.swap(0, Relaxed).checked_sub(1)
}

/// Source files that have kept the application from loading. They are no loaded modules, so the
/// file watcher must be told of them.
static BROKEN_FILES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// `watch_files(files)`: has `reload` watch these files too, which are no loaded modules.
#[pyfunction]
fn watch_files(files: Vec<PathBuf>) {
    BROKEN_FILES.lock().unpoisoned().extend(files);
}

/// The files that kept the application from loading since the last call.
pub fn take_broken_files() -> Vec<PathBuf> {
    std::mem::take(&mut *BROKEN_FILES.lock().unpoisoned())
}

/// `is_told_to_stop()`: whether a signal that stops the worker has come while it started.
#[pyfunction]
fn is_told_to_stop() -> bool {
    signals::is_told_to_stop()
}

/// `log_level()`: the least level of the error log, as Python's `logging` numbers it.
#[pyfunction]
fn log_level() -> u32 {
    logging::level().python_number()
}

/// `open_log(path, user, group)`: opens the file for appending, gives it to that user and group,
/// and returns its descriptor.
#[pyfunction]
fn open_log(path: PathBuf, user: u32, group: u32) -> PyResult<RawFd> {
    Ok(log_file::open(&path, Some((user, group)))?.into_raw_fd())
}

/// `access_log()`: the target of the access log or None, whether its lines are JSON, and the header
/// with the request's id or None.
#[pyfunction]
fn access_log() -> (Option<String>, bool, Option<String>) {
    let (target, schema, id_header) = loggers::access_log();
    (target, schema.is_some(), id_header)
}

/// `access_object(values)`: the JSON access line of a request, made of these values.
#[pyfunction]
fn access_object(values: &Bound<'_, PyDict>) -> PyResult<String> {
    let text = |name: &str| {
        let value = values.get_item(name)?.filter(|value| !value.is_none());
        value.map(|value| value.str().map(|text| text.to_string_lossy().into_owned())).transpose()
    };
    let number = |name: &str| values.get_item(name)?.map_or(Ok(0), |value| value.extract::<u64>());
    let queue = values.get_item("queue")?.and_then(|queue| queue.extract::<f64>().ok());
    let trace = text("traceparent")?.and_then(|value| parse_traceparent(value.as_bytes()).map(trace_ids));
    let entry = AccessEntry {
        remote_addr: text("remote_addr")?.unwrap_or_default(),
        user: text("user")?,
        method: text("method")?.unwrap_or_default(),
        target: text("target")?.unwrap_or_default(),
        protocol: text("protocol")?.unwrap_or_default(),
        status: u16::try_from(number("status")?).unwrap_or(0),
        bytes: number("bytes")?,
        duration: Duration::from_micros(number("microseconds")?),
        referer: text("referer")?,
        user_agent: text("user_agent")?,
        host: text("host")?,
        scheme: text("scheme")?,
        queue: queue.and_then(|queue| Duration::try_from_secs_f64(queue).ok()),
        request: RequestIds { id: text("request_id")?, trace },
        ..AccessEntry::default()
    };
    let (_, schema, _) = loggers::access_log();
    Ok(logging::access_object(schema.unwrap_or(Schema::Own), &entry))
}

/// `has_access_syslog()`: whether the server itself sends access lines to syslog.
#[pyfunction]
fn has_access_syslog() -> bool {
    logging::syslog().is_some_and(|syslog| syslog.takes_access_lines())
}

/// `write_access_to_syslog(line)`: sends an access line to syslog, if the server does so itself.
#[pyfunction]
fn write_access_to_syslog(py: Python<'_>, line: &Bound<'_, PyString>) {
    let line = line.to_string_lossy();
    py.detach(|| logging::write_access_to_syslog(&line));
}

/// `loggers_are(as_made, level)`: tells whether both loggers are as the server made them, and the
/// least level that the error log takes.
#[pyfunction]
fn loggers_are(as_made: bool, level: u32) {
    loggers::noted(as_made, Level::from_python(level));
}

/// `set_title(title)`: shows it as the title of this process.
#[pyfunction]
fn set_title(title: &str) {
    super::title::set(title);
}

/// `die_with_parent(ppid)`: has the kernel kill this process when its parent ends; returns whether
/// the parent is still there.
#[pyfunction]
fn die_with_parent(ppid: i32) -> PyResult<bool> {
    Ok(process::die_with_parent(Pid::from_raw(ppid))?)
}

/// `lend_title(package)`: lets the package `setproctitle` use the memory of the title.
#[pyfunction]
fn lend_title(package: &Bound<'_, PyAny>) -> PyResult<()> {
    title::lend(package)
}
