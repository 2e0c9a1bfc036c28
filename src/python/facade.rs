//! The `gunicorn` package inside the server: config files, logger classes and apps that import it
//! find one, whether or not gunicorn is installed.
//!
//! Its modules (`facade/`) are part of the program. A finder at the front of `sys.meta_path`
//! supplies them on import, so that they cost nothing in a worker that does not import them.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::environ::SERVER_SOFTWARE;
use super::errors::traceback;
use super::{interpreter, native};
use crate::http::response;

/// The value of the Server header.
const SERVER: &str = "monoceros";

/// The modules: their names, whether they are packages, and their sources.
static MODULES: &[(&str, bool, &str)] = &[
    ("gunicorn", true, include_str!("facade/gunicorn/__init__.py")),
    ("gunicorn.__main__", false, include_str!("facade/gunicorn/__main__.py")),
    ("gunicorn._amend", false, include_str!("facade/gunicorn/_amend.py")),
    ("gunicorn._bridge", false, include_str!("facade/gunicorn/_bridge.py")),
    ("gunicorn._dirty", false, include_str!("facade/gunicorn/_dirty.py")),
    ("gunicorn._dirty_worker", false, include_str!("facade/gunicorn/_dirty_worker.py")),
    ("gunicorn._embedded", false, include_str!("facade/gunicorn/_embedded.py")),
    ("gunicorn._foreign", false, include_str!("facade/gunicorn/_foreign.py")),
    ("gunicorn._gevent", false, include_str!("facade/gunicorn/_gevent.py")),
    ("gunicorn._hooks", false, include_str!("facade/gunicorn/_hooks.py")),
    ("gunicorn._installed", false, include_str!("facade/gunicorn/_installed.py")),
    ("gunicorn._json_access", false, include_str!("facade/gunicorn/_json_access.py")),
    ("gunicorn._loader", false, include_str!("loader.py")),
    ("gunicorn._native", false, include_str!("facade/gunicorn/_native.py")),
    ("gunicorn._ssl_context", false, include_str!("facade/gunicorn/_ssl_context.py")),
    ("gunicorn._validators", false, include_str!("facade/gunicorn/_validators.py")),
    ("gunicorn.app", true, include_str!("facade/gunicorn/app/__init__.py")),
    ("gunicorn.app.base", false, include_str!("facade/gunicorn/app/base.py")),
    ("gunicorn.app.pasterapp", false, include_str!("facade/gunicorn/app/pasterapp.py")),
    ("gunicorn.app.wsgiapp", false, include_str!("facade/gunicorn/app/wsgiapp.py")),
    ("gunicorn.arbiter", false, include_str!("facade/gunicorn/arbiter.py")),
    ("gunicorn.config", false, include_str!("facade/gunicorn/config.py")),
    ("gunicorn.errors", false, include_str!("facade/gunicorn/errors.py")),
    ("gunicorn.glogging", false, include_str!("facade/gunicorn/glogging.py")),
    ("gunicorn.http", true, include_str!("facade/gunicorn/http/__init__.py")),
    ("gunicorn.http.errors", false, include_str!("facade/gunicorn/http/errors.py")),
    ("gunicorn.http.message", false, include_str!("facade/gunicorn/http/message.py")),
    ("gunicorn.http.wsgi", false, include_str!("facade/gunicorn/http/wsgi.py")),
    ("gunicorn.instrument", true, include_str!("facade/gunicorn/instrument/__init__.py")),
    ("gunicorn.instrument.statsd", false, include_str!("facade/gunicorn/instrument/statsd.py")),
    ("gunicorn.sock", false, include_str!("facade/gunicorn/sock.py")),
    ("gunicorn.util", false, include_str!("facade/gunicorn/util.py")),
    ("gunicorn.workers", true, include_str!("facade/gunicorn/workers/__init__.py")),
    ("gunicorn.workers._pywsgi", false, include_str!("facade/gunicorn/workers/_pywsgi.py")),
    ("gunicorn.workers._served", false, include_str!("facade/gunicorn/workers/_served.py")),
    ("gunicorn.workers.base", false, include_str!("facade/gunicorn/workers/base.py")),
    ("gunicorn.workers.ggevent", false, include_str!("facade/gunicorn/workers/ggevent.py")),
    ("gunicorn.workers.gthread", false, include_str!("facade/gunicorn/workers/gthread.py")),
    ("gunicorn.workers.gtornado", false, include_str!("facade/gunicorn/workers/gtornado.py")),
    ("gunicorn.workers.sync", false, include_str!("facade/gunicorn/workers/sync.py")),
];

const FINDER: &CStr = embedded_source!("finder.py");

/// Makes the package importable in this interpreter, once.
///
/// # Errors
/// `MemoryError`.
pub fn install(py: Python<'_>) -> PyResult<()> {
    let modules = py.import("sys")?.getattr("modules")?;
    if modules.contains("_monoceros")? {
        return Ok(());
    }
    modules.set_item("_monoceros", native::module(py)?)?;
    let sources = PyDict::new(py);
    for (name, is_package, source) in MODULES {
        sources.set_item(name, (is_package, source))?;
    }
    let name = CString::from(c"monoceros_finder");
    let finder = PyModule::from_code(py, FINDER, c"<monoceros>/finder.py", &name)?;
    finder.call_method1("install", (sources,))?;
    Ok(())
}

/// Configures the loggers `gunicorn.error` and `gunicorn.access` of Python's `logging` by the
/// settings in force, if `logging` is loaded.
pub fn set_up_loggers() {
    if !interpreter::is_running() {
        return;
    }
    let set_up = Python::attach(|py| {
        if !interpreter::has_imported(py, "logging")? {
            return Ok(());
        }
        // In the wheel an agent may have imported `logging` before the server uses Python.
        install(py)?;
        py.import("gunicorn._native")?.call_method0("set_up_loggers").map(drop)
    });
    if let Err(error) = set_up {
        Python::attach(|py| log::error!("Cannot set up Python's loggers\n{}", traceback(py, &error)));
    }
}

/// The line of the Server header. A config file may have changed it by `gunicorn.SERVER`, or by
/// replacing `gunicorn.http.wsgi.Response.default_headers`.
pub fn server_line() -> Arc<[u8]> {
    let name = Python::attach(|py| {
        server_name(py).unwrap_or_else(|error| {
            log::error!("The Server header stays as it is\n{}", traceback(py, &error));
            Some(SERVER.to_owned())
        })
    });
    let name = name.filter(|name| {
        let is_valid = response::is_header_value(name.as_bytes());
        if !is_valid {
            log::error!("The Server header is left out: {name:?} is not a valid header value");
        }
        is_valid
    });
    response::server_line(name.as_ref().map(String::as_bytes)).into()
}

/// `SERVER_SOFTWARE` of environs. A config file may have changed it, in `gunicorn` or in
/// `gunicorn.http.wsgi`.
///
/// # Errors
/// `sys.modules` cannot be read, or an application has deleted the name.
pub fn server_software(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    if interpreter::has_imported(py, "gunicorn.http.wsgi")? {
        return py.import("gunicorn.http.wsgi")?.call_method0("server_software");
    }
    if interpreter::has_imported(py, "gunicorn")? {
        return py.import("gunicorn")?.getattr("SERVER_SOFTWARE");
    }
    Ok(PyString::new(py, SERVER_SOFTWARE).into_any())
}

fn server_name(py: Python<'_>) -> PyResult<Option<String>> {
    if interpreter::has_imported(py, "gunicorn.http.wsgi")? {
        py.import("gunicorn.http.wsgi")?.call_method1("server_header", (py.None(),))?.extract()
    } else if interpreter::has_imported(py, "gunicorn")? {
        py.import("gunicorn")?.getattr("SERVER")?.extract()
    } else {
        Ok(Some(SERVER.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn every_file_of_the_package_is_carried() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/python/facade");
        let mut folders = vec![root.join("gunicorn")];
        while let Some(folder) = folders.pop() {
            let entries: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
            let sources = entries.iter().filter(|path| path.extension().is_some_and(|end| end == "py"));
            for file in sources {
                let source = std::fs::read_to_string(file).unwrap();
                let path = file.with_extension("");
                let is_package = path.ends_with("__init__");
                let module = if is_package { path.parent().unwrap() } else { &path };
                let name = module.strip_prefix(&root).unwrap().to_str().unwrap().replace('/', ".");
                assert!(MODULES.contains(&(name.as_str(), is_package, source.as_str())), "{name}");
            }
            folders.extend(entries.into_iter().filter(|path| path.is_dir() && !path.ends_with("__pycache__")));
        }
    }
}
