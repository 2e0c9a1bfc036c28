//! A Python program that embeds the server: it has made an application object
//! (`gunicorn.app.base.BaseApplication`), which holds its settings and knows how to load its app.

use std::cell::Cell;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::config_file::{self, ConfigFile, ConfigFileError};

/// The spec by which the loader finds the app of the program.
pub const APP: &str = "gunicorn._embedded:load()";

/// What tracebacks are said to be of.
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

    /// What the program has set; after the first time it is asked to load its settings again.
    /// `is_setting` as in [`config_file::run_file`].
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
