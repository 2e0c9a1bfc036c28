//! How a worker waits whose application has replaced the standard library's waiting (gevent's or
//! eventlet's `patch_all`).
//!
//! The application's threads are greenlets of the main thread then, and run only while that thread
//! waits in the patched library: under gunicorn its sync worker waits in `select.select`, and so
//! does ours. Everybody else waits in the poll, without the interpreter.

use std::os::fd::RawFd;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use super::{interpreter, signals};

/// The patched `select.select`.
pub struct GreenletWait(Py<PyAny>);

impl GreenletWait {
    /// The way to wait where the application has patched the library; `None` where it has not.
    /// Asked once the application is loaded.
    ///
    /// # Errors
    /// The application has made something else of `sys.modules`.
    pub fn of_patched(py: Python<'_>) -> PyResult<Option<GreenletWait>> {
        // Who has not imported it has not patched it.
        if !interpreter::has_imported(py, "select")? {
            return Ok(None);
        }
        let select = py.import("select")?.getattr("select")?;
        Ok((!select.is_instance_of::<PyCFunction>()).then(|| GreenletWait(select.unbind())))
    }

    /// Waits until `descriptor` can be read, at most for `timeout`, while greenlets run. What is
    /// raised meanwhile hits nobody.
    pub fn wait(&self, descriptor: RawFd, timeout: Duration) {
        Python::attach(|py| {
            let nothing: [RawFd; 0] = [];
            let waited = self.0.call1(py, ([descriptor], nothing, nothing, timeout.as_secs_f64()));
            signals::settle(py, waited.map(drop));
        });
    }
}
