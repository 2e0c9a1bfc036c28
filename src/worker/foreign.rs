//! A worker whose class is written in Python and serves by itself.
//!
//! Its process is forked and supervised as any other, and makes the same steps until it serves.
//! Then the class runs its own loop: there is no event loop of ours, and no connection. A class
//! that is derived from one of ours has the server serve for it, by the same steps as any worker.

use std::io::{self, ErrorKind};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::file_watcher::FileWatcher;
use super::metrics_server::{MetricsPages, MetricsServer};
use super::{
    BootError, EXIT_OK, assemble, become_user, no_thread, python_failure, raise_descriptor_limit, serve, start_python,
};
use crate::base::unpoisoned::Unpoisoned;
use crate::bootstrap::{PythonSetup, foreign_class_warning};
use crate::python::app::{self, App};
use crate::python::foreign_worker::{self, ForeignEnd, ForeignInit, ForeignWorker, ThreadTerms};
use crate::python::hooks::{Hooks, WorkerState};
use crate::python::signals::{self, Nudge};
use crate::python::{Python, loggers};
use crate::scoreboard::{Row, WorkerPhase};
use crate::service::{MetricsSocket, Service};
use crate::settings::{Config, WorkerClass};
use crate::sys::failure_note::FailureNote;
use crate::sys::process;
use crate::sys::signal::{Signal, SignalQueue};
use crate::sys::stop_accepting;
use crate::sys::thread;
use crate::tls::Tls;
use crate::worker_init::WorkerInit;

/// Under `reload` the files are looked at this often, as by other workers.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// The server's own class whose requests run in greenlets.
const GEVENT: &str = "gevent";

/// While the worker boots the files are looked at more often: a file counts as changed only if it
/// was seen before, and an edit may follow the load at once.
const LOOK_AT_BOOT: Duration = Duration::from_millis(100);

/// Clients of the metrics that have had their time are looked for this often.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);

/// Lives the life of a worker of the class `name`, and returns its exit status.
pub(super) fn run(init: WorkerInit, python: &PythonSetup, name: &str) -> i32 {
    let (hooks, row, note) = (init.service.hooks.clone(), init.row.clone(), init.master.failure_note.clone());
    let failed = Arc::new(AtomicI32::new(EXIT_OK));
    let (worker, _signals) = match boot(init, python, name, &failed) {
        Ok(booted) => booted,
        Err(failure) => {
            failure.note_in(note.as_deref());
            // A signal that interrupts an import is no failure of the class.
            let status = if signals::is_told_to_stop() { EXIT_OK } else { failure.report() };
            log::info!("Worker exiting (pid: {})", std::process::id());
            hooks.worker_exit(row.served());
            return status;
        }
    };
    // As in `super::run`: a thread with greenlets could not attach again.
    let end = if worker.own_class() == Some(GEVENT) {
        Python::attach(|_| live_and_end(&worker, note.as_deref()))
    } else {
        live_and_end(&worker, note.as_deref())
    };
    super::count_lines(&row);
    if end.status == EXIT_OK { failed.load(Relaxed) } else { end.status }
}

fn live_and_end(worker: &ForeignWorker, note: Option<&FailureNote>) -> ForeignEnd {
    let (end, reason) = worker.serve();
    if let (Some(note), Some(reason)) = (note, reason) {
        note.write(&reason);
    }
    log::info!("Worker exiting (pid: {})", std::process::id());
    worker.exit();
    foreign_worker::wind_down(end);
    end
}

/// The steps of [`super::boot`], but for those that belong to the event loop; the class loads the
/// application itself. The class's object is made before `post_fork`, which gets it, and so before
/// the user changes. `failed` gets the exit status if the server cannot serve for the class.
fn boot(
    init: WorkerInit,
    python: &PythonSetup,
    name: &str,
    failed: &Arc<AtomicI32>,
) -> Result<(ForeignWorker, Option<UnreadSignals>), BootError> {
    let config = init.service.config.clone();
    python.enter(&config).map_err(BootError::Other)?;
    raise_descriptor_limit(&config);
    let stacks = crate::logging::last_resort()
        .map_err(|error| BootError::because("cannot open the error log once more", &error))?;
    let nudge = start_python(&init, python)?;
    signals::dump_stacks_to(stacks).map_err(python_failure)?;
    super::make_known(&init.row, init.dirty_socket.as_deref());
    python.extend_path(&config).map_err(python_failure)?;
    let state = WorkerState {
        ppid: init.master.pid,
        age: init.age,
        max_requests: init.max_requests,
        number: init.row.number(),
    };
    let listeners = give_away_listeners(&init.service);
    let (hooks, row) = (init.service.hooks.clone(), init.row.clone());
    let wakeup =
        init.master.wakeup.try_clone().map_err(|error| BootError::because("cannot wake the master", &error))?;
    let foreign = ForeignInit {
        state,
        listeners: &listeners,
        row: init.row.clone(),
        asked_level: init.master.asked_level.clone(),
        wakeup,
        stacks,
    };
    let worker = ForeignWorker::make(&hooks, name, foreign).map_err(|reason| BootError::Other(reason.to_string()))?;
    worker.post_fork().map_err(BootError::Other)?;
    become_user(&config)?;
    python.follow_app();
    match process::end_with_parent(init.master.pid) {
        Ok(true) => {}
        Ok(false) => return Err(BootError::Other("the master is gone".to_owned())),
        Err(error) => log::debug!("Cannot ask to be told of the master's end: {error}"),
    }
    if worker.own_class().is_some() {
        prepare_to_serve_for(&worker, init, stacks, failed.clone())?;
        return Ok((worker, None));
    }
    // Only now is it known that the class serves by itself. The first worker's warning is enough.
    if init.age == 1
        && let Some(warning) = foreign_class_warning(&config, worker.is_of_gunicorn())
    {
        log::warn!("{warning}");
    }
    stop_accepting_before_the_end(&listeners, &row);
    answer_metrics(&init.service, row.clone())?;
    if config.reload {
        watch_files(&init.service, row)?;
    }
    Ok((worker, Some(UnreadSignals { _queue: init.signals, _nudge: nudge })))
}

/// Has the listeners fall silent a moment before TERM. Where that is impossible, TERM comes while
/// the class still accepts, as under gunicorn.
fn stop_accepting_before_the_end(listeners: &[(String, RawFd)], row: &Row) {
    let descriptors: Vec<RawFd> = listeners.iter().map(|&(_, descriptor)| descriptor).collect();
    match stop_accepting::on(Signal::Rtmin, &descriptors) {
        Ok(()) => row.set_accepts_by_itself(),
        Err(error) => log::debug!("The worker cannot stop accepting before it ends: {error}"),
    }
}

/// Starts a thread that answers at `metrics_bind`, where an event loop of ours does it otherwise.
/// It begins when the worker serves: during an upgrade the old program's workers answer until then.
fn answer_metrics(service: &Service, row: Row) -> Result<(), BootError> {
    let Some(socket) = service.metrics.clone() else { return Ok(()) };
    let pages = super::metrics_pages(service, row.scoreboard());
    let expiries = service.tls.as_ref().map(Tls::expiries).unwrap_or_default();
    let answer = move || {
        while row.state() == WorkerPhase::Booting {
            std::thread::sleep(LOOK_AT_BOOT);
        }
        if let Err(error) = serve_metrics(&socket, MetricsPages { certificates: expiries, ..pages }) {
            log::error!("Metrics are not answered by this worker any more: {error}");
        }
    };
    thread::spawn("metrics", answer).map_err(no_thread)
}

/// Answers for ever.
fn serve_metrics(socket: &MetricsSocket, pages: MetricsPages) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut server = MetricsServer::new(socket, pages, 0, poll.registry())?;
    let mut events = Events::with_capacity(MetricsServer::tokens(0).len());
    loop {
        let most = if server.is_due() { Duration::ZERO } else { BETWEEN_SWEEPS };
        match poll.poll(&mut events, Some(most)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => server.turn(poll.registry(), Instant::now()),
        }
    }
}

/// For a class derived from one of the server's own: from here on signals call its methods, and its
/// `run` has the server serve.
fn prepare_to_serve_for(
    worker: &ForeignWorker,
    mut init: WorkerInit,
    stacks: RawFd,
    failed: Arc<AtomicI32>,
) -> Result<(), BootError> {
    let given = Arc::new(Mutex::new(None));
    let taken = given.clone();
    let serve = move |app, threads| serve_for(&taken, app, threads, &failed);
    let hooks = worker.serve_by(&init.service.hooks, serve).map_err(python_failure)?;
    let nudge = signals::begin_in_worker(&hooks).map_err(python_failure)?;
    signals::dump_stacks_to(stacks).map_err(python_failure)?;
    let config = Arc::new(own_config(&init.service.config, worker.own_class()));
    init.service = Arc::new(Service { config, hooks, ..(*init.service).clone() });
    *given.lock().unpoisoned() = Some((init, nudge));
    Ok(())
}

/// The settings of a worker of the server's own `class`. As under gunicorn, a class derived from
/// sync has one thread, whatever `threads` says.
fn own_config(config: &Config, class: Option<&str>) -> Config {
    let (worker_class, threads) = match class {
        Some("gthread") => (WorkerClass::Gthread, config.threads),
        Some(GEVENT) => (WorkerClass::Gevent, config.threads),
        _ => (WorkerClass::Sync, 1),
    };
    Config { worker_class, threads, ..config.clone() }
}

/// Serves for a class derived from one of the server's own, whose `run` calls this.
fn serve_for(given: &Mutex<Option<(WorkerInit, Nudge)>>, app: App, threads: Option<ThreadTerms>, failed: &AtomicI32) {
    let taken = given.lock().unpoisoned().take();
    let Some((mut init, nudge)) = taken else { return };
    if let Some(threads) = &threads {
        let config = Config { threads: threads.count, ..(*init.service.config).clone() };
        init.service = Arc::new(Service { config: Arc::new(config), ..(*init.service).clone() });
    }
    let note = init.master.failure_note.clone();
    let refused = app::refuse_asgi(&app, &init.service.config).map_err(BootError::App);
    signals::started_in_worker();
    let assembled = refused.and_then(|()| assemble(init, nudge, app, threads, Vec::new()));
    let outcome = assembled.inspect_err(|failure| failure.note_in(note.as_deref())).and_then(serve);
    loggers::end_queue();
    match outcome {
        Ok(()) => signals::ignore(),
        Err(failure) => failed.store(failure.report(), Relaxed),
    }
}

/// Signals for which the class has no handlers, or has not installed them yet: they are collected,
/// and have no effect.
struct UnreadSignals {
    _queue: SignalQueue,
    _nudge: Nudge,
}

/// The listeners as the class gets them. The class closes them, so the server must not.
fn give_away_listeners(service: &Service) -> Vec<(String, RawFd)> {
    let scheme = if service.config.is_tls() { "https" } else { "http" };
    let listeners = service.listeners.iter();
    listeners
        .map(|listener| {
            let given_away = ManuallyDrop::new(listener.clone());
            (given_away.name(scheme), given_away.as_raw_fd())
        })
        .collect()
}

/// Starts a thread that ends this worker by its stop signal when a source file has changed.
fn watch_files(service: &Service, row: Row) -> Result<(), BootError> {
    let config = &service.config;
    let mut watch = FileWatcher::new(&config.reload_extra_files, Vec::new(), config.reload_engine)
        .map_err(|error| BootError::because("reload_engine is inotify", &error))?;
    let (heard, news) = mpsc::channel();
    // The thread holds it, so that the channel stays open where the kernel reports nothing.
    let held = heard.clone();
    if let Some(edits) = watch.edits() {
        let listen = move || {
            // Sending fails once the other thread has ended, and then nobody needs reports.
            edits.listen(|| heard.send(()).unwrap_or_default());
        };
        thread::spawn("edits", listen).map_err(no_thread)?;
    }
    let hooks = service.hooks.clone();
    let look = move || loop {
        let _held = &held;
        watch.watch_too(foreign_worker::take_broken_files());
        if let Some(path) = watch.changed() {
            return reload(&hooks, &row, &path);
        }
        let pause = if row.state() == WorkerPhase::Booting { LOOK_AT_BOOT } else { BETWEEN_LOOKS };
        if let Err(RecvTimeoutError::Disconnected) = news.recv_timeout(pause) {
            return;
        }
    };
    thread::spawn_for_python("reload", look).map_err(no_thread)
}

fn reload(hooks: &Hooks, row: &Row, path: &Path) {
    log::info!("Worker reloading: {} modified", path.display());
    hooks.code_changed();
    // It fails only for a process that is gone.
    let _ = process::kill(process::getpid(), row.stop_signal());
}
