//! From settings to a master that is ready to fork: the steps of gunicorn's start, in its order, with its log lines.

use std::sync::Arc;

use log::{debug, error, info, warn};

use crate::scoreboard::{MAX_WORKERS, Scoreboard};
use crate::sys::pidfile::PidFile;
use crate::sys::signal::{self, SignalQueue};
use crate::sys::socket::{FileOwner, Listener};
use crate::sys::{daemon, process, wakeup};

use super::generation::Generation;
use super::listeners::{self, NotOpened};
use super::sleep::Alarm;
use super::upgrade::{Inherited, Upgrade};
use super::{Boot, Master, Phase, signals};

/// The exit status of a master that could not start.
const NOT_STARTED: i32 = 1;

/// Prepares everything but the workers. The error is the exit status; why is on standard error or in the log.
pub(super) fn start<App>(mut boot: Boot<App>) -> Result<Master<App>, i32> {
    let (upgrade, inherited) = Upgrade::from_environment();
    leave_foreground(&boot, &upgrade)?;
    // Before the pid file tells anybody whom to signal, and before anything that a Ctrl-C may interrupt.
    signal::reset_inherited().map_err(|error| refuse(&error))?;
    let signals = SignalQueue::new(&signals::HANDLED).map_err(|error| refuse(&error))?;
    let preloaded = (boot.preload)(&boot.config).map_err(|reason| refuse(&reason))?;

    info!("Starting monoceros {}", env!("CARGO_PKG_VERSION"));
    let pid_file = create_pid_file(&boot, &upgrade)?;
    let remove_pid_file = || pid_file.iter().for_each(PidFile::remove);
    let open = open_listeners(&boot, &inherited, &signals).inspect_err(|_| remove_pid_file())?;
    let serving = Generation::new(0, Arc::clone(&boot.config), open);
    announce(&serving);

    let assembled = Master::assemble(boot, pid_file, signals, preloaded, serving, upgrade);
    assembled.map_err(|error| refuse(&error))
}

impl<App> Master<App> {
    fn assemble(
        boot: Boot<App>,
        pid_file: Option<PidFile>,
        signals: SignalQueue,
        preloaded: Option<App>,
        serving: Generation,
        upgrade: Upgrade,
    ) -> std::io::Result<Master<App>> {
        let (wakeup, bell) = wakeup::pair()?;
        Ok(Master {
            alarm: Alarm::new(&signals, &bell)?,
            scoreboard: Scoreboard::new(MAX_WORKERS)?,
            pid: process::getpid(),
            workers: Vec::new(),
            age: 0,
            phase: Phase::Starting,
            candidate: None,
            generations_called: 0,
            reload_wanted: false,
            boot,
            pid_file,
            signals,
            wakeup,
            bell,
            preloaded,
            serving,
            upgrade,
        })
    }
}

/// A master that an upgrade has started is in the background already if it is to be.
fn leave_foreground<App>(boot: &Boot<App>, upgrade: &Upgrade) -> Result<(), i32> {
    if !boot.config.daemon || upgrade.has_parent() {
        return Ok(());
    }
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        warn!("daemon is set under a service manager that waits for a message: it will lose sight of the server");
    }
    daemon::daemonize(boot.fork).map_err(|error| refuse(&error))?;
    (boot.configure_logging)(&boot.config).map_err(|reason| refuse(&reason))
}

fn create_pid_file<App>(boot: &Boot<App>, upgrade: &Upgrade) -> Result<Option<PidFile>, i32> {
    let Some(path) = &boot.config.pidfile else { return Ok(None) };
    let path = upgrade.pid_file_name(path);
    PidFile::create(&path, process::getpid()).map(Some).map_err(|error| refuse(&error))
}

fn open_listeners<App>(
    boot: &Boot<App>,
    inherited: &Inherited,
    signals: &SignalQueue,
) -> Result<Vec<Arc<Listener>>, i32> {
    let config = &boot.config;
    let opened = match inherited {
        // The service manager decides where the server listens; `bind` has no say.
        Inherited::FromSystemd(fds) => {
            return listeners::inherit(fds, config, FileOwner::ServiceManager).map_err(|reason| refuse(&reason));
        }
        Inherited::FromMaster(fds) => {
            let ours = listeners::inherit(fds, config, FileOwner::Us).map_err(|reason| refuse(&reason))?;
            listeners::open_at_start(config, &ours, signals)
        }
        Inherited::Nothing => listeners::open_at_start(config, &[], signals),
    };
    opened.map_err(|error| match error {
        NotOpened::Failed => NOT_STARTED,
        NotOpened::Stopped => 0,
    })
}

fn announce(serving: &Generation) {
    debug!("Arbiter booted");
    info!("Listening at: {} ({})", listeners::names(&serving.listeners), process::getpid());
    info!("Using worker: {}", serving.config.worker_class);
}

/// Says why there will be no server.
fn refuse(reason: &dyn std::fmt::Display) -> i32 {
    error!("{reason}");
    NOT_STARTED
}
