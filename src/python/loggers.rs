//! Decides whether the server or Python's logging writes the logs.
//!
//! Python's logging writes them if the settings ask for it, and as soon as one of the loggers
//! `gunicorn.error` and `gunicorn.access` is changed: a filter, a handler or a level that an
//! application or a hook has set must take effect. The package's `_native` watches the two and
//! calls [`noted`]. Only a reload, which makes the loggers again, leads back to the server's own
//! logs.
//!
//! The lock below is held only while attached, and never across a call into Python, so no fork
//! finds it held.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::log_queue::LogQueue;
use super::{facade, hooks, interpreter, raw};
use crate::base::unpoisoned::Unpoisoned;
use crate::logging::{self, Level, LogRedirect, Schema};
use crate::settings::{Config, LogFormat, Origins};
use crate::sys::process;
use crate::sys::thread;
use crate::sys::wakeup::Wakeup;

/// Whether lines go through Python's logging.
static PYTHON_WRITES: AtomicBool = AtomicBool::new(false);

/// Whether the worker serves. Its threads must then not wait for the interpreter when they log.
static IS_SERVING: AtomicBool = AtomicBool::new(false);

/// Calls the hub that hands records over, in a worker whose requests run in greenlets: the locks of
/// log handlers are patched there, so no other thread may run the handlers.
static HUB_CALL: OnceLock<Arc<Wakeup>> = OnceLock::new();

/// The hub is to reopen the files of Python's logging.
static REOPENING_IS_DUE: AtomicBool = AtomicBool::new(false);

/// The hub is to give Python's logging the level of the error log.
static LEVEL_IS_DUE: AtomicBool = AtomicBool::new(false);

/// The queue in which records of a serving worker wait for Python's logging.
static QUEUE: OnceLock<Arc<LogQueue>> = OnceLock::new();

static IN_FORCE: Mutex<InForce> = Mutex::new(InForce { config: None, bridge: None });

/// The config and the bridge by which the logs are written.
struct InForce {
    config: Option<Config>,
    /// `gunicorn._bridge.Bridge`; without hooks it is made before the first record.
    bridge: Option<Py<PyAny>>,
}

/// Whether lines go through Python's logging. It reads an atomic.
pub fn python_writes() -> bool {
    PYTHON_WRITES.load(Relaxed)
}

/// Puts `config` in force, and `bridge` if its hooks have one. The server writes the logs until
/// [`configured`] or [`noted`] is called.
pub(super) fn begin(config: &Config, bridge: Option<&Py<PyAny>>) {
    PYTHON_WRITES.store(false, Relaxed);
    logging::redirect(None);
    if interpreter::is_running() {
        let replaced = Python::attach(|py| {
            let bridge = bridge.map(|bridge| bridge.clone_ref(py));
            std::mem::replace(&mut *in_force(), InForce { config: Some(config.clone()), bridge })
        });
        Python::attach(|_| drop(replaced));
    } else {
        in_force().config = Some(config.clone());
    }
}

/// Calls `write`, which writes a record, detached: other Python threads need not wait for a slow
/// log. Where Python's logging writes, `write` may run Python code, in which greenlets may switch.
/// It then runs attached: attaching again while detached is not sound there (pyo3 counts wrongly
/// how often a thread has attached).
pub fn aside(py: Python<'_>, write: impl FnOnce() + Send) {
    if python_writes() { write() } else { py.detach(write) }
}

/// Switches to Python's logging, because the settings ask for it. Python's logging gets records
/// from `level` on.
pub(super) fn configured(level: Level) {
    logging::admit(level);
    if !PYTHON_WRITES.swap(true, Relaxed) {
        route();
    }
}

/// Notes whether the loggers are as the server made them. `level` is the least that the error log
/// takes.
pub(super) fn noted(is_as_made: bool, level: Level) {
    if !is_as_made || python_writes() {
        configured(level);
    }
}

/// From now on the hub runs Python's logging; `call` wakes it.
pub fn write_in_hub(call: &Arc<Wakeup>) {
    HUB_CALL.get_or_init(|| call.clone());
}

/// Whether the hub is to reopen the files of Python's logging; resets the flag.
pub(super) fn take_reopening() -> bool {
    REOPENING_IS_DUE.swap(false, Relaxed)
}

/// Whether the hub is to give Python's logging its level; resets the flag.
pub(super) fn take_level() -> bool {
    LEVEL_IS_DUE.swap(false, Relaxed)
}

/// The worker is about to serve: from now on records wait in a queue for a thread that passes them
/// to Python.
///
/// # Errors
/// The system has no room for another thread.
pub fn begin_queue() -> io::Result<()> {
    IS_SERVING.store(true, Relaxed);
    if python_writes() { start_queue() } else { Ok(()) }
}

/// The queue, if there is one and Python's logging writes the logs.
pub fn queue() -> Option<&'static Arc<LogQueue>> {
    QUEUE.get().filter(|_| python_writes())
}

/// From now on each record goes to Python at once. Waits for the records in the queue, if there is
/// one ([`LogQueue::finish`]).
pub fn end_queue() {
    IS_SERVING.store(false, Relaxed);
    if let Some(queue) = queue() {
        logging::redirect(Some(direct()));
        queue.finish();
    }
}

/// Reopens the files of Python's logging, also those of the app's own handlers.
///
/// # Errors
/// The traceback.
pub fn reopen() -> Result<(), String> {
    if !interpreter::is_running() {
        return Ok(());
    }
    Python::attach(|py| reopen_files(py).map_err(|error| super::traceback(py, &error)))
}

/// As [`reopen`], in a serving worker, where the leader must not wait for the interpreter.
pub fn reopen_later() {
    if let Some(queue) = queue() {
        return queue.reopen();
    }
    if let Some(call) = HUB_CALL.get() {
        REOPENING_IS_DUE.store(true, Relaxed);
        return call.wake();
    }
    let reopen = || {
        if let Err(text) = reopen() {
            log::error!("Cannot reopen the logs\n{text}");
        }
    };
    if let Err(error) = thread::spawn_for_python("reopen", reopen) {
        log::error!("Cannot reopen the logs of the application: {error}");
    }
}

/// Sets the level of the error log and of its loggers in Python. The calling thread may wait for
/// the interpreter.
pub fn set_level(level: Level) {
    logging::set_level(level);
    if interpreter::is_running() {
        Python::attach(tell_level);
    }
}

/// As [`set_level`], in a serving worker, where the leader must not wait for the interpreter: the
/// loggers in Python follow later.
pub fn set_level_later(level: Level) {
    logging::set_level(level);
    if let Some(call) = HUB_CALL.get() {
        LEVEL_IS_DUE.store(true, Relaxed);
        return call.wake();
    }
    if let Err(error) = thread::spawn_for_python("loglevel", || Python::attach(tell_level)) {
        log::error!("Cannot give Python's logging its level: {error}");
    }
}

/// Gives the loggers of Python's logging the level of the error log, in a thread that may wait for
/// their locks.
pub(super) fn tell_level(py: Python<'_>) {
    let level = logging::level();
    let told = || -> PyResult<()> {
        if interpreter::has_imported(py, "gunicorn._native")? {
            py.import("gunicorn._native")?.call_method1("set_level", (level.python_number(),))?;
        }
        if python_writes() {
            bridge(py)?.call_method1(py, "set_level", (level.python_number(),))?;
            logging::admit(level);
        }
        Ok(())
    };
    if let Err(error) = told() {
        log::error!("Cannot give Python's logging its level\n{}", super::traceback(py, &error));
    }
}

/// Reopens the files of Python's logging, in a thread that may run its handlers.
///
/// # Errors
/// What Python has raised.
pub(super) fn reopen_files(py: Python<'_>) -> PyResult<()> {
    if python_writes() {
        return bridge(py)?.call_method0(py, "reopen").map(drop);
    }
    if !interpreter::has_imported(py, "logging")? {
        return Ok(());
    }
    py.import("gunicorn.glogging")?.call_method0("reopen_files").map(drop)
}

/// Has Python's logging write `text` with `arguments` and the exception, as in an `except` clause.
/// Returns whether Python's logging has done so.
pub fn exception(py: Python<'_>, error: &PyErr, text: &str, arguments: &[&str]) -> bool {
    if !python_writes() {
        // An agent may have replaced the class of all loggers, which `_native` does not notice;
        // before an exception is logged, the loggers are checked.
        look(py);
    }
    if !python_writes() {
        return false;
    }
    let written = bridge(py).and_then(|bridge| {
        let words: Vec<&str> = std::iter::once(text).chain(arguments.iter().copied()).collect();
        let arguments = PyTuple::new(py, words)?;
        raw::while_handling(py, error, || bridge.call_method1(py, "exception", arguments))
    });
    if written.is_ok() {
        logging::note_exception();
    }
    written.is_ok()
}

/// As [`exception`], for threads that are not attached.
pub fn failure(error: &PyErr, text: &str) -> bool {
    Python::attach(|py| exception(py, error, text, &[]))
}

/// The bridge to Python's logging.
///
/// # Errors
/// Making it failed.
pub(super) fn bridge(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let config = {
        let in_force = in_force();
        match &in_force.bridge {
            Some(bridge) => return Ok(bridge.clone_ref(py)),
            None => in_force.config.clone().unwrap_or_default(),
        }
    };
    let made = hooks::bridge_object(py, &config, &PyDict::new(py), &Origins::default())?;
    made.call_method0("take_log")?;
    let state = PyDict::new(py);
    state.set_item("age", 0)?;
    state.set_item("ppid", process::getppid().as_raw())?;
    state.set_item("pid", std::process::id())?;
    made.call_method1("enter_worker", (state,))?;
    Ok(in_force().bridge.get_or_insert(made.unbind()).clone_ref(py))
}

/// The target of the access log, the schema of its lines if they are JSON, and the header with the
/// request's id.
pub(super) fn access_log() -> (Option<String>, Option<Schema>, Option<String>) {
    let in_force = in_force();
    let Some(config) = &in_force.config else { return (None, None, None) };
    let target = config.accesslog.as_deref().map(|target| config.log_target(target));
    (target, schema(config.log_format), config.request_id_header.clone())
}

/// The schema that names the fields of lines in this format; `None` for text.
pub fn schema(format: LogFormat) -> Option<Schema> {
    match format {
        LogFormat::Text => None,
        LogFormat::Json => Some(Schema::Own),
        LogFormat::JsonEcs => Some(Schema::Ecs),
        LogFormat::JsonGcp => Some(Schema::Gcp),
        LogFormat::JsonOtel => Some(Schema::Otel),
    }
}

fn look(py: Python<'_>) {
    let looked = interpreter::has_imported(py, "gunicorn._native").and_then(|is_imported| {
        if is_imported { py.import("gunicorn._native")?.call_method0("look").map(drop) } else { Ok(()) }
    });
    if let Err(error) = looked {
        logging::write_record(Level::Error, &super::traceback(py, &error));
    }
}

/// Redirects records to Python's logging.
fn route() {
    if IS_SERVING.load(Relaxed) {
        if let Err(error) = start_queue() {
            PYTHON_WRITES.store(false, Relaxed);
            logging::write_record(
                Level::Error,
                &format!("The loggers have changed, but a thread cannot be started: {error}"),
            );
        }
    } else if in_force().config.is_some() {
        logging::redirect(Some(direct()));
    }
}

fn start_queue() -> io::Result<()> {
    let queue = match QUEUE.get() {
        Some(queue) => queue.clone(),
        None => {
            let started = match HUB_CALL.get() {
                Some(call) => LogQueue::for_hub(call.clone()),
                None => LogQueue::start()?,
            };
            QUEUE.get_or_init(|| started).clone()
        }
    };
    logging::redirect(Some(Arc::new(move |level, text| queue.record(level, text))));
    Ok(())
}

/// A redirect that calls Python at once.
fn direct() -> LogRedirect {
    Arc::new(|level, text| {
        Python::attach(|py| {
            let recorded =
                bridge(py).and_then(|bridge| bridge.call_method1(py, "record", (level.python_number(), text)));
            if recorded.is_err() {
                logging::write_record(level, text);
            }
        });
    })
}

/// Configures the loggers in Python's `logging` by the settings in force, if `logging` is loaded.
pub(super) fn set_up() {
    facade::set_up_loggers();
}

fn in_force() -> MutexGuard<'static, InForce> {
    IN_FORCE.lock().unpoisoned()
}
