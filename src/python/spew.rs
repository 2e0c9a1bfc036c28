//! `--spew`: prints every line of Python on stdout as it runs.

use std::ffi::CStr;

use pyo3::prelude::*;

const SOURCE: &CStr = embedded_source!("spew.py");

/// Begins to print if `is_wanted`, for the calling thread and for Python threads that start later.
///
/// # Errors
/// The standard library is incomplete.
pub fn start_if(is_wanted: bool) -> PyResult<()> {
    if !is_wanted {
        return Ok(());
    }
    Python::attach(|py| {
        let module = PyModule::from_code(py, SOURCE, c"<monoceros>/spew.py", c"monoceros_spew")?;
        module.call_method0("start").map(drop)
    })
}
