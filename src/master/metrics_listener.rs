//! The socket of `metrics_bind`. The master opens it, the workers answer on it.

use std::sync::Arc;

use log::{error, info};

use crate::service::Service;
use crate::settings::{Address, Config};
use crate::sys::errno::as_python_shows;
use crate::sys::socket::Listener;

use super::Master;
use super::listeners::open_aside;

/// Connections that may wait there: a few scrapers.
const BACKLOG: u32 = 16;

/// The socket that the settings ask for: that of `current` if it still fits. The error is a
/// sentence.
pub(super) fn open(config: &Config, current: Option<&Arc<Listener>>) -> Result<Option<Arc<Listener>>, String> {
    let Some(address) = &config.metrics_bind else { return Ok(None) };
    if let Some(current) = current.filter(|current| serves(current, address)) {
        return Ok(Some(Arc::clone(current)));
    }
    match open_aside(config, address, BACKLOG) {
        Ok(listener) => {
            info!("Metrics at: {}/metrics", listener.name("http"));
            Ok(Some(Arc::new(listener)))
        }
        Err(error) => Err(format!("metrics_bind: cannot listen at {address}: {}", as_python_shows(&error))),
    }
}

fn serves(listener: &Listener, address: &Address) -> bool {
    listener.serves(&super::listeners::bind_address(address))
}

/// Removes the file of a service's socket, unless `kept` has the same one.
pub(super) fn unlink_unless(service: &Service, kept: Option<&Service>) {
    if let Some(listener) = &service.metrics
        && !kept.and_then(|kept| kept.metrics.as_ref()).is_some_and(|kept| Arc::ptr_eq(kept, listener))
    {
        listener.unlink();
    }
}

impl Master {
    /// Opens the socket at the start. A server that was there already goes on without it.
    pub(super) fn open_metrics(config: &Config, goes_on: bool) -> Result<Option<Arc<Listener>>, String> {
        match open(config, None) {
            Err(reason) if goes_on => {
                error!("{reason}. The server goes on without metrics.");
                Ok(None)
            }
            opened => opened,
        }
    }
}
