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

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use crate::bootstrap::Startup;
use crate::python::app::App;
use crate::python::hooks::Hooks;
use crate::python::interpreter;
use crate::scoreboard::Scoreboard;
use crate::settings::Config;
use crate::sys::fd_channel::FdChannel;
use crate::sys::fork::{self, Forked};
use crate::sys::pidfile::PidFile;
use crate::sys::process::Pid;
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

/// How [`run`] ends, in the master or in a child of it.
pub enum Outcome {
    /// The master is done: the process ends with this status.
    Exit(i32),
    /// This process is a new worker and this is its seat.
    Worker(WorkerInit),
}

/// Runs the master, which goes on where an earlier one left off, until it is told to stop. Exit statuses are gunicorn's: 0 stopped, 1 could not start, 3 a worker failed
/// to boot, 4 the app failed to load. Returns [`Outcome::Worker`] in each worker that it forks.
pub fn run(startup: Startup, config: Arc<Config>, hooks: Hooks, tls: Option<Tls>, inheritance: Inheritance) -> Outcome {
    match start::start(startup, config, hooks, tls, inheritance) {
        Ok(master) => master.supervise(),
        Err(status) => Outcome::Exit(status),
    }
}

struct Master {
    startup: Startup,
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

/// Forks, and tells an interpreter that may run in the master.
fn fork() -> io::Result<Forked> {
    interpreter::around_fork(fork::fork)
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

impl Master {
    fn supervise(mut self) -> Outcome {
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
