//! What a worker, or a dirty arbiter, is given at the fork: everything it needs, and nothing of the
//! master.
//!
//! It must not know how a worker serves nor why the master wants one.

use std::path::PathBuf;
use std::sync::Arc;

use crate::python::app::App;
use crate::python::hooks::Hooks;
use crate::scoreboard::{AskedLevel, Row};
use crate::service::Service;
use crate::settings::Config;
use crate::sys::failure_note::FailureNote;
use crate::sys::fd_channel::FdChannel;
use crate::sys::process::Pid;
use crate::sys::signal::SignalQueue;
use crate::sys::socket::Listener;
use crate::sys::wakeup::Wakeup;

/// One worker's share of the server.
pub struct WorkerInit {
    /// What its generation serves with.
    pub service: Arc<Service>,
    /// The number of workers forked so far, this one included, as gunicorn's `worker.age`.
    pub age: u64,
    /// Its place among the workers of its generation, from 0; the worker that replaces it gets the
    /// same. Under `reuse_port` the slot decides which of the sockets of a port it accepts from.
    pub slot: usize,
    /// How many workers there should be at the time of the fork.
    pub workers: usize,
    /// Its row on the scoreboard, where it writes its phase and its heartbeat.
    pub row: Row,
    /// What the worker tells the master, and is told by the master.
    pub master: MasterTies,
    /// Requests to serve before it asks for a replacement, jitter included; 0 for no limit.
    pub max_requests: u64,
    /// Where busy workers leave connections for their siblings.
    pub channel: Arc<FdChannel>,
    /// Where the application finds the dirty arbiter, if there is one for it.
    pub dirty_socket: Option<PathBuf>,
    /// The application, if the master has loaded it.
    pub preloaded: Option<App>,
    /// The worker's signals since the fork, none lost. Signals that mean something to the master
    /// alone have no effect.
    pub signals: SignalQueue,
}

/// What a worker and the master tell each other besides the worker's row.
pub struct MasterTies {
    /// The master's pid. When getppid(2) returns another one, the master is gone.
    pub pid: Pid,
    /// To be written after each change of phase, so that the master looks at the row.
    pub wakeup: Wakeup,
    /// The level that the error log is to have, if an operator changes it.
    pub asked_level: Arc<AskedLevel>,
    /// Where the worker says why it could not begin to serve, if that would fail a reload.
    pub failure_note: Option<Arc<FailureNote>>,
}

/// What a dirty arbiter gets: gunicorn's own code, which forks the dirty workers.
pub struct DirtyArbiterInit {
    /// The settings in force.
    pub config: Arc<Config>,
    /// The hooks that they name.
    pub hooks: Hooks,
    /// The folder of its sockets, which outlives it.
    pub folder: PathBuf,
    /// The socket there at which it listens.
    pub listener: Listener,
    /// Where it writes its pid.
    pub pid_file: PathBuf,
    /// The master's pid.
    pub ppid: Pid,
    /// Its signals since the fork, none lost, until it handles them itself.
    pub signals: SignalQueue,
}
