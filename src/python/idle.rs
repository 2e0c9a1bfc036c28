//! Waiting in a worker whose application has patched the standard library (gevent's or eventlet's
//! `patch_all`).
//!
//! The application's threads are then greenlets of the main thread, and run only while that thread
//! waits in the patched library. gunicorn's sync worker waits in `select.select`, and so does ours.
//! In any other worker the event loop waits in the poll, detached from the interpreter.

use std::os::fd::RawFd;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use super::{interpreter, signals};

/// The patched `select.select`.
pub struct GreenletWait(Py<PyAny>);

impl GreenletWait {
    /// The wait for a worker whose application has patched the library; `None` for others. Call
    /// this once the application is loaded.
    ///
    /// # Errors
    /// The application has replaced `sys.modules`.
    pub fn of_patched(py: Python<'_>) -> PyResult<Option<GreenletWait>> {
        // An application that has not imported `select` has not patched it.
        if !interpreter::has_imported(py, "select")? {
            return Ok(None);
        }
        let select = py.import("select")?.getattr("select")?;
        Ok((!select.is_instance_of::<PyCFunction>()).then(|| GreenletWait(select.unbind())))
    }

    /// Waits until `descriptor` can be read, at most for `timeout`, while greenlets run. Exceptions
    /// are dropped: no request runs that they could reach.
    pub fn wait(&self, descriptor: RawFd, timeout: Duration) {
        Python::attach(|py| {
            let nothing: [RawFd; 0] = [];
            let waited = self.0.call1(py, ([descriptor], nothing, nothing, timeout.as_secs_f64()));
            signals::settle(py, waited.map(drop));
        });
    }
}
