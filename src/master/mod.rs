//! The master: binds the sockets, forks the workers, and keeps as many of them serving as were asked for.
//!
//! One process, one thread, one loop that sleeps until a signal, a worker's bell or a deadline wakes it. It must not know how
//! a worker serves, nor HTTP, and Python only as hooks that it calls. A forked child leaves the master's stack by returning
//! from [`run`], so nothing in here may have a destructor that touches the world: removing the pid file and unlinking sockets
//! are calls.

mod certificates;
mod exit_reason;
mod generation;
mod hooks;
mod in_place;
mod jitter;
mod listeners;
mod recycle;
mod reload;
mod service_manager;
mod signals;
mod start;
mod stop;
mod upgrade;
mod waiter;
mod worker;
mod worker_count;
mod workers;

use std::env;
use std::ffi::OsString;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::python::hooks::Hooks;
use crate::scoreboard::Scoreboard;
use crate::settings::Config;
use crate::sys::fd_channel::FdChannel;
use crate::sys::fork::Forked;
use crate::sys::pidfile::PidFile;
use crate::sys::process::{self, Pid};
use crate::sys::signal::SignalQueue;
use crate::sys::wakeup::{Wakeup, WakeupReceiver};
use crate::tls::Tls;
use crate::worker_init::WorkerInit;

use exit_reason::OomWatch;
use generation::Generation;
use service_manager::ServiceManager;
use stop::StopReason;
use upgrade::Upgrade;
use waiter::MasterWaiter;
use worker::{BootFailure, Worker};

pub use upgrade::Inheritance;

/// What the master needs of the rest of the program.
pub struct Boot<App> {
    /// The settings to start with.
    pub config: Arc<Config>,
    /// The hooks that they name.
    pub hooks: Hooks,
    /// Reads all the settings again (HUP). An error is a sentence, and means that nothing has changed.
    pub reload: Reload,
    /// What to speak TLS with at the start, if the settings ask for it.
    pub tls: Option<Tls>,
    /// Reads it again, for changed settings or files. The error is a sentence.
    pub load_tls: LoadTls,
    /// Points the error log where the settings say; all or nothing. Called for changed settings, and after the standard
    /// streams have gone to /dev/null.
    pub configure_logging: fn(&Config, &Hooks) -> Result<(), String>,
    /// Loads the application in the master, when the settings ask for it. The error is what the user is to read.
    pub preload: Preload<App>,
    /// Forks, telling an interpreter that may be running in the master.
    pub fork: fn() -> io::Result<Forked>,
    /// How this program was started, to start it once more (USR2).
    pub launch: ExecCommand,
}

/// Reads settings, and the hooks that they name.
pub type Reload = Box<dyn FnMut() -> Result<(Arc<Config>, Hooks), String>>;

/// Loads the application in the master, or does nothing when the settings do not ask for it.
pub type Preload<App> = Box<dyn FnMut(&Config) -> Result<Option<App>, String>>;

/// Reads the certificates that the settings name, if they ask for TLS.
pub type LoadTls = Box<dyn FnMut(&Config, &Hooks) -> Result<Option<Tls>, String>>;

/// A program, its arguments and its surroundings, as they were at the start.
#[derive(Debug, Clone)]
pub struct ExecCommand {
    /// The file to execute; looked for in PATH when it has no slash.
    pub program: OsString,
    /// What its command line begins with: its name, and whatever else leads to the server before the server's own arguments
    /// (`python -m monoceros`).
    pub command: Vec<OsString>,
    /// The server's name and its own arguments (`sys.argv`).
    pub argv: Vec<OsString>,
    /// The working directory.
    pub cwd: PathBuf,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
}

impl ExecCommand {
    /// A start in the working directory and environment of this moment.
    pub fn here(program: OsString, command: Vec<OsString>, argv: Vec<OsString>) -> ExecCommand {
        ExecCommand { program, command, argv, cwd: process::working_directory(), environment: env::vars_os().collect() }
    }

    /// All arguments with which to execute the program again: `question`, if there is one, in front of the server's own, because an
    /// app's name may stand behind `--`.
    fn arguments(&self, question: Option<&str>) -> Vec<OsString> {
        let own = self.argv.iter().skip(1).cloned();
        self.command.iter().cloned().chain(question.map(OsString::from)).chain(own).collect()
    }
}

/// How [`run`] ends, in the master or in a child of it.
pub enum Outcome<App> {
    /// The master is done: the process ends with this status.
    Exit(i32),
    /// This process is a new worker and this is its seat.
    Worker(WorkerInit<App>),
}

/// Runs the master, which goes on where an earlier one left off, until it is told to stop. Exit statuses are gunicorn's: 0 stopped, 1 could not start, 3 a worker failed
/// to boot, 4 the app failed to load. Returns [`Outcome::Worker`] in each worker that it forks.
pub fn run<App>(boot: Boot<App>, inheritance: Inheritance) -> Outcome<App> {
    match start::start(boot, inheritance) {
        Ok(master) => master.supervise(),
        Err(status) => Outcome::Exit(status),
    }
}

struct Master<App> {
    boot: Boot<App>,
    pid: Pid,
    pid_file: Option<PidFile>,
    signals: SignalQueue,
    /// The workers' end of the bell, handed on at each fork.
    wakeup: Wakeup,
    wakeup_receiver: WakeupReceiver,
    waiter: MasterWaiter,
    scoreboard: Scoreboard,
    /// Where busy workers leave connections for their siblings, of whatever generation.
    channel: Arc<FdChannel>,
    preloaded: Option<App>,
    /// Oldest first.
    workers: Vec<Worker>,
    /// Workers forked so far.
    age: u64,
    phase: Phase,
    /// The generation that serves, and is kept at its count.
    serving: Generation,
    /// The generation that a HUP has called, until it has proven itself or failed.
    candidate: Option<Generation>,
    /// Generations called so far, failed ones too.
    generations_called: u64,
    /// A HUP waits for its turn. Any number of them count as one.
    reload_wanted: bool,
    /// When statsd was told of the backlog.
    backlog_reported: Option<Instant>,
    /// The start has failed, and why.
    doomed: Option<BootFailure>,
    upgrade: Upgrade,
    service_manager: ServiceManager,
    oom_watch: OomWatch,
    /// When the loop's turn began.
    woken_at: Instant,
}

/// How far the service has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The application has never worked: a failure to boot ends the master, afterwards never.
    Starting,
    Proven,
    /// TERM has come, and `shutdown_delay` keeps the service up until then.
    Leaving(Instant),
}

impl<App> Master<App> {
    fn supervise(mut self) -> Outcome<App> {
        loop {
            self.promote_when_alone();
            if let ControlFlow::Break(halt) = self.handle_signals() {
                return self.halt(halt);
            }
            self.note_states();
            if let ControlFlow::Break(failure) = self.reap_workers() {
                return self.halt(StopReason::Failed(failure));
            }
            self.settle_worker_count();
            self.settle_reload();
            self.settle_upgrade();
            self.check_heartbeats();
            self.recycle_workers();
            self.watch_certificates();
            self.stop_surplus();
            if let Some(child) = self.maintain_worker_count() {
                return self.become_worker(child);
            }
            self.report_to_service_manager();
            self.report_backlog(Instant::now());
            self.sleep();
        }
    }

    fn has_ever_served(&self) -> bool {
        self.phase != Phase::Starting
    }

    /// The name in the log: gunicorn's "Master.2" until the old master is gone.
    fn name(&self) -> &'static str {
        self.upgrade.master_name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(command: &[&str], question: Option<&str>) -> Vec<OsString> {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect();
        let argv = words(&["monoceros", "-w", "2", "--", "app"]);
        ExecCommand { program: "x".into(), command: words(command), argv, cwd: "/".into(), environment: Vec::new() }
            .arguments(question)
    }

    #[test]
    fn a_question_stands_in_front_of_the_servers_own_arguments() {
        assert_eq!(arguments(&["monoceros"], None), ["monoceros", "-w", "2", "--", "app"]);
        let asked = arguments(&["python", "-m", "monoceros"], Some("--check-config"));
        assert_eq!(asked, ["python", "-m", "monoceros", "--check-config", "-w", "2", "--", "app"]);
    }
}
