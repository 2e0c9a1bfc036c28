//! From settings to a master that is ready to fork: the steps of gunicorn's start, in its order, with its log lines.

use std::sync::Arc;
use std::time::Instant;

use log::{debug, error, info, warn};

use crate::bootstrap::{Startup, configure_logging};
use crate::python::Exit;
use crate::python::app::App;
use crate::python::hooks::{Hooks, Raised, ServerHook, ServerState};
use crate::python::signals::{begin_in_master, started_in_master, take_back};
use crate::scoreboard::{MAX_WORKERS, Scoreboard};
use crate::settings::Config;
use crate::sys::fd_channel::FdChannel;
use crate::sys::pidfile::PidFile;
use crate::sys::signal::{self, Signal, SignalQueue};
use crate::sys::socket::{FileOwner, Listener};
use crate::sys::{daemon, process, wakeup};
use crate::tls::Tls;

use super::exit_reason::OomWatch;
use super::generation::Generation;
use super::hooks::shown_at_start;
use super::listeners::{self, NotOpened};
use super::service_manager::{self, ServiceManager};
use super::upgrade::{Inheritance, Inherited, Upgrade};
use super::waiter::MasterWaiter;
use super::worker_count::worker_count;
use super::{Master, Phase, signals};

/// The exit status of a master that could not start.
const NOT_STARTED: i32 = 1;

/// That of one that was told to stop before it had started.
const STOPPED: i32 = 0;

/// The number of the generation that the start calls; workers adopted from before a re-exec in place are older.
const FIRST_GENERATION: u64 = 1;

/// Prepares everything but the workers. The error is the exit status; why is on standard error or in the log.
pub(super) fn start(
    startup: Startup,
    config: Arc<Config>,
    hooks: Hooks,
    tls: Option<Tls>,
    inheritance: Inheritance,
) -> Result<Master, i32> {
    let Inheritance { upgrade, sockets, adopted } = inheritance;
    leave_foreground(&config, &hooks, &upgrade)?;
    // Before the pid file tells anybody whom to signal, and before anything that a Ctrl-C may interrupt. The queue first:
    // signals that waited for a re-exec in place to be over come at once.
    signal::reset_inherited().map_err(|error| refuse(&error))?;
    let signals = SignalQueue::new(&signals::HANDLED).map_err(|error| refuse(&error))?;
    signal::unblock_all().map_err(|error| refuse(&error))?;
    begin_in_master().map_err(|error| refuse(&error))?;
    let service_manager = ServiceManager::from_environment();
    let preloaded = startup.preload(&config);
    take_back();
    told_to_stop(&signals)?;
    let preloaded = preloaded.map_err(|reason| refuse(&reason))?;

    let (name, count) = (upgrade.master_name(), worker_count(&config));
    let shown = || shown_at_start(name, count);
    may_go_on(&signals, &upgrade, hooks.nworkers_changed(shown, count, None))?;
    info!("Starting monoceros {}", env!("CARGO_PKG_VERSION"));
    let pid_file = create_pid_file(&config, &upgrade)?;
    let remove_pid_file = || pid_file.iter().for_each(PidFile::remove);
    let pid_path = pid_file.as_ref().map(|file| file.path().to_owned());
    let shown = || ServerState { pid_file: pid_path.clone(), ..shown_at_start(name, count) };
    may_go_on(&signals, &upgrade, hooks.call(ServerHook::OnStarting, shown)).inspect_err(|_| remove_pid_file())?;
    let open = open_listeners(&config, count, &sockets, &upgrade, &signals).inspect_err(|_| remove_pid_file())?;
    let serving = Generation::new(FIRST_GENERATION, config, hooks.clone(), open, tls, count);
    announce(&serving);
    let listening = listeners::shown(&serving.listeners, &serving.config);
    let shown = || ServerState { listeners: listening.clone(), ..shown() };
    may_go_on(&signals, &upgrade, hooks.call(ServerHook::WhenReady, shown)).inspect_err(|_| {
        remove_pid_file();
        if !upgrade.is_under_way() {
            listeners::unlink_unless(&serving.listeners, &[]);
        }
    })?;

    started_in_master();
    let assembled = Master::assemble(startup, pid_file, signals, preloaded, serving, upgrade, service_manager);
    let mut master = assembled.map_err(|error| refuse(&error))?;
    master.adopt_workers(adopted);
    Ok(master)
}

impl Master {
    fn assemble(
        startup: Startup,
        pid_file: Option<PidFile>,
        signals: SignalQueue,
        preloaded: Option<App>,
        serving: Generation,
        upgrade: Upgrade,
        service_manager: ServiceManager,
    ) -> std::io::Result<Master> {
        let (wakeup, wakeup_receiver) = wakeup::pair()?;
        Ok(Master {
            waiter: MasterWaiter::new(&signals, &wakeup_receiver)?,
            scoreboard: Scoreboard::new(MAX_WORKERS)?,
            channel: Arc::new(FdChannel::new()?),
            pid: process::getpid(),
            workers: Vec::new(),
            age: 0,
            phase: Phase::Starting,
            candidate: None,
            generations_called: FIRST_GENERATION,
            reload_wanted: false,
            backlog_reported: None,
            doomed: None,
            startup,
            pid_file,
            signals,
            wakeup,
            wakeup_receiver,
            preloaded,
            serving,
            upgrade,
            service_manager,
            oom_watch: OomWatch::new(),
            woken_at: Instant::now(),
        })
    }
}

/// A master that an upgrade has started is in the background already if it is to be.
fn leave_foreground(config: &Config, hooks: &Hooks, upgrade: &Upgrade) -> Result<(), i32> {
    if !config.daemon || upgrade.has_parent() || upgrade.is_in_place() {
        return Ok(());
    }
    if service_manager::is_there() {
        warn!("daemon is set under a service manager that waits for a message: it will lose sight of the server");
    }
    let output = match config.enable_stdio_inheritance {
        true => daemon::Output::Inherited,
        false => daemon::Output::Null,
    };
    daemon::daemonize(super::fork, output).map_err(|error| refuse(&error))?;
    configure_logging(config, hooks).map_err(|reason| refuse(&reason))
}

fn create_pid_file(config: &Config, upgrade: &Upgrade) -> Result<Option<PidFile>, i32> {
    let Some(path) = &config.pidfile else { return Ok(None) };
    let path = upgrade.pid_file_name(path);
    PidFile::create(&path, process::getpid()).map(Some).map_err(|error| refuse(&error))
}

fn open_listeners(
    config: &Config,
    workers: usize,
    inherited: &Inherited,
    upgrade: &Upgrade,
    signals: &SignalQueue,
) -> Result<Vec<Arc<Listener>>, i32> {
    let opened = match inherited {
        // The service manager decides where the server listens; `bind` has no say.
        Inherited::FromSystemd(fds) => {
            return listeners::inherit(fds, config, FileOwner::ServiceManager).map_err(|reason| refuse(&reason));
        }
        Inherited::FromMaster(fds) => {
            let ours = listeners::inherit(fds, config, FileOwner::Us).map_err(|reason| refuse(&reason))?;
            match listeners::open_at_start(config, workers, &ours, signals) {
                // Old workers serve on them, and nobody is left to go back to.
                Err(NotOpened::Failed) if upgrade.is_in_place() => {
                    error!("The server goes on with the sockets it had.");
                    Ok(ours)
                }
                opened => opened,
            }
        }
        Inherited::Nothing => listeners::open_at_start(config, workers, &[], signals),
    };
    opened.map_err(|error| match error {
        NotOpened::Failed => NOT_STARTED,
        NotOpened::Stopped => STOPPED,
    })
}

fn announce(serving: &Generation) {
    debug!("Arbiter booted");
    info!("Listening at: {} ({})", listeners::names(&serving.listeners, &serving.config), process::getpid());
    info!("Using worker: {}", serving.config.effective_worker_class());
}

/// A hook that raises keeps the server from starting, except in place of one that serves: there nobody is left to go back to. One that was
/// told to stop meanwhile ends in good order.
fn may_go_on(signals: &SignalQueue, upgrade: &Upgrade, hook: Result<(), Raised>) -> Result<(), i32> {
    told_to_stop(signals)?;
    match hook {
        Err(raised) if upgrade.is_in_place() => {
            error!("The server goes on without the hook that raised\n{raised}");
            Ok(())
        }
        hook => hook.map_err(|raised| raised.exit().map_or_else(|| refuse(&raised), Exit::perform)),
    }
}

/// Fails with the exit status of a stop if TERM, INT or QUIT has come. What else has come waits for the master's loop.
pub(super) fn told_to_stop(signals: &SignalQueue) -> Result<(), i32> {
    let pending: Vec<Signal> = std::iter::from_fn(|| signals.next()).collect();
    if let Some(stop) = pending.iter().find(|signal| Signal::STOPS.contains(signal)) {
        info!("Handling signal: {stop}");
        started_in_master();
        return Err(STOPPED);
    }
    pending.into_iter().for_each(signal::push);
    Ok(())
}

/// Says why there will be no server.
fn refuse(reason: &dyn std::fmt::Display) -> i32 {
    error!("{reason}");
    NOT_STARTED
}
