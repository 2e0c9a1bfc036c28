//! Loading the application that the operator named.

use std::ffi::{CStr, CString};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyDict};

use super::errors::traceback;
use crate::settings::{AppSpec, Config};

const LOADER: &CStr = embedded_source!("loader.py");

/// A loaded WSGI application.
pub struct App {
    callable: Py<PyAny>,
}

impl App {
    /// The application behind `callable`.
    pub(super) fn new(callable: Py<PyAny>) -> App {
        App { callable }
    }

    /// The object to call with environ and start_response.
    pub fn callable(&self) -> &Py<PyAny> {
        &self.callable
    }

    /// An application that answers every request with the traceback of the real one's failed
    /// import. It is for `--reload`: a developer sees the traceback in the browser, and after a
    /// save the app is loaded again.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn showing(traceback: &str) -> PyResult<App> {
        Python::attach(|py| {
            let namespace = PyDict::new(py);
            namespace.set_item("text", format!("{traceback}\n"))?;
            let source = c"lambda environ, start_response: (start_response('500 Internal Server Error', [
                ('Content-Type', 'text/plain; charset=utf-8'), ('Content-Length', str(len(text.encode())))]), [text.encode()])[1]";
            let callable = py.eval(source, Some(&namespace), None)?;
            Ok(App { callable: callable.unbind() })
        })
    }
}

impl Clone for App {
    fn clone(&self) -> Self {
        Python::attach(|py| App { callable: self.callable.clone_ref(py) })
    }
}

/// Why an application could not be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// Importing the module raised. gunicorn's exit code 3.
    Import {
        /// The traceback.
        text: String,
        /// The source files that the traceback names, which `--reload` watches.
        files: Vec<PathBuf>,
        /// The exception, for Python's logging.
        error: PyErr,
    },
    /// The module has no such application; one sentence. gunicorn's exit code 4.
    App(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Import { text, .. } | LoadError::App(text) => f.write_str(text),
        }
    }
}

/// Loads the application that the settings name: the one of a PasteDeploy file, `module`,
/// `module:name`, `module:factory("x", k=1)`, or that of a script.
///
/// # Errors
/// The import raised, or the module holds no such callable.
pub fn load(config: &Config) -> Result<App, LoadError> {
    Python::attach(|py| match load_callable(py, config) {
        Ok(callable) => Ok(App { callable: callable.unbind() }),
        Err(error) => Err(classify(py, &error)),
    })
}

/// Refuses an ASGI application: each request would fail, because workers of ours do not speak ASGI.
/// To be called after the hooks, which may wrap the application.
///
/// # Errors
/// The application is one of ASGI: a sentence that names the class to take.
pub fn refuse_asgi(app: &App, config: &Config) -> Result<(), LoadError> {
    let is_asgi = Python::attach(|py| {
        loader(py)
            .and_then(|loader| loader.call_method1("is_asgi", (app.callable(),))?.extract())
            // An application that raises when its attributes are read may serve all the same.
            .unwrap_or(false)
    });
    if !is_asgi {
        return Ok(());
    }
    Err(LoadError::App(format!(
        "The app is an ASGI application, and worker_class {} runs WSGI applications: take '-k \
         uvicorn.workers.UvicornWorker' (pip install uvicorn), or another class that runs ASGI.",
        config.effective_worker_class()
    )))
}

fn load_callable<'py>(py: Python<'py>, config: &Config) -> PyResult<Bound<'py, PyAny>> {
    let Some(uri) = &config.paste else {
        return match &config.app {
            Some(AppSpec::Script(path)) => loader(py)?.call_method1("load_script", (path,)),
            Some(AppSpec::Module(spec)) => loader(py)?.call_method1("load", (spec,)),
            None => loader(py)?.call_method1("load", ("",)),
        };
    };
    let globals = config.raw_paste_global_conf.clone().into_py_dict(py)?;
    py.import("gunicorn.app.pasterapp")?.call_method1("get_wsgi_app", (uri, py.None(), globals))
}

/// The directories to insert at the front of `sys.path`, in this order: `start`, in which the
/// server was started, `chdir`, and `pythonpath` relative to it. Only `pythonpath` without `start`:
/// a program that embeds the server has set its path itself.
pub fn search_path(start: Option<&Path>, config: &Config) -> Vec<PathBuf> {
    let own = start.into_iter().flat_map(|start| [start, config.chdir.as_path()]).map(Path::to_owned);
    own.chain(config.pythonpath.iter().map(|path| absolute(path))).collect()
}

/// As Python's `os.path.abspath`: `..` removes the name before it, even if that is a link.
pub fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            part => normal.push(part),
        }
    }
    normal
}

/// Inserts `directories` at the front of `sys.path`, each before the earlier ones, as gunicorn's
/// `--chdir` and `--pythonpath` do.
///
/// # Errors
/// `sys.path` is not a list, because an app has replaced it; or `MemoryError`.
pub fn extend_path(directories: &[PathBuf]) -> PyResult<()> {
    Python::attach(|py| {
        // The loader is imported first, so that its imports find the standard library, and not
        // modules of the project that have the same names.
        loader(py)?;
        let path = py.import("sys")?.getattr("path")?;
        for directory in directories {
            let directory = directory.as_os_str();
            if !path.contains(directory)? {
                path.call_method1("insert", (0, directory))?;
            }
        }
        Ok(())
    })
}

/// Hides the objects loaded so far from the garbage collector (`gc.freeze`), before workers are
/// forked. A collection in a worker writes to each object's header, and so copies the pages that
/// all workers share.
///
/// # Errors
/// `MemoryError`, or an exception of a finalizer.
pub fn freeze() -> PyResult<()> {
    Python::attach(|py| {
        let gc = py.import("gc")?;
        gc.call_method0("collect")?;
        gc.call_method0("freeze")?;
        Ok(())
    })
}

/// The source files of every module imported so far, and the script, for `--reload`.
///
/// # Errors
/// `sys.modules` cannot be read.
pub fn module_files() -> PyResult<Vec<PathBuf>> {
    Python::attach(|py| {
        let modules = py.import("sys")?.getattr("modules")?.call_method0("copy")?;
        let mut files: Vec<PathBuf> = loader(py)?.getattr("scripts")?.extract()?;
        for module in modules.call_method0("values")?.try_iter()? {
            // `sys.modules` may contain any object, with or without attributes.
            let file = module?.getattr("__file__").ok().and_then(|file| file.extract::<PathBuf>().ok());
            files.extend(file.as_deref().and_then(source_of));
        }
        files.sort_unstable();
        files.dedup();
        Ok(files)
    })
}

fn source_of(file: &Path) -> Option<PathBuf> {
    match file.extension()?.to_str()? {
        "py" => Some(file.to_owned()),
        "pyc" => Some(file.with_extension("py")),
        _ => None,
    }
}

fn loader(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let name = CString::from(c"monoceros_loader");
    MODULE
        .get_or_try_init(py, || Ok(PyModule::from_code(py, LOADER, c"<monoceros>/loader.py", &name)?.unbind()))
        .map(|module| module.bind(py))
}

fn classify(py: Python<'_>, error: &PyErr) -> LoadError {
    let app_error = loader(py).and_then(|loader| loader.getattr("AppError"));
    if app_error.is_ok_and(|class| error.matches(py, class).unwrap_or(false)) {
        return LoadError::App(error.value(py).to_string());
    }
    // Without the list --reload watches fewer files; nothing else is lost.
    let files = loader(py)
        .and_then(|loader| loader.call_method1("files_of", (error.value(py), error.traceback(py)))?.extract());
    LoadError::Import { text: traceback(py, error), files: files.unwrap_or_default(), error: error.clone_ref(py) }
}
