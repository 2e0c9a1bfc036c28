//! Threads of the worker that run the application.

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::interpreter;
use crate::sys::thread;

/// What `threading.Thread.start` calls: the second since CPython 3.13, the first before.
const STARTERS: [&str; 2] = ["_start_new_thread", "_start_joinable_thread"];

/// Starts a thread of the system that runs `body`, attached to the interpreter.
///
/// It is a Python thread (`threading.Thread`) in every respect: thread-locals live as long as it
/// does, debuggers and `threading.enumerate()` see it. It is a daemon thread, so that it does not
/// delay the end of the worker. Where gevent or eventlet has patched `threading`, a
/// `threading.Thread` would be a greenlet: the thread is then started without `threading`.
///
/// # Errors
/// The system has no room for another thread.
pub fn spawn(py: Python<'_>, name: &str, body: impl Fn(Python<'_>) + Send + Sync + 'static) -> PyResult<()> {
    let threading = py.import("threading")?;
    if are_patched(&threading) {
        find_hub(py)?;
        return Ok(thread::spawn_for_python(name, move || Python::attach(&body))?);
    }
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
    threading.getattr("Thread")?.call((), Some(&options))?.call_method0("start")?;
    Ok(())
}

/// Has the patching library make the hub of the calling thread. This imports what all hubs need:
/// several threads that did so at once would wait for each other's patched import locks for ever.
fn find_hub(py: Python<'_>) -> PyResult<()> {
    for module in ["gevent", "eventlet.hubs"] {
        if interpreter::has_imported(py, module)? {
            py.import(module)?.call_method0("get_hub")?;
        }
    }
    Ok(())
}

/// Whether another function than the interpreter's own starts the threads of `threading`.
fn are_patched(threading: &Bound<'_, PyModule>) -> bool {
    STARTERS
        .iter()
        .filter_map(|name| threading.getattr(*name).ok())
        .any(|starter| !starter.is_instance_of::<PyCFunction>())
}
