//! What systemd, or whoever speaks its protocol (sd_notify(3)), is told of the server; nothing when nobody listens.
//!
//! READY when a worker serves, not when the master hopes so; RELOADING and READY around a reload; STOPPING; how many workers
//! serve; MAINPID when an upgrade hands the service on; and the watchdog's sign of life, only while workers are alive.

use std::env;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use log::warn;

use crate::sys::clock::monotonic_us;
use crate::sys::notify::notify;
use crate::sys::process::{self, Pid};

use super::Master;
use super::worker::Worker;

const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_INTERVAL: &str = "WATCHDOG_USEC";
/// Whom the watchdog means. An upgrade passes its own pid on.
pub(super) const WATCHDOG_PID: &str = "WATCHDOG_PID";

pub(super) struct ServiceManager {
    socket: Option<OsString>,
    watchdog: Option<Watchdog>,
    phase: ManagerPhase,
    status: String,
}

/// What the manager believes of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ManagerPhase {
    /// No worker has served yet.
    Starting,
    Ready,
    Reloading,
    Stopping,
}

struct Watchdog {
    every: Duration,
    next: Instant,
}

impl ServiceManager {
    /// Reads what the process was started with, and takes it out of the environment: an app's children must not speak for us.
    pub fn from_environment() -> ServiceManager {
        let socket = process::take_environment(SOCKET);
        let interval = process::take_environment_number(WATCHDOG_INTERVAL).filter(|&interval: &u64| interval > 0);
        let meant =
            process::take_environment_number(WATCHDOG_PID).is_none_or(|pid: u64| pid == u64::from(std::process::id()));
        // Twice as often as asked, as sd_watchdog_enabled(3) advises.
        let watchdog = interval
            .filter(|_| meant && socket.is_some())
            .map(|interval| Watchdog { every: Duration::from_micros(interval / 2), next: Instant::now() });
        ServiceManager { socket, watchdog, phase: ManagerPhase::Starting, status: String::new() }
    }

    /// A worker serves, or a reload is over.
    pub fn ready(&mut self) {
        if matches!(self.phase, ManagerPhase::Starting | ManagerPhase::Reloading) {
            self.phase = ManagerPhase::Ready;
            self.status.clear();
            // gunicorn's status.
            self.send("READY=1\nSTATUS=Gunicorn arbiter booted");
        }
    }

    pub fn reloading(&mut self) {
        if self.phase == ManagerPhase::Ready {
            self.phase = ManagerPhase::Reloading;
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Reloading", monotonic_us()));
        }
    }

    pub fn stopping(&mut self) {
        if self.phase != ManagerPhase::Stopping {
            self.phase = ManagerPhase::Stopping;
            self.send("STOPPING=1\nSTATUS=Shutting down");
        }
    }

    /// Another master is the service from now on.
    pub fn hand_over(&mut self, pid: Pid) {
        self.phase = ManagerPhase::Stopping;
        self.send(&format!("MAINPID={pid}"));
    }

    /// This master is the service from now on.
    pub fn take_over(&mut self) {
        self.send(&format!("MAINPID={}", process::getpid()));
    }

    /// Says how many workers serve, when that has changed.
    fn count(&mut self, serving: usize, wanted: usize) {
        let status = format!("STATUS={serving} of {wanted} workers serving");
        if matches!(self.phase, ManagerPhase::Ready | ManagerPhase::Reloading) && status != self.status {
            self.send(&status);
            self.status = status;
        }
    }

    /// The sign of life, when it is due. Without one the manager will in the end start the service afresh.
    fn keep_watchdog_quiet(&mut self, now: Instant) {
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.next <= now) {
            watchdog.next = now + watchdog.every;
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = notify(socket, state)
        {
            warn!("Can't tell the service manager {state:?}: {error}");
        }
    }
}

impl Master {
    /// Keeps the service manager informed. During an upgrade only one master is the service: the old one.
    pub(super) fn report_to_service_manager(&mut self) {
        if self.upgrade.has_parent() {
            return;
        }
        let serving = self.workers.iter().filter(|worker| worker.is_serving()).count();
        let is_up = serving > 0 || self.serving.wanted == 0 && self.has_ever_served();
        if is_up && !self.is_changing_generations() {
            self.service_manager.ready();
        }
        self.service_manager.count(serving, self.serving.wanted);
        let alive = self.workers.iter().any(|worker| worker.is_alive_and_serving());
        if alive || self.serving.wanted == 0 {
            self.service_manager.keep_watchdog_quiet(Instant::now());
        }
    }

    /// Whether new workers are about to take the old ones' places.
    fn is_changing_generations(&self) -> bool {
        let old = |worker: &Worker| worker.is_serving() && worker.generation < self.serving.number;
        self.candidate.is_some() || self.workers.iter().any(old)
    }

    /// When the next sign of life is due.
    pub(super) fn watchdog_deadline(&self, now: Instant) -> Option<Instant> {
        let watchdog = self.service_manager.watchdog.as_ref().filter(|_| !self.upgrade.has_parent())?;
        // One that is overdue waits for a worker, whose bell will ring.
        Some(watchdog.next).filter(|&next| next > now)
    }

    /// A stop takes its time, and the watchdog goes on counting.
    pub(super) fn keep_watchdog_quiet_while_stopping(&mut self) {
        self.service_manager.keep_watchdog_quiet(Instant::now());
    }
}

/// Whether a service manager waits for a message. To be asked before [`ServiceManager::from_environment`].
pub(super) fn is_there() -> bool {
    env::var_os(SOCKET).is_some()
}
