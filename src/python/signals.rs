//! Signals that must interrupt the application itself: QUIT and INT (stop at once) and ABRT (the master's verdict on a stuck worker).
//!
//! They are given to Python's own signal machinery, whose handlers run between bytecodes of the main thread and wake it from blocking
//! calls; `SystemExit` then unwinds the application, as it does under gunicorn. `_signal` is what is below `signal`, and loaded anyway.

use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::hooks::Hooks;

/// The last such signal's number; 0 before any.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// Takes away the one handler that CPython installs by itself (`KeyboardInterrupt` at Ctrl-C): an ordinary interpreter when it starts, any
/// other when the module `_signal` is first imported. Who has had INT ignored or handled otherwise keeps it so. Called in the main thread,
/// as Python demands.
///
/// # Errors
/// Not the main thread, or a Ctrl-C that has come meanwhile.
pub fn disown(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("_signal")?;
    let interrupt = signal.getattr("SIGINT")?;
    if signal.call_method1("getsignal", (&interrupt,))?.is(signal.getattr("default_int_handler")?) {
        signal.call_method1("signal", (interrupt, signal.getattr("SIG_DFL")?))?;
    }
    Ok(())
}

/// Installs the handlers for INT, QUIT and ABRT in this process; they tell `hooks`. Called in the main thread, as Python demands.
///
/// # Errors
/// Not the main thread, or `MemoryError`.
pub fn install(hooks: &Hooks) -> PyResult<()> {
    let hooks = hooks.clone();
    Python::attach(|py| {
        let signal = py.import("_signal")?;
        let interrupt = move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
            Err(interrupt(arguments.py(), &hooks, arguments.get_item(0)?.extract()?))
        };
        let handler = PyCFunction::new_closure(py, None, None, interrupt)?;
        for name in ["SIGINT", "SIGQUIT", "SIGABRT"] {
            signal.call_method1("signal", (signal.getattr(name)?, &handler))?;
        }
        Ok(())
    })
}

/// Has the stacks of all Python threads written to `descriptor` when the process is aborted or crashes, also while one of them holds the
/// interpreter in C code. Called after [`install`], whose handler for ABRT then follows.
///
/// # Errors
/// The `faulthandler` module is missing.
pub fn dump_stacks_to(descriptor: std::os::fd::RawFd) -> PyResult<()> {
    Python::attach(|py| {
        let options = PyDict::new(py);
        options.set_item("file", descriptor)?;
        options.set_item("all_threads", true)?;
        py.import("faulthandler")?.call_method("enable", (), Some(&options)).map(drop)
    })
}

/// From now on the process ends anyway: INT and QUIT have nothing more to say. (A Ctrl-C reaches the worker twice, from the terminal and
/// from its master.)
pub fn ignore() {
    let ignored: PyResult<()> = Python::attach(|py| {
        // Those that have come already still want to unwind somebody; let them do it here.
        let _ = py.check_signals();
        let signal = py.import("_signal")?;
        for name in ["SIGINT", "SIGQUIT"] {
            signal.call_method1("signal", (signal.getattr(name)?, signal.getattr("SIG_IGN")?))?;
        }
        let _ = py.check_signals();
        Ok(())
    });
    if let Err(error) = ignored {
        // One came between two of these lines; it has had its say.
        log::debug!("Ignoring INT and QUIT from here on, after {error}");
    }
}

/// Runs handlers of signals that arrived outside Python code, and says whether an interruption has come.
pub fn was_interrupted(py: Python<'_>) -> bool {
    // The handler raises SystemExit for the application's sake; here nobody is to be unwound. A handler of the application's own may
    // raise anything.
    if let Err(error) = py.check_signals()
        && !error.is_instance_of::<PySystemExit>(py)
    {
        log::error!("Error in a signal handler\n{}", super::errors::traceback(py, &error));
    }
    RECEIVED.load(Relaxed) != 0
}

/// Whether INT or QUIT has come: the worker is to stop, and is not to blame for what it has not finished.
pub fn is_told_to_quit() -> bool {
    [libc::SIGINT, libc::SIGQUIT].contains(&RECEIVED.load(Relaxed))
}

/// What unwinds the application.
fn interrupt(py: Python<'_>, hooks: &Hooks, signal: i32) -> PyErr {
    let is_abort = signal == libc::SIGABRT;
    hooks.interrupted(py, is_abort);
    RECEIVED.store(signal, Relaxed);
    PySystemExit::new_err(i32::from(is_abort))
}
