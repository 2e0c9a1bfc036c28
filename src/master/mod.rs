//! The master: binds the sockets, forks the workers, and keeps as many of them serving as the
//! settings ask for.
//!
//! It is one process with one thread and one loop, which sleeps until a signal, a worker's wake-up
//! or a deadline. It must not know how a worker serves, nor HTTP, and Python only as hooks that it
//! calls. A forked child leaves the master's stack by returning from [`run`], so no destructor in
//! here may change the world outside the process: removing the pid file and unlinking sockets are
//! calls.

mod autoscale;
mod backlog;
mod certificates;
mod control;
mod dirty;
mod exit_reason;
mod generation;
mod generations;
mod hooks;
mod in_place;
mod inheritance;
mod jitter;
mod listeners;
mod log_level;
mod metrics_listener;
mod overdue;
mod plan;
mod reap;
mod recycle;
mod reload;
mod resize;
mod resources;
mod service_manager;
mod signals;
mod spawn;
mod standing;
mod start;
mod statsd;
mod stop;
mod upgrade;
mod waiter;
mod worker;
mod worker_count;
mod worker_gauge;
mod workers;
mod young_deaths;

use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use log::error;

use crate::bootstrap::Startup;
use crate::logging::take_dropped_lines;
use crate::python::interpreter;
use crate::service::Service;
use crate::sys::fork::{self, Forked};
use crate::sys::pidfile::PidFile;
use crate::sys::process::Pid;
use crate::sys::signal::{Blocked, SignalQueue};
use crate::worker_init::{DirtyArbiterInit, WorkerInit};

use autoscale::Autoscaler;
use backlog::BacklogReport;
use control::Control;
use dirty::{DirtyPools, ForkedArbiter};
use exit_reason::BootFailure;
use generations::Generations;
use resize::ResizeWatch;
use service_manager::ServiceManager;
use spawn::ForkedChild;
use statsd::StatsdReport;
use upgrade::Upgrade;
use waiter::MasterWaiter;
use worker_gauge::WorkerGauge;
use workers::Workers;

pub use inheritance::Inheritance;

/// How [`run`] ends, in the master or in a child of it.
pub enum Outcome {
    /// The master has ended: the process exits with this status.
    Exit(i32),
    /// This process is a new worker.
    Worker(WorkerInit),
    /// This process is a new dirty arbiter.
    DirtyArbiter(DirtyArbiterInit),
}

/// Runs the master until it is told to stop. `service` has the settings to start with, and no
/// listeners yet; `inheritance` is what an earlier master has left. Returns [`Outcome::Worker`] in
/// each worker. Exit statuses are gunicorn's: 0 stopped, 1 could not start, 3 a worker failed to
/// boot, 4 the app failed to load.
pub fn run(startup: Startup, service: Service, inheritance: Inheritance) -> Outcome {
    match start::start(startup, service, inheritance) {
        Ok(master) => master.begin(),
        Err(status) => Outcome::Exit(status),
    }
}

struct Master {
    startup: Startup,
    identity: Identity,
    signals: SignalQueue,
    waiter: MasterWaiter,
    phase: Phase,
    generations: Generations,
    workers: Workers,
    upgrade: Upgrade,
    control: Control,
    dirty: DirtyPools,
    sizing: Sizing,
    reports: Reports,
}

/// What the master is known by.
struct Identity {
    pid: Pid,
    pid_file: Option<PidFile>,
}

/// What changes the number of workers by itself: the size of the container, and the load.
struct Sizing {
    resize_watch: ResizeWatch,
    autoscaler: Autoscaler,
}

/// Where the master reports how the server does: the service manager, statsd and the log.
struct Reports {
    service_manager: ServiceManager,
    worker_gauge: WorkerGauge,
    backlog: BacklogReport,
    statsd: StatsdReport,
}

/// How far the service has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No worker has served yet: a failure to boot ends the master. A later one does not.
    Starting,
    Proven,
    /// TERM has come, and `shutdown_delay` keeps the service up until this moment.
    Leaving(Instant),
}

/// Why the master stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopReason {
    /// TERM: requests in flight may finish.
    Graceful,
    /// INT or QUIT: at once.
    Quick,
    /// The start has failed, and no worker has served.
    Failed(BootFailure),
}

/// How a process leaves the loop.
enum Departure {
    /// The master stops.
    Stop(StopReason),
    /// The process is a new worker.
    Worker(Box<ForkedChild>),
    /// The process is a new dirty arbiter.
    DirtyArbiter(ForkedArbiter),
}

impl Master {
    fn supervise(mut self) -> Outcome {
        loop {
            match self.turn() {
                ControlFlow::Continue(()) => self.sleep(),
                ControlFlow::Break(departure) => return self.depart(departure),
            }
        }
    }

    fn depart(self, departure: Departure) -> Outcome {
        match departure {
            Departure::Stop(reason) => self.stop(reason),
            Departure::Worker(child) => self.become_worker(child),
            Departure::DirtyArbiter(child) => self.become_dirty_arbiter(child),
        }
    }

    /// One turn of the loop. Every step looks at everything, so it does not matter which event has
    /// woken the master.
    fn turn(&mut self) -> ControlFlow<Departure> {
        self.observe()?;
        self.decide();
        self.act()?;
        self.report();
        ControlFlow::Continue(())
    }

    /// The first step, because the others rest on what it finds. Phases come before ends: a worker
    /// that has served proves the service, even if it has ended since.
    fn observe(&mut self) -> ControlFlow<Departure> {
        self.promote_when_alone();
        self.handle_signals()?;
        self.serve_control()?;
        self.note_phases();
        let reaped = self.reap_workers().map_break(|failure| Departure::Stop(StopReason::Failed(failure)));
        self.workers.scoreboard().note_ended();
        self.add_counts_of_new_master();
        reaped
    }

    /// Comes before workers are stopped and forked, because it settles which generation serves and
    /// how many workers that generation should have. Deadlines come after reloads and upgrades,
    /// which may run the operator's code for seconds: the workers' silence during that time is
    /// forgiven first.
    fn decide(&mut self) {
        self.follow_resize();
        self.scale_by_load();
        self.settle_worker_count();
        self.settle_reload();
        self.settle_upgrade();
        self.settle_dirty_pools();
        self.notice_lost_time();
        self.workers.check_deadlines();
        self.workers.recycle(Instant::now(), self.generations.candidate.is_some());
        self.watch_certificates();
    }

    /// Comes after the decisions, so that each worker is forked with the settings that hold now.
    /// Workers are stopped before others are forked: a fork calls hooks, which may take long, and
    /// the child of a fork leaves the loop here.
    fn act(&mut self) -> ControlFlow<Departure> {
        self.workers.retire_surplus(&self.generations.serving.target());
        self.spawn_dirty_arbiters()?;
        self.spawn_missing()
    }

    /// Comes last before the sleep, because it tells other programs what this turn has changed. The
    /// sleep's deadline is computed afterwards, from the state that the whole turn leaves.
    fn report(&mut self) {
        self.workers.note_service(&self.generations.serving);
        self.report_to_service_manager();
        let serving = &self.generations.serving;
        self.reports.worker_gauge.tell(&serving.service, serving.number, &self.workers.standings());
        self.reports.backlog.send_when_due(&serving.service, Instant::now());
        self.workers.scoreboard().count_lines_dropped(take_dropped_lines());
        let (board, workers) = (self.workers.own_scoreboard(), self.reports.worker_gauge.count());
        self.reports.statsd.send_when_due(&serving.service, board, workers, Instant::now());
    }

    /// The name in the log: gunicorn's "Master.2" until the old master is gone.
    fn name(&self) -> &'static str {
        self.upgrade.master_name()
    }
}

/// Forks, and tells an interpreter that may run in the master.
fn fork() -> io::Result<Forked> {
    interpreter::around_fork(fork::fork)
}

/// Lets signals come again after a fork.
fn unblock(blocked: Blocked) {
    if let Err(error) = blocked.restore() {
        error!("Can't let signals come again: {error}");
    }
}
