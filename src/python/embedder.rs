//! A Python program that embeds the server by an application object
//! (`gunicorn.app.base.BaseApplication`), which holds the settings and loads the app.

use std::cell::Cell;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::config_file::{self, ConfigFile, ConfigFileError};

/// The spec by which the loader finds the program's app.
pub const APP: &str = "gunicorn._embedded:load()";

/// The origin that tracebacks name.
const SOURCE: &str = "settings of the program";

/// The application object of the program that this process runs.
pub struct Embedder {
    application: Py<PyAny>,
    was_read: Cell<bool>,
}

impl Embedder {
    /// From now on [`APP`] names the app of `application`.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn new(application: &Bound<'_, PyAny>) -> PyResult<Embedder> {
        application.py().import("gunicorn._embedded")?.setattr("application", application)?;
        Ok(Embedder { application: application.clone().unbind(), was_read: Cell::new(false) })
    }

    /// The settings of the program. From the second call on the program loads them again.
    /// `is_setting` is as in [`config_file::run_file`].
    ///
    /// # Errors
    /// Loading them raised.
    pub fn read(&self, is_setting: impl Fn(&str) -> bool) -> Result<ConfigFile, ConfigFileError> {
        config_file::read(SOURCE, |py| {
            let application = self.application.bind(py);
            if self.was_read.replace(true) {
                application.call_method0("reload")?;
            }
            let given = application.getattr("cfg")?.call_method0("given")?;
            config_file::values(&given.cast_into::<PyDict>()?, &is_setting)
        })
    }
}
