//! Dirty workers. Their code is gunicorn's own: the module `_dirty` of the carried package runs
//! `gunicorn.dirty` of an installed gunicorn.

use std::os::fd::AsRawFd;
use std::path::Path;

use pyo3::prelude::*;

use super::errors::traceback;
use super::hooks::{HookError, Hooks, refusal};
use super::{environment, interpreter, loggers};
use crate::sys::process::Pid;
use crate::sys::socket::Listener;

/// The variable that tells applications the socket of the dirty arbiter: gunicorn's name.
const SOCKET_VARIABLE: &str = "GUNICORN_DIRTY_SOCKET";

/// The exit status of an arbiter that has failed: gunicorn's -1.
const FAILED: i32 = 255;

/// What an arbiter gets besides settings and hooks.
pub struct DirtyTerms<'a> {
    /// The folder of its sockets.
    pub folder: &'a Path,
    /// The socket at which it listens.
    pub listener: &'a Listener,
    /// Where it writes its pid.
    pub pid_file: &'a Path,
    /// The master's pid.
    pub ppid: Pid,
}

/// Checks that there is a gunicorn that can run dirty workers. The interpreter must be running,
/// with the application's directories in `sys.path`.
///
/// # Errors
/// A sentence that names the package.
pub fn require() -> Result<(), HookError> {
    Python::attach(|py| {
        let found = py.import("gunicorn._installed").and_then(|module| module.call_method0("require_dirty"));
        found.map(drop).map_err(|error| refusal(py, &error))
    })
}

/// Imports the code of an arbiter, and makes the bridge by which it logs.
///
/// # Errors
/// The traceback.
pub fn prepare(hooks: &Hooks) -> Result<(), HookError> {
    Python::attach(|py| {
        let prepared = bridge(py, hooks).and_then(|_| py.import("gunicorn._dirty").map(drop));
        prepared.map_err(|error| refusal(py, &error))
    })
}

/// Lives the life of an arbiter, in the interpreter's main thread, and returns its exit status.
pub fn run(hooks: &Hooks, terms: &DirtyTerms<'_>) -> i32 {
    Python::attach(|py| {
        let ran = bridge(py, hooks).and_then(|bridge| {
            let paths = (terms.folder.as_os_str(), terms.pid_file.as_os_str());
            let arguments = (bridge, paths.0, paths.1, terms.ppid.as_raw(), terms.listener.as_raw_fd());
            py.import("gunicorn._dirty")?.call_method1("run", arguments)?.extract()
        });
        ran.unwrap_or_else(|error| {
            log::error!("Exception in dirty arbiter process\n{}", traceback(py, &error));
            FAILED
        })
    })
}

/// In a new worker: tells the application, and gunicorn's client if a preloaded application has
/// imported it, where the arbiter is.
///
/// # Errors
/// gunicorn's client raised.
pub fn announce(socket: &Path) -> PyResult<()> {
    environment::set(SOCKET_VARIABLE, Some(socket.as_os_str()));
    Python::attach(|py| {
        const CLIENT: &str = "gunicorn.dirty.client";
        if interpreter::has_imported(py, CLIENT)? {
            py.import(CLIENT)?.call_method1("set_dirty_socket_path", (socket.as_os_str(),))?;
        }
        Ok(())
    })
}

fn bridge(py: Python<'_>, hooks: &Hooks) -> PyResult<Py<PyAny>> {
    match hooks.bridge() {
        Some(bridge) => Ok(bridge.clone_ref(py)),
        None => loggers::bridge(py),
    }
}
