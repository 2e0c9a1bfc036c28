//! Threads of the worker that run the application.

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

/// Starts a thread that runs `body` attached to the interpreter, for as long as that takes.
///
/// It is a Python thread (`threading.Thread`) in every respect: thread-locals live as long as it
/// does, debuggers and `threading.enumerate()` see it. It is a daemon thread, so that it does not
/// delay the end of the worker.
///
/// # Errors
/// The system has no room for another thread.
pub fn spawn(py: Python<'_>, name: &str, body: impl Fn(Python<'_>) + Send + Sync + 'static) -> PyResult<()> {
    let target = PyCFunction::new_closure(
        py,
        None,
        None,
        move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            body(arguments.py());
        },
    )?;
    let options = PyDict::new(py);
    options.set_item("target", target)?;
    options.set_item("name", name)?;
    options.set_item("daemon", true)?;
    py.import("threading")?.getattr("Thread")?.call((), Some(&options))?.call_method0("start")?;
    Ok(())
}
