//! A worker class written in Python that serves by itself: uvicorn's, aiohttp's, tornado's.
//!
//! The module `_foreign` of the carried package makes the object of the class and runs it. This
//! module gives the object what the server knows: its settings and hooks by the bridge, its
//! listeners, and a heartbeat on the scoreboard. The class alone sees its requests; neither the
//! event loop nor the rest of this layer does.
//!
//! A class derived from gunicorn's own is run in the same way, but its `run` calls the server,
//! which serves for it.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::app::App;
use super::errors::traceback;
use super::hooks::{HookError, Hooks, Numbers, WorkerState, refusal};
pub use super::native::take_broken_files;
use super::{interpreter, loggers, signals};
use crate::base::unpoisoned::Unpoisoned;
use crate::logging::Level;
use crate::scoreboard::{AskedLevel, Row, WorkerPhase};
use crate::sys::wakeup::Wakeup;

/// The worker of this process, whose object the bridge holds.
pub struct ForeignWorker {
    /// `gunicorn._bridge.Bridge`
    bridge: Py<PyAny>,
    /// The name of the server's own class that serves for the worker's; `None` where that serves by
    /// itself.
    own_class: Option<String>,
    /// The installed gunicorn's code runs the worker.
    is_of_gunicorn: bool,
    row: Row,
}

/// What a worker gets besides settings and hooks.
pub struct ForeignInit<'a> {
    /// What hooks see of the worker.
    pub state: WorkerState,
    /// The listeners: as the log shows them, and their descriptors, which become the worker's own.
    pub listeners: &'a [(String, RawFd)],
    /// Where its heartbeats go.
    pub row: Row,
    /// The level that the error log is to have, if an operator changes it.
    pub asked_level: Arc<AskedLevel>,
    /// Wakes the master when the phase of the worker changes.
    pub wakeup: Wakeup,
    /// Where the stacks of an aborted worker go.
    pub stacks: RawFd,
}

/// What a class asks of the threads that run the application, by its `get_thread_pool`.
pub struct ThreadTerms {
    /// How many threads there are to be.
    pub count: usize,
    /// `start(number)`
    start: Py<PyAny>,
}

impl ThreadTerms {
    /// Prepares the calling thread, which has that number: its name, and the pool's initializer.
    ///
    /// # Errors
    /// The initializer raised.
    pub fn start(&self, py: Python<'_>, number: usize) -> PyResult<()> {
        self.start.call1(py, (number,)).map(drop)
    }
}

/// How a worker's life has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignEnd {
    /// The exit status; the reason of a failure is in the log.
    pub status: i32,
    /// The worker was told to end at once: its threads are not waited for.
    pub is_quick: bool,
}

impl ForeignWorker {
    /// Makes the object of the class that `name` stands for. The interpreter must be running, with
    /// the application's directories in `sys.path`.
    ///
    /// # Errors
    /// There is no such class, or it refuses the settings.
    pub fn make(hooks: &Hooks, name: &str, init: ForeignInit<'_>) -> Result<ForeignWorker, HookError> {
        Python::attach(|py| {
            let made = make(py, hooks, name, init);
            made.map_err(|error| refusal(py, &error))
        })
    }

    /// The name of the server's own class that serves for the worker's, if that is derived from
    /// one.
    pub fn own_class(&self) -> Option<&str> {
        self.own_class.as_deref()
    }

    /// Whether an installed gunicorn's own code runs the worker, and so heeds gunicorn's settings.
    pub fn is_of_gunicorn(&self) -> bool {
        self.is_of_gunicorn
    }

    /// For a class derived from one of the server's own: has its `run` call `serve` with the
    /// application, and with what the class asks of threads. Returns `hooks` with the methods that
    /// the class overrides.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn serve_by(
        &self,
        hooks: &Hooks,
        serve: impl FnOnce(App, Option<ThreadTerms>) + Send + 'static,
    ) -> Result<Hooks, PyErr> {
        Python::attach(|py| {
            let serve = Py::new(py, Serve(Mutex::new(Some(Box::new(serve)))))?;
            let numbers = Py::new(py, Numbers(self.row.clone()))?;
            let module = py.import("gunicorn._foreign")?;
            let methods = module.call_method1("serve_by", (&self.bridge, serve, numbers))?;
            let methods = methods.try_iter()?.map(|name| name?.extract()).collect::<PyResult<Vec<String>>>()?;
            Ok(hooks.with_methods(py, &self.bridge, &methods))
        })
    }

    /// Calls `post_fork`.
    ///
    /// # Errors
    /// The traceback, if it raised.
    pub fn post_fork(&self) -> Result<(), String> {
        Python::attach(|py| self.bridge.call_method0(py, "post_fork").map(drop).map_err(|error| traceback(py, &error)))
    }

    /// Lives the worker's life, in the interpreter's main thread. Returns how it has ended and, if
    /// the worker could not begin to serve, why.
    pub fn serve(&self) -> (ForeignEnd, Option<String>) {
        let served = Python::attach(|py| {
            let served = py.import("gunicorn._foreign")?.call_method1("serve", (&self.bridge,))?;
            let (status, is_quick, failure) = served.extract()?;
            Ok((ForeignEnd { status, is_quick }, failure))
        });
        served.unwrap_or_else(|error: PyErr| {
            // The handler of a signal has raised between two lines of Python's `serve`.
            Python::attach(|py| log::debug!("The end of the worker was interrupted\n{}", traceback(py, &error)));
            (ForeignEnd { status: 0, is_quick: true }, None)
        })
    }

    /// Calls `worker_exit`. An exception is logged.
    pub fn exit(&self) {
        Python::attach(|py| {
            let exited = py
                .import("gunicorn._foreign")
                .and_then(|module| module.call_method1("worker_exit", (&self.bridge, self.row.served())).map(drop));
            if let Err(error) = exited {
                log::warn!("Exception during worker exit\n{}", traceback(py, &error));
            }
        });
    }
}

/// Whether there is a worker class of that name that can be run, for `--check-config`.
///
/// # Errors
/// A sentence or traceback that says why not.
pub fn check(name: &str) -> Result<(), HookError> {
    Python::attach(|py| {
        let loaded = py.import("gunicorn._foreign").and_then(|module| module.call_method1("load", (name,)));
        loaded.map(drop).map_err(|error| refusal(py, &error))
    })
}

/// Whether a config file or an agent has put methods into the server's own `class` that the server
/// must call. With `tells` the log names a replaced method that is never called.
pub fn is_replaced(class: &str, tells: bool) -> bool {
    let asked = || Python::attach(|py| replaced_methods(py, class).map_err(|error| traceback(py, &error)));
    if !interpreter::is_running() {
        return false;
    }
    match asked() {
        Ok((is_replaced, in_vain)) => {
            if let Some(method) = in_vain.filter(|_| tells) {
                log::warn!(
                    "{method}() of the worker class {class} was replaced, which has no effect: the server itself reads \
                     its requests."
                );
            }
            is_replaced
        }
        Err(traceback) => {
            log::error!("Cannot look at the worker class {class}\n{traceback}");
            false
        }
    }
}

fn replaced_methods(py: Python<'_>, class: &str) -> PyResult<(bool, Option<String>)> {
    const BASE: &str = "gunicorn.workers.base";
    if !interpreter::has_imported(py, BASE)? || !py.import(BASE)?.call_method0("is_any_changed")?.extract::<bool>()? {
        return Ok((false, None));
    }
    py.import("gunicorn._foreign")?.call_method1("replaced_methods", (class,))?.extract()
}

fn make(py: Python<'_>, hooks: &Hooks, name: &str, init: ForeignInit<'_>) -> PyResult<ForeignWorker> {
    let bridge = match hooks.bridge() {
        Some(bridge) => bridge.clone_ref(py),
        None => loggers::bridge(py)?,
    };
    let module = py.import("gunicorn._foreign")?;
    let class = module.call_method1("load", (name,))?;
    let own_class = module.call_method1("own_class", (&class,))?.extract()?;
    let row = init.row.clone();
    let beat = Py::new(py, Beat { row: init.row, asked_level: init.asked_level, wakeup: init.wakeup })?;
    let state: Bound<'_, PyDict> = init.state.as_dict(py)?;
    state.set_item("stacks", init.stacks)?;
    let entered = module.call_method1("enter", (&bridge, name, class, state, init.listeners, beat))?;
    Ok(ForeignWorker { bridge, own_class, is_of_gunicorn: entered.extract()?, row })
}

/// What `worker.tmp` of a worker that serves by itself calls.
#[pyclass(frozen, module = "monoceros")]
struct Beat {
    row: Row,
    asked_level: Arc<AskedLevel>,
    wakeup: Wakeup,
}

#[pymethods]
impl Beat {
    /// Records a heartbeat and what the worker says of itself. The first one after it has booted
    /// tells the master that it serves.
    fn __call__(&self, served: u64, has_booted: bool, is_alive: bool) {
        self.row.set_served(served);
        self.row.beat();
        if let Some(level) = self.asked_level.take() {
            loggers::set_level(Level::from_python(level));
        }
        let before = self.row.state();
        if has_booted {
            // A hook may have set `alive` to False: another worker is to take this one's place.
            self.row.set_state(if is_alive { WorkerPhase::Ready } else { WorkerPhase::Retiring });
        }
        if self.row.state() != before {
            self.wakeup.wake();
        }
    }
}

type Serving = Box<dyn FnOnce(App, Option<ThreadTerms>) + Send>;

/// What the `run` of a class calls, once, where the server serves for the class.
#[pyclass(frozen, module = "monoceros")]
struct Serve(Mutex<Option<Serving>>);

#[pymethods]
impl Serve {
    #[pyo3(signature = (app, threads=None))]
    fn __call__(&self, app: Py<PyAny>, threads: Option<(usize, Py<PyAny>)>) -> PyResult<()> {
        let serve = self.0.lock().unpoisoned().take();
        let serve = serve.ok_or_else(|| PyRuntimeError::new_err("the worker has served already"))?;
        serve(App::new(app), threads.map(|(count, start)| ThreadTerms { count, start }));
        Ok(())
    }
}

/// Ends Python's part of the process. A worker that was told to end at once does not wait for
/// threads.
pub fn wind_down(end: ForeignEnd) {
    signals::ignore();
    if end.is_quick {
        interpreter::run_exit_functions();
    } else {
        interpreter::wind_down();
    }
}
