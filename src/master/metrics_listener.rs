//! The socket of `metrics_bind`. The master opens it, the workers answer on it, and an upgrade
//! hands it on.

use std::sync::Arc;

use log::{error, info};

use crate::scoreboard::MetricsTurn;
use crate::service::{MetricsSocket, Service};
use crate::settings::{Address, Config};
use crate::sys::errno::as_python_shows;
use crate::sys::process;
use crate::sys::socket::{Listener, SocketOwner};

use super::Master;
use super::inheritance::PassedMetrics;
use super::listeners::open_aside;
use super::upgrade::Upgrade;

/// Connections that may wait at the socket: a few scrapers.
const BACKLOG: u32 = 16;

/// The socket that the settings ask for: that of `current` if it still fits. The error is a
/// sentence.
pub(super) fn open(
    config: &Config,
    current: Option<&Arc<MetricsSocket>>,
) -> Result<Option<Arc<MetricsSocket>>, String> {
    let Some(address) = &config.metrics_bind else { return Ok(None) };
    if let Some(current) = current.filter(|current| serves(&current.listener, address)) {
        return Ok(Some(Arc::clone(current)));
    }
    let opened = open_aside(config, address, BACKLOG).and_then(|listener| Ok((listener, MetricsTurn::new()?)));
    match opened {
        Ok((listener, turn)) => {
            announce(&listener);
            Ok(Some(Arc::new(MetricsSocket { listener: Arc::new(listener), turn })))
        }
        Err(error) => Err(format!("metrics_bind: cannot listen at {address}: {}", as_python_shows(&error))),
    }
}

fn announce(listener: &Listener) {
    info!("Metrics at: {}/metrics", listener.name("http"));
}

/// The socket that an earlier program has left; `None` if a descriptor is not what it should be.
fn take_over(passed: &PassedMetrics) -> Option<Arc<MetricsSocket>> {
    let turn = process::inherited_descriptor(passed.turn).ok()?;
    let turn = MetricsTurn::inherited(turn, passed.number).ok()??;
    let listener = Listener::from_fd(passed.socket, BACKLOG, SocketOwner::Us).ok()?;
    Some(Arc::new(MetricsSocket { listener: Arc::new(listener), turn }))
}

fn serves(listener: &Listener, address: &Address) -> bool {
    listener.serves(&super::listeners::bind_address(address))
}

/// Removes the file of a service's socket, unless `kept` has the same one.
pub(super) fn unlink_unless(service: &Service, kept: Option<&Service>) {
    if let Some(socket) = &service.metrics
        && !kept.and_then(|kept| kept.metrics.as_ref()).is_some_and(|kept| Arc::ptr_eq(kept, socket))
    {
        socket.listener.unlink();
    }
}

impl Master {
    /// Opens the socket at the start, unless an earlier program has `passed` it on. If the socket
    /// cannot be opened, a server that goes on from before an upgrade does without.
    pub(super) fn open_metrics(
        config: &Config,
        passed: Option<&PassedMetrics>,
        upgrade: &Upgrade,
    ) -> Result<Option<Arc<MetricsSocket>>, String> {
        let inherited = passed.and_then(take_over);
        let opened = match open(config, inherited.as_ref()) {
            Err(reason) if upgrade.is_under_way() || upgrade.is_in_place() => {
                error!("{reason}. The server goes on without metrics.");
                None
            }
            opened => opened?,
        };
        if let Some(inherited) = inherited {
            match &opened {
                Some(opened) if Arc::ptr_eq(&inherited, opened) => announce(&opened.listener),
                // Beside another master the file is that one's.
                _ if upgrade.is_in_place() => inherited.listener.unlink(),
                _ => {}
            }
        }
        Ok(opened)
    }
}
