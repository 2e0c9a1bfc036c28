//! Server hooks, and Python's logging as the operator's config asks for it.
//!
//! The objects that hooks are given (`server`, `worker`, `req`, `resp`, their `log` and `cfg`) are
//! those of the `gunicorn` package that the server carries; its module `_bridge` keeps them up to
//! date. This module decides when hooks run, and turns exceptions into text. It hides pyo3 from the
//! layers above. If the config asks for neither hooks nor Python's logging, [`Hooks`] is empty and
//! costs one test.

use std::collections::HashSet;
use std::fmt;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyo3::exceptions::{PyRuntimeError, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::app::App;
use super::config_file::Objects;
use super::errors::{Exit, traceback};
pub use super::native::take_wanted_workers;
use super::native::to_python;
use super::request_hooks::RequestHooks;
use super::signals;
use super::{interpreter, loggers};
use crate::logging;
use crate::scoreboard::Row;
use crate::settings::{self, AppSpec, Config, Origins};
use crate::sys::process::Pid;

/// The hooks of a config. Clones share them.
#[derive(Clone, Default)]
pub struct Hooks(Option<Arc<Bridge>>);

struct Bridge {
    /// `gunicorn._bridge.Bridge`
    object: Py<PyAny>,
    /// The names of the hooks that are set, and those of [`Hooks::with_methods`].
    given: HashSet<String>,
    /// Python's logging writes both logs.
    writes_logs: bool,
}

/// Why a hook, a logger class or a logging config cannot be used: a sentence or a traceback.
#[derive(Debug)]
pub struct HookError(String);

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The hooks that are called with the server alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerHook {
    /// The start.
    OnStarting,
    /// The sockets are open.
    WhenReady,
    /// HUP.
    OnReload,
    /// USR2.
    PreExec,
    /// The end.
    OnExit,
}

/// The methods of a worker's class for signals that unwind nothing; no hook belongs to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerMethod {
    /// TERM.
    HandleExit,
    /// USR1.
    HandleUsr1,
}

impl WorkerMethod {
    fn name(self) -> &'static str {
        match self {
            WorkerMethod::HandleExit => "handle_exit",
            WorkerMethod::HandleUsr1 => "handle_usr1",
        }
    }
}

impl ServerHook {
    fn name(self) -> &'static str {
        match self {
            ServerHook::OnStarting => "on_starting",
            ServerHook::WhenReady => "when_ready",
            ServerHook::OnReload => "on_reload",
            ServerHook::PreExec => "pre_exec",
            ServerHook::OnExit => "on_exit",
        }
    }
}

/// The attributes of the master that a hook can read.
#[derive(Debug, Clone)]
pub struct ServerState {
    /// The master's pid.
    pub pid: Pid,
    /// `Master`, or `Master.2` beside an older master.
    pub master_name: &'static str,
    /// The pid of that older master.
    pub old_master: Option<Pid>,
    /// The pid of a newer master that this one has started (USR2).
    pub new_master: Option<Pid>,
    /// The number of workers to keep.
    pub num_workers: usize,
    /// How many workers were forked so far.
    pub worker_age: u64,
    /// The listeners: as the log shows them, and their descriptors.
    pub listeners: Vec<(String, RawFd)>,
    /// The path of the pid file.
    pub pid_file: Option<PathBuf>,
    /// The dirty arbiter's pid, if one runs.
    pub dirty_arbiter_pid: Option<Pid>,
}

impl ServerState {
    fn as_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let state = PyDict::new(py);
        state.set_item("pid", self.pid.as_raw())?;
        state.set_item("master_name", self.master_name)?;
        state.set_item("master_pid", self.old_master.map_or(0, Pid::as_raw))?;
        state.set_item("reexec_pid", self.new_master.map_or(0, Pid::as_raw))?;
        state.set_item("num_workers", self.num_workers)?;
        state.set_item("worker_age", self.worker_age)?;
        state.set_item("listeners", &self.listeners)?;
        state.set_item("pid_file", self.pid_file.as_deref().map(Path::as_os_str))?;
        state.set_item("dirty_arbiter_pid", self.dirty_arbiter_pid.map_or(0, Pid::as_raw))?;
        Ok(state)
    }
}

/// The attributes of a worker, besides the settings, that a hook can read.
#[derive(Debug, Clone, Copy)]
pub struct WorkerState {
    /// The master's pid.
    pub ppid: Pid,
    /// How many workers were forked, up to and including this one.
    pub age: u64,
    /// Requests to serve before the worker asks for a replacement; 0 for no limit.
    pub max_requests: u64,
    /// The number of the worker's row on the scoreboard.
    pub number: usize,
}

impl WorkerState {
    /// The worker is this process.
    pub(super) fn as_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let state = PyDict::new(py);
        state.set_item("pid", std::process::id())?;
        state.set_item("ppid", self.ppid.as_raw())?;
        state.set_item("age", self.age)?;
        state.set_item("max_requests", self.max_requests)?;
        state.set_item("number", self.number)?;
        Ok(state)
    }
}

/// The numbers of the worker's row that classes of gunicorn's have as attributes.
#[pyclass(frozen, module = "monoceros")]
pub(super) struct Numbers(pub Row);

#[pymethods]
impl Numbers {
    /// Requests that are over.
    #[getter]
    fn served(&self) -> u64 {
        self.0.served()
    }

    /// Open connections.
    #[getter]
    fn connections(&self) -> u64 {
        self.0.connections()
    }

    /// Requests that run.
    #[getter]
    fn running(&self) -> u64 {
        self.0.running()
    }
}

/// A hook raised.
#[derive(Debug)]
pub struct Raised {
    traceback: String,
    exit: Option<Exit>,
}

impl Raised {
    fn new(py: Python<'_>, error: &PyErr) -> Raised {
        Raised { traceback: traceback(py, error), exit: Exit::of(py, error) }
    }

    /// The status and text of `sys.exit()`, if the hook has called it.
    pub fn exit(&self) -> Option<&Exit> {
        self.exit.as_ref()
    }
}

/// The traceback.
impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceback)
    }
}

impl Hooks {
    /// Reads the hooks of `config`, whose `objects` come from a Python config file. After a reload
    /// these hooks see the same `server` and workers as those `before`. `origins` tells where each
    /// value comes from. Call it for a config with hooks ([`Hooks::are_wanted`]); the interpreter
    /// must be running.
    ///
    /// # Errors
    /// A hook cannot be imported, or cannot be called with its arguments.
    pub fn new(
        config: &Config,
        objects: Option<Objects>,
        origins: &Origins,
        before: &Hooks,
    ) -> Result<Hooks, HookError> {
        Python::attach(|py| {
            let objects = objects.map_or_else(|| PyDict::new(py), |objects| objects.0.into_bound(py));
            let made = Bridge::new(py, config, &objects, origins).and_then(|bridge| {
                if let Some(before) = &before.0 {
                    bridge.object.call_method1(py, "take_over", (&before.object,))?;
                }
                Ok(Hooks(Some(Arc::new(bridge))))
            });
            made.map_err(|error| refusal(py, &error))
        })
    }

    /// Whether `config` asks for hooks or for Python's logging.
    pub fn are_wanted(config: &Config) -> bool {
        !config.hooks.is_empty() || config.logs_through_python()
    }

    /// Whether Python's logging writes both logs.
    pub fn write_logs(&self) -> bool {
        self.0.as_ref().is_some_and(|bridge| bridge.writes_logs)
    }

    /// Makes the logger of the hooks. If Python's logging writes the logs, records go there from
    /// here on, otherwise to the server's own logs.
    ///
    /// # Errors
    /// The logging config cannot be used, or the logger's class raised.
    pub fn open_log(&self, config: &Config) -> Result<(), HookError> {
        loggers::begin(config, self.0.as_ref().map(|bridge| &bridge.object));
        let Some(bridge) = &self.0 else {
            loggers::set_up();
            return Ok(());
        };
        let level = Python::attach(|py| {
            let made = bridge.object.call_method0(py, "make_log").and_then(|level| level.extract(py));
            made.map_err(|error| refusal(py, &error))
        })?;
        if bridge.writes_logs {
            loggers::configured(logging::Level::from_python(level));
        }
        Ok(())
    }

    /// In the master: makes `app` the result of `server.app.wsgi()`.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn preloaded(&self, app: &App) -> Result<(), Raised> {
        let Some(bridge) = &self.0 else { return Ok(()) };
        Python::attach(|py| bridge.ask(py, "preloaded", (app.callable(),)))
    }

    /// Calls a hook that takes the server alone.
    ///
    /// # Errors
    /// It raised.
    pub fn call(&self, hook: ServerHook, server: impl FnOnce() -> ServerState) -> Result<(), Raised> {
        self.in_master(hook.name(), server, |py, bridge| bridge.call_method1(py, "call_server", (hook.name(),)))
    }

    /// Calls `nworkers_changed`.
    ///
    /// # Errors
    /// It raised.
    pub fn nworkers_changed(
        &self,
        server: impl FnOnce() -> ServerState,
        new: usize,
        old: Option<usize>,
    ) -> Result<(), Raised> {
        let name = "nworkers_changed";
        self.in_master(name, server, |py, bridge| bridge.call_method1(py, "call_server", (name, new, old)))
    }

    /// Calls `pre_fork` for the worker of that age.
    ///
    /// # Errors
    /// It raised.
    pub fn pre_fork(&self, server: impl FnOnce() -> ServerState, age: u64) -> Result<(), Raised> {
        // The worker object is made even without this hook, because later hooks get it.
        let Some(bridge) = &self.0 else { return Ok(()) };
        bridge.with_server(server, |py, object| object.call_method1(py, "pre_fork", (age,)))
    }

    /// In the master: sets the pid of the worker of the last [`Hooks::pre_fork`].
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn forked(&self, pid: Pid) -> Result<(), Raised> {
        let Some(bridge) = &self.0 else { return Ok(()) };
        Python::attach(|py| bridge.ask(py, "forked", (pid.as_raw(),)))
    }

    /// Calls `child_exit`: the worker was reaped.
    ///
    /// # Errors
    /// It raised.
    pub fn child_exit(&self, server: impl FnOnce() -> ServerState, pid: Pid) -> Result<(), Raised> {
        let Some(bridge) = &self.0 else { return Ok(()) };
        bridge.with_server(server, |py, object| object.call_method1(py, "child_exit", (pid.as_raw(),)))
    }

    /// Logs `text` at debug level with a metric for statsd; returns whether Python's logging has
    /// taken it.
    pub fn metric(&self, text: &str, name: &str, value: u64, kind: &str) -> bool {
        let Some(bridge) = self.0.as_ref().filter(|bridge| bridge.writes_logs) else { return false };
        Python::attach(|py| bridge.ask(py, "metric", (text, name, value, kind))).is_ok()
    }

    /// In a new worker: makes it the current worker, whose numbers are those of `row`, then calls
    /// `post_fork`.
    ///
    /// # Errors
    /// It raised.
    pub fn post_fork(&self, worker: WorkerState, row: &Row) -> Result<(), Raised> {
        let Some(bridge) = &self.0 else { return Ok(()) };
        Python::attach(|py| {
            let state = worker.as_dict(py).and_then(|state| {
                state.set_item("numbers", Py::new(py, Numbers(row.clone()))?)?;
                Ok(state)
            });
            let state = state.map_err(|error| Raised::new(py, &error))?;
            bridge.ask(py, "enter_worker", (state,))?;
            bridge.ask(py, "post_fork", ())
        })
    }

    /// Calls `post_worker_init`: the app is loaded. Returns the app to serve, which the hook may
    /// have wrapped.
    ///
    /// # Errors
    /// It raised.
    pub fn post_worker_init(&self, app: App) -> Result<App, Raised> {
        let Some(bridge) = &self.0 else { return Ok(app) };
        Python::attach(|py| {
            let served = bridge.object.call_method1(py, "post_worker_init", (app.callable(),));
            served.map(App::new).map_err(|error| Raised::new(py, &error))
        })
    }

    /// Calls `worker_int` or, for an abort, `worker_abort`.
    ///
    /// # Errors
    /// The hook raised; the exception must reach the application.
    pub fn interrupted(&self, py: Python<'_>, is_abort: bool) -> PyResult<()> {
        let hook = if is_abort { "worker_abort" } else { "worker_int" };
        match self.0.as_ref().filter(|bridge| bridge.given.contains(hook)) {
            Some(bridge) => bridge.object.call_method0(py, hook).map(drop),
            None => Ok(()),
        }
    }

    /// Calls `worker_int` because code has changed. An exception is logged: it must not end a
    /// request.
    pub fn code_changed(&self) {
        if self.0.as_ref().is_none_or(|bridge| !bridge.given.contains("worker_int")) {
            return;
        }
        Python::attach(|py| {
            if let Err(error) = self.interrupted(py, false)
                && !error.is_instance_of::<PySystemExit>(py)
            {
                log::error!("Exception in worker_int hook\n{}", traceback(py, &error));
            }
        });
    }

    /// Calls `worker_exit`, after `served` requests. An exception is logged.
    pub fn worker_exit(&self, served: u64) {
        let Some(bridge) = self.0.as_ref().filter(|bridge| bridge.given.contains("worker_exit")) else { return };
        if let Err(raised) = Python::attach(|py| bridge.ask(py, "worker_exit", (served,))) {
            log::warn!("Exception during worker exit\n{raised}");
        }
    }

    /// These hooks, and the `methods` that the worker's class overrides. A method that calls a hook
    /// goes by the hook's name, any other by its own.
    pub(super) fn with_methods(&self, py: Python<'_>, bridge: &Py<PyAny>, methods: &[String]) -> Hooks {
        let of_settings = self.0.as_ref();
        let given = of_settings.map(|bridge| bridge.given.clone()).unwrap_or_default();
        Hooks(Some(Arc::new(Bridge {
            object: bridge.clone_ref(py),
            given: given.into_iter().chain(methods.iter().cloned()).collect(),
            writes_logs: of_settings.is_some_and(|bridge| bridge.writes_logs),
        })))
    }

    /// Whether the worker's class overrides that method.
    pub fn calls(&self, method: WorkerMethod) -> bool {
        self.0.as_ref().is_some_and(|bridge| bridge.given.contains(method.name()))
    }

    /// Calls a method of the worker's class that handles a signal, if the class overrides it. An
    /// exception is logged: no request runs that it could reach.
    pub fn call_method(&self, method: WorkerMethod) {
        let name = method.name();
        let Some(bridge) = self.0.as_ref().filter(|bridge| bridge.given.contains(name)) else { return };
        if let Err(raised) = Python::attach(|py| bridge.ask(py, name, ())) {
            log::error!("Exception in the worker's {name}\n{raised}");
        }
    }

    /// The bridge, if there is one.
    pub(super) fn bridge(&self) -> Option<&Py<PyAny>> {
        self.0.as_ref().map(|bridge| &bridge.object)
    }

    /// The bridge, if the user has set this hook.
    pub(super) fn bridge_of(&self, hook: &str) -> Option<&Py<PyAny>> {
        self.0.as_ref().filter(|bridge| bridge.given.contains(hook)).map(|bridge| &bridge.object)
    }

    /// The hooks that run for each request, if there are any.
    pub(super) fn observer(&self, py: Python<'_>) -> Option<RequestHooks> {
        let is_given = |hook: &str| self.0.as_ref().is_some_and(|bridge| bridge.given.contains(hook));
        let (before, after) = (is_given("pre_request"), is_given("post_request"));
        let logs = loggers::python_writes();
        if !(before || after || logs) {
            return None;
        }
        let object = match &self.0 {
            Some(bridge) => bridge.object.clone_ref(py),
            None => loggers::bridge(py)
                .inspect_err(|error| logging::write_record(logging::Level::Error, &traceback(py, error)))
                .ok()?,
        };
        Some(RequestHooks::new(object, before, after, logs))
    }

    fn in_master(
        &self,
        hook: &str,
        server: impl FnOnce() -> ServerState,
        call: impl FnOnce(Python<'_>, &Py<PyAny>) -> PyResult<Py<PyAny>>,
    ) -> Result<(), Raised> {
        match &self.0 {
            Some(bridge) if bridge.given.contains(hook) => bridge.with_server(server, call),
            _ => Ok(()),
        }
    }
}

/// A `gunicorn._bridge.Bridge` of the settings in `config`, whose `objects` a Python config file
/// gave; `origins` tells where each value comes from.
pub(super) fn bridge_object<'py>(
    py: Python<'py>,
    config: &Config,
    objects: &Bound<'py, PyDict>,
    origins: &Origins,
) -> PyResult<Bound<'py, PyAny>> {
    let values = PyDict::new(py);
    for setting in settings::all() {
        values.set_item(setting.name, to_python(py, &setting.value_in(config))?)?;
    }
    values.set_item("python_logging", config.logs_through_python())?;
    let app_uri = config.paste.as_deref().or(config.app.as_ref().map(AppSpec::text));
    py.import("gunicorn._bridge")?.getattr("Bridge")?.call1((values, objects, sources_of_values(py, origins)?, app_uri))
}

/// Whether a config file has changed gunicorn's own class of loggers, whose lines then count.
pub fn logger_is_patched() -> bool {
    interpreter::is_running()
        && Python::attach(|py| {
            let is_imported = interpreter::has_imported(py, "gunicorn.glogging")?;
            if is_imported { py.import("gunicorn.glogging")?.call_method0("is_patched")?.extract() } else { Ok(false) }
        })
        .unwrap_or_else(|error: PyErr| {
            log::warn!("Cannot look at gunicorn's class of loggers: {error}");
            false
        })
}

impl Bridge {
    fn new(py: Python<'_>, config: &Config, objects: &Bound<'_, PyDict>, origins: &Origins) -> PyResult<Bridge> {
        // Objects that a later source has overridden are left out.
        let overridden = |name: &str| settings::find(name).is_none_or(|setting| !setting.value_in(config).is_object());
        for name in objects.keys() {
            if overridden(&name.to_string()) {
                objects.del_item(name)?;
            }
        }
        let object = bridge_object(py, config, objects, origins)?;
        let given = object.getattr("hooks")?.try_iter()?.map(|name| name?.extract()).collect::<PyResult<_>>()?;
        Ok(Bridge { object: object.unbind(), given, writes_logs: config.logs_through_python() })
    }

    /// Calls a method of the bridge.
    fn ask<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        arguments: impl pyo3::call::PyCallArgs<'py>,
    ) -> Result<(), Raised> {
        self.object.bind(py).call_method1(method, arguments).map(drop).map_err(|error| Raised::new(py, &error))
    }

    /// Passes the master's state to the bridge, then calls.
    fn with_server(
        &self,
        server: impl FnOnce() -> ServerState,
        call: impl FnOnce(Python<'_>, &Py<PyAny>) -> PyResult<Py<PyAny>>,
    ) -> Result<(), Raised> {
        let server = server();
        let called = Python::attach(|py| {
            let shown = server.as_dict(py).and_then(|state| self.object.call_method1(py, "server", (state,)));
            shown.and_then(|_| call(py, &self.object)).map(drop).map_err(|error| Raised::new(py, &error))
        });
        // A hook may have installed signal handlers of its own.
        signals::take_back();
        called
    }
}

fn sources_of_values<'py>(py: Python<'py>, origins: &Origins) -> PyResult<Bound<'py, PyDict>> {
    let named = PyDict::new(py);
    for (name, origin) in origins.iter() {
        named.set_item(name, origin.to_string())?;
    }
    Ok(named)
}

/// Errors that the package raises itself (`RuntimeError`, `ConfigError`) are a sentence; others are
/// shown with their traceback.
pub(super) fn refusal(py: Python<'_>, error: &PyErr) -> HookError {
    let is_sentence = [py.get_type::<PyRuntimeError>().into_any()]
        .into_iter()
        .chain(py.import("gunicorn.errors").and_then(|errors| errors.getattr("ConfigError")))
        .any(|class| error.matches(py, class).unwrap_or(false));
    HookError(if is_sentence { error.value(py).to_string() } else { traceback(py, error) })
}
