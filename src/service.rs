//! What one generation of workers serves with. The master makes it, and each worker of the
//! generation gets it.
//!
//! It must not know how a worker serves nor why the master wants one.

use std::sync::Arc;

use crate::python::hooks::Hooks;
use crate::scoreboard::MetricsTurn;
use crate::settings::{Config, UserSpec};
use crate::sys::socket::Listener;
use crate::sys::user;
use crate::tls::Tls;

/// Settings, and what they name. It is shared, not copied: a reload makes another one.
#[derive(Clone)]
pub struct Service {
    /// The settings.
    pub config: Arc<Config>,
    /// The hooks that they name.
    pub hooks: Hooks,
    /// The sockets to accept from.
    pub listeners: Vec<Arc<Listener>>,
    /// The socket where metrics are read, under `metrics_bind`.
    pub metrics: Option<Arc<MetricsSocket>>,
    /// The certificates and terms of TLS; `None` for plain HTTP.
    pub tls: Option<Tls>,
}

/// Where metrics are read, and whose turn it is to answer there: an upgrade hands both on.
pub struct MetricsSocket {
    /// The socket.
    pub listener: Arc<Listener>,
    /// Whether a newer program answers.
    pub turn: MetricsTurn,
}

/// The user and group id of workers with these settings.
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
