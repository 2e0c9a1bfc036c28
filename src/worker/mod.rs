//! A worker: one process that runs the application for the connections it accepts.
//!
//! [`run`] is its life, in order. `thread_pool` is the loop that its threads share: `event_loop`
//! waits and does the input and output, `connection` turns bytes into requests, `python::call`
//! answers them. A worker must not know the master beyond what its [`WorkerInit`] holds.
//! `connection`, `connection_limits` and `read_context` are public for the fuzz targets, which
//! drive them without an interpreter.

mod access;
mod batching;
mod body_store;
pub mod connection;
pub mod connection_limits;
mod connection_poll;
mod counting;
mod dirty_arbiter;
mod event_loop;
mod file_watcher;
mod foreign;
mod holdings;
mod leader;
mod listeners;
pub mod metrics_server;
pub mod read_context;
mod rejection_log;
mod relay;
mod relay_link;
mod request_ids;
mod siblings;
mod slow_requests;
mod spool;
mod standby;
mod thread_pool;
mod transport;
mod write_queue;
mod write_timeout;

use std::fmt::Display;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::connection::FileTerms;
use self::connection_limits::ConnectionLimits;
use self::event_loop::EventLoop;
use self::file_watcher::{ChangeNotifier, FileWatcher};
use self::leader::{LeaderState, WorkerStage};
use self::metrics_server::MetricsPages;
use self::siblings::Siblings;
use self::thread_pool::{Role, ThreadPool, WorkerContext};
use crate::bootstrap::PythonSetup;
use crate::files::{AppFiles, StaticFiles};
use crate::logging::{self, AccessFormat, AccessLog, Failure, Scope, within};
use crate::python::app::{self, App, LoadError};
use crate::python::call::{CallOptions, Caller, SharedCalls};
use crate::python::environ::ListenerInfo;
use crate::python::foreign_worker::{self, ThreadTerms};
use crate::python::hooks::{Hooks, Raised, WorkerState};
use crate::python::idle::GreenletWait;
use crate::python::panics::caught;
use crate::python::signals::Nudge;
use crate::python::{
    PyErr, Python, dirty, environment, facade, failure, greenlets, interpreter, loggers, request_context, signals,
    spew, threads, title,
};
use crate::scoreboard::{Row, Scoreboard};
use crate::service;
use crate::settings::{Config, LogFormat, WorkerClass};
use crate::sys::failure_note::FailureNote;
use crate::sys::output;
use crate::sys::process;
use crate::sys::socket::{Listener, LocalAddress};
use crate::sys::wakeup::{self, WakeupReceiver};
use crate::sys::{thread, user};
use crate::worker_init::WorkerInit;

pub use self::dirty_arbiter::run as run_dirty_arbiter;

/// The worker served and has ended in good order.
pub const EXIT_OK: i32 = 0;
/// The worker failed before it could serve (gunicorn's `WORKER_BOOT_ERROR`).
pub const EXIT_BOOT_ERROR: i32 = 3;
/// The module has no such application (gunicorn's `APP_LOAD_ERROR`).
pub const EXIT_APP_ERROR: i32 = 4;

/// Where the application finds the worker number. No other living worker has the same one; later
/// workers have it again.
const NUMBER_VARIABLE: &str = "MONOCEROS_WORKER";

/// What the log says before the traceback of a worker that could not begin.
const IN_WORKER: &str = "Exception in worker process";

/// Lives a worker's life and returns its exit status.
pub fn run(init: WorkerInit, python: &PythonSetup) -> i32 {
    output::forget_captured_streams();
    title::set(&format!("monoceros: worker [{}]", init.service.config.name()));
    if let Some(name) = python_class(&init) {
        return foreign::run(init, python, &name);
    }
    let (hooks, row, note) = (init.service.hooks.clone(), init.row.clone(), init.master.failure_note.clone());
    let booted = boot(init, python).inspect_err(|failure| failure.note_in(note.as_deref()));
    drop(note);
    if booted.as_ref().is_ok_and(|worker| worker.hub.is_some()) {
        // Greenlets may lie suspended below frames of ours for ever, and each counts as attached
        // (pyo3 counts by thread). So this thread stays attached to its end: it could not attach
        // again.
        return Python::attach(|_| serve_and_end(booted, &hooks, &row));
    }
    serve_and_end(booted, &hooks, &row)
}

/// The name of the Python class that runs the worker, if one does: a foreign class, or the server's
/// own class where its methods were replaced.
fn python_class(init: &WorkerInit) -> Option<String> {
    match init.service.config.effective_worker_class() {
        WorkerClass::Foreign(name) => Some(name),
        own => Some(own.to_string()).filter(|name| foreign_worker::is_replaced(name, init.age == 1)),
    }
}

fn serve_and_end(booted: Result<AssembledWorker, BootError>, hooks: &Hooks, row: &Row) -> i32 {
    let outcome = booted.and_then(serve);
    loggers::end_queue();
    let status = match &outcome {
        Ok(()) => {
            signals::ignore();
            EXIT_OK
        }
        // A signal that interrupts the import of the app is no failure of the app.
        Err(_) if signals::is_told_to_stop() => EXIT_OK,
        Err(failure) => failure.report(),
    };
    log::info!("Worker exiting (pid: {})", std::process::id());
    count_lines(row);
    hooks.worker_exit(row.served());
    if outcome.is_ok() {
        interpreter::wind_down();
    }
    status
}

/// A worker that is ready to serve.
struct AssembledWorker {
    lead: LeaderState,
    pool: Arc<ThreadPool>,
    calls: Arc<Calls>,
    /// The kernel's reports of changed files, under `--reload`.
    edits: Option<Arc<ChangeNotifier>>,
    /// Under the class gevent.
    hub: Option<HubSetup>,
}

/// What gevent's hub needs besides the pool.
struct HubSetup {
    /// Receives the calls of other threads.
    calls: WakeupReceiver,
    /// How long each request may run.
    request_timeout: Option<Duration>,
}

/// What each thread needs to call the application.
struct Calls {
    app: App,
    listener_infos: Vec<ListenerInfo>,
    options: CallOptions,
    hooks: Hooks,
    /// What the worker's class asks of its threads.
    threads: Option<ThreadTerms>,
}

impl Calls {
    /// The caller for this thread, which has that number.
    fn caller(&self, py: Python<'_>, number: usize) -> Result<Caller, PyErr> {
        if let Some(threads) = &self.threads {
            threads.start(py, number)?;
        }
        Caller::new(py, &self.app, self.listener_infos.clone(), self.options.clone(), &self.hooks)
    }
}

/// A worker that could not begin to serve.
enum BootError {
    /// The application cannot be loaded or used.
    App(LoadError),
    /// Anything else, as a sentence or traceback.
    Other(String),
}

/// The reason as a sentence or traceback.
impl Display for BootError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BootError::App(LoadError::App(reason)) | BootError::Other(reason) => f.write_str(reason),
            BootError::App(LoadError::Import { text, .. }) => f.write_str(text),
        }
    }
}

impl BootError {
    fn because(context: &str, reason: &dyn Display) -> Self {
        BootError::Other(format!("{context}: {reason}"))
    }

    fn raised(raised: Raised) -> Self {
        BootError::Other(raised.to_string())
    }

    /// Writes the reason into the note, from which the master tells those who wait for a reload. An
    /// exception reads as in the log.
    fn note_in(&self, note: Option<&FailureNote>) {
        let Some(note) = note else { return };
        match self {
            BootError::App(LoadError::App(text)) => note.write(text),
            BootError::App(LoadError::Import { text, .. }) | BootError::Other(text) => {
                note.write(&format!("{IN_WORKER}\n{text}"));
            }
        }
    }

    /// Logs the reason and returns the exit status.
    fn report(&self) -> i32 {
        match self {
            BootError::App(LoadError::App(reason)) => {
                log::error!("{reason}");
                EXIT_APP_ERROR
            }
            BootError::App(LoadError::Import { error, .. }) if loggers::failure(error, IN_WORKER) => EXIT_BOOT_ERROR,
            BootError::App(LoadError::Import { error, text: stack, .. }) => {
                let failure = Python::attach(|py| Failure { stack: stack.clone(), ..failure(py, error) });
                let text = format!("{IN_WORKER}\n{stack}");
                within(Scope { failure: Some(failure), ..Scope::default() }, || log::error!("{text}"));
                EXIT_BOOT_ERROR
            }
            BootError::Other(reason) => {
                log::error!("{IN_WORKER}\n{reason}");
                EXIT_BOOT_ERROR
            }
        }
    }
}

/// Everything up to the first request, in the order it must have: privileges go before any code of
/// the application runs, and the parent is watched after that, because the kernel forgets the watch
/// when the user changes (prctl(2)).
fn boot(mut init: WorkerInit, python: &PythonSetup) -> Result<AssembledWorker, BootError> {
    python.enter(&init.service.config).map_err(BootError::Other)?;
    raise_descriptor_limit(&init.service.config);
    let stacks = crate::logging::last_resort()
        .map_err(|error| BootError::because("cannot open the error log once more", &error))?;
    let nudge = start_python(&init, python)?;
    signals::dump_stacks_to(stacks).map_err(python_failure)?;
    make_known(&init.row, init.dirty_socket.as_deref());
    let (ppid, age, max_requests, number) = (init.master.pid, init.age, init.max_requests, init.row.number());
    let state = WorkerState { ppid, age, max_requests, number };
    init.service.hooks.post_fork(state, &init.row).map_err(BootError::raised)?;
    // Signal handlers that the hook has installed are replaced, as under gunicorn; those of the
    // application stay.
    signals::dump_stacks_to(stacks).map_err(python_failure)?;
    if init.service.config.worker_class == WorkerClass::Gevent {
        // As early as under gunicorn: modules imported earlier keep what is not patched.
        python.extend_path(&init.service.config).map_err(python_failure)?;
        greenlets::patch().map_err(python_failure)?;
    }
    become_user(&init.service.config)?;
    match process::end_with_parent(init.master.pid) {
        Ok(true) => {}
        Ok(false) => return Err(BootError::Other("the master is gone".to_owned())),
        // Only where prctl(2) is forbidden; the check once a second remains.
        Err(error) => log::debug!("Cannot ask to be told of the master's end: {error}"),
    }
    python.extend_path(&init.service.config).map_err(python_failure)?;
    let (app, broken) = load_app(&mut init)?;
    python.follow_app();
    let app = init.service.hooks.post_worker_init(app).map_err(BootError::raised)?;
    app::refuse_asgi(&app, &init.service.config).map_err(BootError::App)?;
    // The rest is the server's own work and short: a TERM waits in the signal queue meanwhile.
    signals::started_in_worker();
    assemble(init, nudge, app, None, broken)
}

/// Counts on the row what has been logged, and what has not, since the last call.
fn count_lines(row: &Row) {
    row.count_log_lines(logging::take_line_counts());
    row.count_lines_dropped(logging::take_dropped_lines());
}

/// Tells the application its worker number and where its dirty arbiter is. `monoceros ctl stacks`
/// can ask this worker from then on.
fn make_known(row: &Row, dirty_socket: Option<&Path>) {
    logging::note_worker(row.number());
    // The master counts what it logged before the fork.
    let _ = (logging::take_line_counts(), logging::take_dropped_lines());
    environment::set(NUMBER_VARIABLE, Some(row.number().to_string().as_ref()));
    if let Some(Err(error)) = dirty_socket.map(dirty::announce) {
        log::error!("{}", Python::attach(|py| crate::python::traceback(py, &error)));
    }
    if let Err(reason) = signals::show_stacks_when_asked() {
        log::debug!("`monoceros ctl stacks` will show no stacks of this worker: {reason}");
    }
}

/// Under the usual soft limit of 1024 a thousand connections would leave no descriptor to the
/// application. The hard limit itself may be a thousand million and is not asked for: some programs
/// that an application may start close every descriptor they could have inherited, one by one.
fn raise_descriptor_limit(config: &Config) {
    const USUAL: u64 = 1 << 16;
    // A connection, the file of its body, and the file of its response.
    let wanted = USUAL.max(3 * config.worker_connections as u64);
    if let Err(error) = process::raise_descriptor_limit(wanted) {
        log::debug!("Cannot raise the limit of open files: {error}");
    }
}

fn become_user(config: &Config) -> Result<(), BootError> {
    let (user, group) = service::identity(config).map_err(|error| BootError::Other(error.to_string()))?;
    user::drop_privileges(user, group, config.initgroups)
        .map_err(|error| BootError::because("cannot change user or group", &error))
}

/// Starts Python. The modules that the server itself needs are imported before the user changes,
/// since the standard library may lie where only root reads, and before the project's directories
/// are searched, which may have modules of the same names.
fn start_python(init: &WorkerInit, python: &PythonSetup) -> Result<Nudge, BootError> {
    python.start_interpreter().map_err(|error| BootError::Other(error.to_string()))?;
    let calls_a_factory = init.service.config.app.as_ref().is_some_and(|app| app.text().contains('('));
    if init.service.config.user.is_some() || init.service.config.group.is_some() || calls_a_factory {
        interpreter::import_own_needs().map_err(python_failure)?;
    }
    let nudge = signals::begin_in_worker(&init.service.hooks).map_err(python_failure)?;
    if signals::is_told_to_stop() {
        return Err(BootError::Other("told to stop before the app was loaded".to_owned()));
    }
    spew::start_if(init.service.config.spew).map_err(python_failure)?;
    Ok(nudge)
}

/// The application, and the files to watch besides its modules.
fn load_app(init: &mut WorkerInit) -> Result<(App, Vec<PathBuf>), BootError> {
    if let Some(app) = init.preloaded.take() {
        return Ok((app, Vec::new()));
    }
    match app::load(&init.service.config) {
        // While code is being edited a broken state is normal: show it, and wait for the next edit.
        Err(LoadError::Import { text, files, .. }) if init.service.config.reload && !signals::is_told_to_stop() => {
            log::error!("Error while loading the application; serving its traceback\n{text}");
            Ok((App::showing(&text).map_err(python_failure)?, files))
        }
        result => Ok((result.map_err(BootError::App)?, Vec::new())),
    }
}

fn assemble(
    init: WorkerInit,
    nudge: Nudge,
    app: App,
    threads: Option<ThreadTerms>,
    broken: Vec<PathBuf>,
) -> Result<AssembledWorker, BootError> {
    let config = init.service.config.clone();
    let limits = Arc::new(ConnectionLimits::new(&config));
    limits.beat_at(init.row.clone());
    let hub_calls = match config.worker_class {
        WorkerClass::Gevent => Some(wakeup::pair().map_err(|error| BootError::because("cannot call the hub", &error))?),
        WorkerClass::Sync | WorkerClass::Gthread | WorkerClass::Foreign(_) => None,
    };
    let (hub_call, hub_calls) = hub_calls.map(|(call, calls)| (Arc::new(call), calls)).unzip();
    hub_call.iter().for_each(loggers::write_in_hub);
    loggers::begin_queue().map_err(no_thread)?;
    if config.request_id_header.is_some() || config.log_format != LogFormat::Text {
        Python::attach(request_context::begin).map_err(python_failure)?;
    }
    let access_log = open_access_log(&config)?;
    let format = access_log.as_ref().map(AccessLog::format);
    let logged_headers = format.map_or_else(Vec::new, |format| format.response_headers().to_vec());
    let environ_keys = format.map_or_else(Vec::new, |format| format.environ_keys().to_vec());
    let calls = Calls {
        app,
        listener_infos: init.service.listeners.iter().map(|listener| site(listener, &config)).collect(),
        options: CallOptions {
            sendfile: config.sendfile,
            environ_keys,
            logs_headers: !logged_headers.is_empty(),
            server: facade::server_line(),
            files: AppFiles::new(&config),
            queue_time: config.queue_time,
        },
        hooks: init.service.hooks.clone(),
        threads,
    };
    let siblings = Arc::new(Siblings::new(
        init.row.clone(),
        rows_watched(init.workers),
        init.channel.clone(),
        &init.service.listeners,
    ));
    let listeners = listeners::of_worker(&init.service.listeners, init.slot, config.reuse_port);
    let listener_number = listeners::number(&listeners);
    let cannot_poll = |error| BootError::because("cannot poll", &error);
    let heard = (init.signals.as_raw_fd(), nudge.as_raw_fd());
    let mut event_loop = EventLoop::new(listeners, heard, limits.clone(), siblings.clone(), config.worker_connections)
        .map_err(cannot_poll)?;
    if let Some(paths) = &limits.own_paths.files {
        let terms = FileTerms {
            server: facade::server_line(),
            is_logged: access_log.is_some(),
            logs_headers: !logged_headers.is_empty(),
        };
        event_loop.send_files(StaticFiles::new(paths.clone()), terms);
    }
    if let Some(socket) = &init.service.metrics {
        let pages = metrics_pages(&init.service, init.row.scoreboard());
        event_loop.serve_metrics(socket, pages).map_err(cannot_poll)?;
    }
    if let Some(tls) = &init.service.tls {
        event_loop.accept_under_tls(tls);
    }
    let waker = event_loop.waker().map_err(cannot_poll)?;
    let context = WorkerContext {
        siblings,
        listener_number,
        row: init.row,
        wakeup: init.master.wakeup,
        limits,
        threads: config.app_threads(),
        max_requests: init.max_requests,
        graceful_timeout: Duration::from_secs(config.graceful_timeout),
        slow_request: (config.slow_request > 0).then(|| Duration::from_secs(config.slow_request)),
        slow_request_stack: config.slow_request_stack,
    };
    let watch = config.reload.then(|| FileWatcher::new(&config.reload_extra_files, broken, config.reload_engine));
    let watch = watch.transpose().map_err(|error| BootError::because("reload_engine is inotify", &error))?;
    let edits = watch.as_ref().and_then(FileWatcher::edits);
    let lead = LeaderState {
        event_loop,
        signals: init.signals,
        nudge,
        parent: init.master.pid,
        hooks: calls.hooks.clone(),
        watch,
        tls: init.service.tls.clone(),
        asked_level: init.master.asked_level,
        stage: WorkerStage::Serving,
    };
    let pool = ThreadPool::new(waker, context, access_log, logged_headers);
    let pool = Arc::new(match hub_call {
        Some(call) => pool.of_greenlets(call),
        None => pool,
    });
    let reporter = pool.clone();
    signals::report_aborts(move || reporter.report_abort());
    let request_timeout = (config.request_timeout > 0).then(|| Duration::from_secs(config.request_timeout));
    let hub = hub_calls.map(|calls| HubSetup { calls, request_timeout });
    Ok(AssembledWorker { lead, pool, calls: Arc::new(calls), edits, hub })
}

fn metrics_pages(service: &service::Service, board: Scoreboard) -> MetricsPages {
    let python = Python::version_str().split(' ').next().unwrap_or_default().to_owned();
    let worker_class = service.config.effective_worker_class().to_string();
    MetricsPages { board, listeners: service.listeners.clone(), python, worker_class, certificates: Vec::new() }
}

/// How many rows of the scoreboard are looked at for siblings. The master gives out the lowest free
/// rows, so these hold two generations. Workers that TTIN or a bigger container adds later may go
/// unseen.
fn rows_watched(workers: usize) -> usize {
    2 * workers + 2
}

fn open_access_log(config: &Config) -> Result<Option<AccessLog>, BootError> {
    let format = match loggers::schema(config.log_format) {
        None => AccessFormat::compile(&config.access_log_format),
        Some(schema) => AccessFormat::json(schema),
    };
    if let Some(queue) = loggers::queue() {
        // Python's logging decides whether it wants the lines.
        return Ok(Some(AccessLog::handed_to(Box::new(|line| queue.access_line(line)), format)));
    }
    let syslog = crate::logging::syslog().filter(|syslog| syslog.takes_access_lines());
    let Some(target) = &config.accesslog else { return Ok(syslog.map(|syslog| AccessLog::in_syslog(syslog, format))) };
    // The file was made, and given to the workers' user, when the master checked the settings.
    let opened = AccessLog::open(&config.log_target(target), format, None)
        .map_err(|error| BootError::Other(error.to_string()))?;
    Ok(Some(opened.copied_to(syslog)))
}

fn site(listener: &Listener, config: &Config) -> ListenerInfo {
    let (server, socket_path) = match listener.local_address() {
        LocalAddress::Ip(address) => (Some((address.ip().to_string(), address.port().to_string())), String::new()),
        LocalAddress::Unix(path) => (None, path.display().to_string()),
        LocalAddress::Abstract(name) => (None, format!("@{}", name.escape_ascii())),
    };
    ListenerInfo {
        server,
        socket_path,
        multithread: config.effective_worker_class() != WorkerClass::Sync,
        multiprocess: config.workers.may_be_several(),
        script_name: std::env::var("SCRIPT_NAME").unwrap_or_default(),
    }
}

/// Starts the other threads, and serves in this one: the interpreter's main thread.
fn serve(worker: AssembledWorker) -> Result<(), BootError> {
    let AssembledWorker { lead, pool, calls, edits, hub } = worker;
    let standby = pool.clone();
    thread::spawn("standby", move || live(&standby, || standby.run_standby())).map_err(no_thread)?;
    if let Some(edits) = edits {
        let pool = pool.clone();
        let listen = move || edits.listen(|| pool.wake_leader());
        thread::spawn("edits", listen).map_err(no_thread)?;
    }
    if let Some(hub) = hub {
        return serve_greenlets(lead, pool, &calls, hub);
    }
    Python::attach(|py| {
        let mut caller = calls.caller(py, 0).map_err(python_failure)?;
        for number in 1..pool.threads() {
            let (pool, calls) = (pool.clone(), calls.clone());
            let work = move |py: Python<'_>| match calls.caller(py, number) {
                Ok(mut caller) => live(&pool, || pool.work(py, &mut caller, &Role::Other)),
                Err(error) => log::error!("{}", crate::python::traceback(py, &error)),
            };
            threads::spawn(py, &format!("monoceros-{number}"), work).map_err(python_failure)?;
        }
        if pool.threads() > 1 {
            pool.start_heartbeat().map_err(no_thread)?;
        }
        let greenlets = GreenletWait::of_patched(py).map_err(python_failure)?.filter(|_| pool.threads() == 1);
        pool.begin(lead);
        live(&pool, || pool.work(py, &mut caller, &Role::Main { greenlets }));
        Ok(())
    })
}

/// Serves in gevent's hub, which runs in this thread.
fn serve_greenlets(lead: LeaderState, pool: Arc<ThreadPool>, calls: &Calls, hub: HubSetup) -> Result<(), BootError> {
    Python::attach(|py| {
        let Calls { app, listener_infos, options, hooks, .. } = calls;
        let shared =
            SharedCalls::new(py, app, listener_infos.clone(), options.clone(), hooks).map_err(python_failure)?;
        pool.begin(lead);
        let served = greenlets::serve(py, pool.clone(), Arc::new(shared), hub.calls, hub.request_timeout);
        if let Err(error) = served {
            pool.fall(&crate::python::traceback(py, &error));
        }
        Ok(())
    })
}

fn no_thread(error: std::io::Error) -> BootError {
    BootError::because("cannot start a thread", &error)
}

/// Runs a thread's `life` in the pool. A panic in it ends the worker.
fn live(pool: &ThreadPool, life: impl FnOnce()) {
    if let Err(panic) = caught(life) {
        pool.fall(&panic);
    }
}

fn python_failure(error: PyErr) -> BootError {
    Python::attach(|py| BootError::Other(crate::python::traceback(py, &error)))
}
