//! From settings to a master that is ready to fork: the steps of gunicorn's start, in its order,
//! with its log lines.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use log::{debug, error, info, warn};

use crate::bootstrap::{Startup, configure_logging};
use crate::python::Exit;
use crate::python::app::App;
use crate::python::hooks::{Raised, ServerHook, ServerState};
use crate::python::signals::{begin_in_master, started_in_master, take_back};
use crate::service::Service;
use crate::settings::Config;
use crate::sys::pidfile::PidFile;
use crate::sys::signal::{self, SignalQueue};
use crate::sys::socket::{Listener, SocketOwner};
use crate::sys::{daemon, output, process};

use super::autoscale::Autoscaler;
use super::backlog::BacklogReport;
use super::control::Control;
use super::dirty::DirtyPools;
use super::generations::Generations;
use super::hooks::shown_at_start;
use super::inheritance::{Adopted, Inheritance, Inherited};
use super::listeners::{self, NotOpened};
use super::resize::ResizeWatch;
use super::service_manager::{self, ServiceManager};
use super::signals::{HANDLED, told_to_stop};
use super::statsd::StatsdReport;
use super::upgrade::{Upgrade, moved_pid_file};
use super::waiter::MasterWaiter;
use super::worker_count::{WorkerCount, worker_count};
use super::worker_gauge::WorkerGauge;
use super::workers::Workers;
use super::{Identity, Master, Outcome, Phase, Reports, Sizing, fork};

/// The exit status of a master that could not start.
const NOT_STARTED: i32 = 1;

/// The exit status of a master that was told to stop before it had started.
const STOPPED: i32 = 0;

/// Prepares everything but the workers. The error is the exit status; the reason is on standard
/// error or in the log.
pub(super) fn start(startup: Startup, mut service: Service, inheritance: Inheritance) -> Result<Master, i32> {
    let upgrade = Upgrade::new(&inheritance);
    let Inheritance { sockets, adopted, boards, metrics, .. } = inheritance;
    leave_foreground(&service, &upgrade)?;
    // Signals are set up before the pid file shows other programs where to send them, and before
    // anything that a Ctrl-C may interrupt. The queue is made before they are unblocked: signals
    // that have waited during an upgrade in place arrive at once.
    signal::reset_inherited().map_err(|error| refuse(&error))?;
    let signals = SignalQueue::new(&HANDLED).map_err(|error| refuse(&error))?;
    signal::unblock_all().map_err(|error| refuse(&error))?;
    begin_in_master().map_err(|error| refuse(&error))?;
    let service_manager = ServiceManager::from_environment();
    let preloaded = startup.preload(&service.config);
    take_back();
    let give_up_files = || {
        give_up_inherited(&sockets, &service.config, &upgrade);
        let held = adopted.as_ref().and_then(|adopted| PidFile::held(adopted.pid_file.as_deref()?, process::getpid()));
        held.iter().for_each(PidFile::remove);
    };
    check_stop(&signals).inspect_err(|_| give_up_files())?;
    let serves = adopted.as_ref().is_some_and(|adopted| !adopted.serving.is_empty());
    let preloaded = preloaded.or_else(|reason| without_preload(serves, &reason)).inspect_err(|_| give_up_files())?;

    let WorkerCount { count, found_for } = worker_count(&service.config);
    let shown = || shown_at_start(&upgrade, count);
    may_go_on(&signals, &upgrade, service.hooks.nworkers_changed(shown, count, None))
        .inspect_err(|_| give_up_files())?;
    info!("Starting monoceros {}", env!("CARGO_PKG_VERSION"));
    let pid_file = create_pid_file(&service.config, &upgrade, adopted.as_ref())?;
    let remove_pid_file = || pid_file.iter().for_each(PidFile::remove);
    let pid_path = pid_file.as_ref().map(|file| file.path().to_owned());
    let shown = || ServerState { pid_file: pid_path.clone(), ..shown_at_start(&upgrade, count) };
    may_go_on(&signals, &upgrade, service.hooks.call(ServerHook::OnStarting, shown)).inspect_err(|_| {
        remove_pid_file();
        give_up_files();
    })?;
    service.listeners =
        open_listeners(&service.config, count, &sockets, &upgrade, &signals).inspect_err(|_| remove_pid_file())?;
    service.metrics = Master::open_metrics(&service.config, metrics.as_ref(), &upgrade)
        .map_err(|reason| refuse(&reason))
        .inspect_err(|_| {
            remove_pid_file();
            listeners::unlink_unless(&service.listeners, &[]);
        })?;
    announce(&service);
    let shared = || -> io::Result<_> { Ok((MasterWaiter::new(&signals)?, Workers::new(boards)?)) };
    let generations = Generations::new(service, preloaded, count);
    let (waiter, workers) = shared().map_err(|error| refuse(&error))?;
    let reports = Reports {
        service_manager,
        worker_gauge: WorkerGauge::default(),
        backlog: BacklogReport::default(),
        statsd: StatsdReport::since(workers.own_scoreboard()),
    };
    let mut master = Master {
        startup,
        identity: Identity { pid: process::getpid(), pid_file },
        signals,
        waiter,
        phase: Phase::Starting,
        generations,
        workers,
        upgrade,
        control: Control::default(),
        dirty: DirtyPools::default(),
        sizing: Sizing { resize_watch: ResizeWatch::new(), autoscaler: Autoscaler::new() },
        reports,
    };
    master.generations.serving.found_for = found_for;
    if let Some(adopted) = adopted {
        master.adopt_workers(adopted);
    }
    master.make_dirty_pool().inspect_err(|_| master.undo_start())?;
    Ok(master)
}

/// What becomes of a preload that fails. After an upgrade in place, which had loaded the app on
/// trial, the workers of the last program serve on, and new ones load the app themselves, as often
/// as it takes.
fn without_preload(is_serving: bool, reason: &str) -> Result<Option<App>, i32> {
    if !is_serving {
        return Err(refuse(&reason));
    }
    error!("The app cannot be loaded in the master, so each worker loads it: {reason}");
    Ok(None)
}

impl Master {
    /// Takes a prepared master into its loop. Dirty arbiters are forked before `when_ready` is
    /// called, as gunicorn does.
    pub(super) fn begin(mut self) -> Outcome {
        if let ControlFlow::Break(departure) = self.spawn_dirty_arbiters() {
            return self.depart(departure);
        }
        let called = self.generations.serving.service.hooks.call(ServerHook::WhenReady, || self.shown());
        if let Err(status) = may_go_on(&self.signals, &self.upgrade, called) {
            self.undo_start();
            self.give_up_dirty_arbiters();
            return Outcome::Exit(status);
        }
        started_in_master();
        // Beside another master the control socket has to wait: the path is that master's as long
        // as it lives.
        if !self.upgrade.has_parent() {
            self.open_control();
        }
        self.supervise()
    }

    fn make_dirty_pool(&mut self) -> Result<(), i32> {
        let serving = &self.generations.serving;
        let (config, hooks) = (&serving.service.config, &serving.service.hooks);
        let made = self.dirty.join(serving.number, config, hooks, None, self.upgrade.has_parent());
        match made.map_err(|reason| refuse(&reason)) {
            // After an upgrade in place workers serve, and there is no other master to go back to.
            Err(_) if self.upgrade.is_in_place() => Ok(()),
            made => made,
        }
    }

    /// Removes the files that this start has made.
    fn undo_start(&self) {
        if let Some(file) = &self.identity.pid_file {
            file.remove();
        }
        if !self.upgrade.is_under_way() {
            listeners::unlink_unless(&self.generations.serving.service.listeners, &[]);
        }
    }
}

/// Goes to the background, if the settings ask for it. A master that an upgrade has started is in
/// the background already.
fn leave_foreground(service: &Service, upgrade: &Upgrade) -> Result<(), i32> {
    let config = &service.config;
    if !config.daemon || upgrade.has_parent() || upgrade.is_in_place() {
        return Ok(());
    }
    if service_manager::is_there() {
        warn!("daemon is set under a service manager that waits for a message: it will lose sight of the server");
    }
    let stdio = if config.enable_stdio_inheritance { daemon::Output::Inherited } else { daemon::Output::Null };
    // The log may have captured the streams; it captures them again once they lead where they stay.
    output::release_standard_streams().map_err(|error| refuse(&error))?;
    daemon::daemonize(fork, stdio).map_err(|error| refuse(&error))?;
    configure_logging(config, &service.hooks).map_err(|reason| refuse(&reason))
}

/// After an upgrade in place the pid file is the earlier program's, moved if the settings say so. A
/// failure is then only logged: workers serve, and there is no other master to go back to.
fn create_pid_file(config: &Config, upgrade: &Upgrade, adopted: Option<&Adopted>) -> Result<Option<PidFile>, i32> {
    let wanted = config.pidfile.as_deref().map(|path| upgrade.pid_file_name(path));
    let pid = process::getpid();
    if let Some(adopted) = adopted {
        let earlier = adopted.pid_file.as_deref().and_then(|path| PidFile::held(path, pid));
        return Ok(moved_pid_file(earlier, wanted, pid));
    }
    wanted.map(|path| PidFile::create(&path, pid)).transpose().map_err(|error| refuse(&error))
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
            return listeners::inherit(fds, config, SocketOwner::ServiceManager).map_err(|reason| refuse(&reason));
        }
        Inherited::FromMaster(fds) => {
            let ours = listeners::inherit(fds, config, SocketOwner::Us).map_err(|reason| refuse(&reason))?;
            match listeners::open_at_start(config, workers, &ours, signals) {
                Ok(opened) if upgrade.is_in_place() => {
                    listeners::unlink_unless(&ours, &opened);
                    Ok(opened)
                }
                // Workers serve on these sockets, and there is no other master to go back to.
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

/// For a program in place whose start ends before it has taken over the sockets: removes the files
/// of unix sockets, which no other process will remove.
fn give_up_inherited(inherited: &Inherited, config: &Config, upgrade: &Upgrade) {
    if let Inherited::FromMaster(fds) = inherited
        && upgrade.is_in_place()
        && let Ok(listeners) = listeners::inherit(fds, config, SocketOwner::Us)
    {
        listeners::unlink_unless(&listeners, &[]);
    }
}

fn announce(service: &Service) {
    debug!("Arbiter booted");
    info!("Listening at: {} ({})", listeners::names(service), process::getpid());
    let class = service.config.effective_worker_class().to_string();
    // A class that the config file has made goes by its own name, as under gunicorn.
    let name = class.strip_prefix("__config__.").and_then(|made| made.rsplit('.').next());
    info!("Using worker: {}", name.unwrap_or(&class));
}

/// A hook that raises keeps the server from starting, except after an upgrade in place, which has
/// no other master to go back to. If a signal to stop has come meanwhile, the start ends in good
/// order.
fn may_go_on(signals: &SignalQueue, upgrade: &Upgrade, hook: Result<(), Raised>) -> Result<(), i32> {
    check_stop(signals)?;
    match hook {
        Err(raised) if upgrade.is_in_place() => {
            error!("The server goes on without the hook that raised\n{raised}");
            Ok(())
        }
        hook => hook.map_err(|raised| raised.exit().map_or_else(|| refuse(&raised), Exit::perform)),
    }
}

/// Fails with the exit status of a stop if a signal to stop has come.
fn check_stop(signals: &SignalQueue) -> Result<(), i32> {
    if told_to_stop(signals) { Err(STOPPED) } else { Ok(()) }
}

/// Logs why there will be no server.
fn refuse(reason: &dyn std::fmt::Display) -> i32 {
    error!("{reason}");
    NOT_STARTED
}
