//! The title of the process, beside Python's package `setproctitle`, which writes to the same
//! memory.

use std::ffi::OsString;

use pyo3::prelude::*;

use super::errors::traceback;
use super::interpreter;
use crate::sys::title;

const PACKAGE: &str = "setproctitle";

/// Shows `title` as the command line of this process. Once the package is loaded, it sets the
/// title, because it remembers how much of the last title it must erase.
///
/// Call it while the process has a single thread.
pub fn set(title: &str) {
    if interpreter::is_running() {
        let shown = Python::attach(|py| {
            interpreter::has_imported(py, PACKAGE).and_then(|is_loaded| {
                if is_loaded {
                    py.import(PACKAGE)?.call_method1(PACKAGE, (title,))?;
                }
                Ok(is_loaded)
            })
        });
        match shown {
            Ok(true) => return title::set_name(title),
            Ok(false) => {}
            Err(error) => Python::attach(|py| log::debug!("setproctitle failed\n{}", traceback(py, &error))),
        }
    }
    title::set(title);
}

/// Lets the package, which has just been loaded, find the memory of the title: its functions search
/// for it at their first call.
///
/// # Errors
/// Those of its functions.
pub(super) fn lend(package: &Bound<'_, PyAny>) -> PyResult<()> {
    let arguments: Vec<OsString> = package.py().import("sys")?.getattr("orig_argv")?.extract()?;
    let Some(first) = arguments.first() else { return Ok(()) };
    let shown = title::shown();
    title::lend(first.as_encoded_bytes(), arguments.len(), || package.call_method0("getproctitle"))?;
    package.call_method1(PACKAGE, (shown,)).map(drop)
}
