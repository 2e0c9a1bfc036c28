//! What a worker is given at the fork: everything it needs to serve, and nothing of the master.
//!
//! It must not know how a worker serves nor how the master came to want one.

use std::sync::Arc;

use crate::python::app::App;
use crate::python::hooks::Hooks;
use crate::scoreboard::Row;
use crate::settings::{Config, UserSpec};
use crate::sys::fd_channel::FdChannel;
use crate::sys::process::Pid;
use crate::sys::signal::SignalQueue;
use crate::sys::socket::Listener;
use crate::sys::user;
use crate::sys::wakeup::Wakeup;
use crate::tls::Tls;

/// A worker's place. `App` is what preloading the application gave (the master only carries it from one to the other).
pub struct WorkerInit {
    /// Its row on the scoreboard; free numbers are used again.
    pub number: usize,
    /// How many workers were forked before it and including it, as gunicorn's `worker.age`.
    pub age: u64,
    /// The settings of its generation.
    pub config: Arc<Config>,
    /// The hooks that they name.
    pub hooks: Hooks,
    /// The sockets to accept from.
    pub listeners: Vec<Arc<Listener>>,
    /// What the sockets speak TLS with, if they do.
    pub tls: Option<Tls>,
    /// Its place among the workers of its generation, from 0; the one that replaces it gets the same. Under `reuse_port` it says at
    /// which of the sockets of a port it stands.
    pub slot: usize,
    /// Where it tells its state and beats its heart.
    pub row: Row,
    /// The master's pid: when getppid() says otherwise, the master is gone.
    pub ppid: Pid,
    /// To be rung after each change of state, so that the master looks at the row.
    pub wakeup: Wakeup,
    /// Requests to serve before asking for a replacement, with the jitter in it; 0 for no limit.
    pub max_requests: u64,
    /// Where busy workers leave connections for their siblings.
    pub channel: Arc<FdChannel>,
    /// The application, where the master has loaded it.
    pub preloaded: Option<App>,
    /// The worker's signals since the fork, none lost; those that only the master gives a meaning to are without effect here.
    pub signals: SignalQueue,
}

/// Who a worker with these settings is to be: user and group id.
///
/// # Errors
/// A name that the system does not know.
pub fn identity(config: &Config) -> Result<(u32, u32), user::Unknown> {
    Ok((user::uid(config.user.as_ref().map(spec))?, user::gid(config.group.as_ref().map(spec))?))
}

fn spec(given: &UserSpec) -> user::Spec<'_> {
    match given {
        UserSpec::Name(name) => user::Spec::Name(name),
        UserSpec::Id(id) => user::Spec::Id(*id),
    }
}
