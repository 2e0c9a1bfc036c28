//! What the server tells a service manager: systemd, or another program with its protocol
//! (sd_notify(3)).
//!
//! READY when a worker serves, not before; RELOADING and READY around a reload; STOPPING; how many
//! workers serve; MAINPID when an upgrade hands the service over; and the watchdog's sign of life,
//! only while workers are alive.

use std::env;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use log::warn;

use crate::sys::clock::monotonic_us;
use crate::sys::notify::notify;
use crate::sys::process::{self, Pid};

use super::worker::Worker;
use super::{Master, Phase};

const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_INTERVAL: &str = "WATCHDOG_USEC";
/// The process that the watchdog watches. An upgrade passes the new master's pid on.
pub(super) const WATCHDOG_PID: &str = "WATCHDOG_PID";

pub(super) struct ServiceManager {
    /// Where messages go; `None` without a manager.
    socket: Option<OsString>,
    watchdog: Option<Watchdog>,
    phase: ManagerPhase,
    status: String,
    /// When READY is sent again, since the manager had no room for it.
    ready_again: Option<Instant>,
}

/// How long READY waits where the manager has no room for it: a manager that does not hear of it
/// ends the service.
const READY_AGAIN: Duration = Duration::from_millis(100);

/// The state of the service in the manager's eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ManagerPhase {
    /// No worker has served yet.
    Starting,
    Ready,
    Reloading,
    Stopping,
}

/// The workers, as far as the manager is told of them.
#[derive(Debug, Clone, Copy)]
struct Report {
    serving: usize,
    wanted: usize,
    has_ever_served: bool,
    /// New workers are about to take the old ones' places.
    is_reloading: bool,
    /// Some worker serves and has missed no deadline.
    is_alive: bool,
}

struct Watchdog {
    every: Duration,
    next: Instant,
}

impl ServiceManager {
    /// Reads what the process was started with, and takes it out of the environment: an app's
    /// children must not speak for the server.
    pub fn from_environment() -> ServiceManager {
        let socket = process::take_environment(SOCKET);
        let interval = process::take_environment_number(WATCHDOG_INTERVAL).filter(|&interval: &u64| interval > 0);
        let meant =
            process::take_environment_number(WATCHDOG_PID).is_none_or(|pid: u64| pid == u64::from(std::process::id()));
        // At half the interval, as sd_watchdog_enabled(3) advises.
        let watchdog = interval
            .filter(|_| meant && socket.is_some())
            .map(|interval| Watchdog { every: Duration::from_micros(interval / 2), next: Instant::now() });
        ServiceManager { socket, watchdog, phase: ManagerPhase::Starting, status: String::new(), ready_again: None }
    }

    /// Acts on the state of the workers: READY, the count, and the sign of life.
    fn report(&mut self, report: &Report, now: Instant) {
        let is_up = report.serving > 0 || report.wanted == 0 && report.has_ever_served;
        if is_up && !report.is_reloading {
            self.ready(now);
        } else {
            self.ready_again = None;
        }
        self.count(report.serving, report.wanted);
        if report.is_alive || report.wanted == 0 {
            self.send_watchdog_when_due(now);
        }
    }

    /// A worker serves, or a reload is over.
    fn ready(&mut self, now: Instant) {
        if !matches!(self.phase, ManagerPhase::Starting | ManagerPhase::Reloading)
            || self.ready_again.is_some_and(|at| at > now)
        {
            return;
        }
        // gunicorn's status.
        match self.send("READY=1\nSTATUS=Gunicorn arbiter booted") {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if self.ready_again.is_none() {
                    warn!("The service manager has no room for READY. The server sends it again until there is some.");
                }
                self.ready_again = Some(now + READY_AGAIN);
                return;
            }
            Err(error) => warn!("Cannot tell the service manager that the server is ready: {error}"),
            Ok(()) => {}
        }
        self.ready_again = None;
        self.phase = ManagerPhase::Ready;
        self.status.clear();
    }

    pub fn reloading(&mut self) {
        if self.phase == ManagerPhase::Ready {
            self.phase = ManagerPhase::Reloading;
            self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Reloading", monotonic_us()));
        }
    }

    pub fn stopping(&mut self) {
        if self.phase != ManagerPhase::Stopping {
            self.phase = ManagerPhase::Stopping;
            self.ready_again = None;
            self.tell("STOPPING=1\nSTATUS=Shutting down");
        }
    }

    /// Another master is the service from now on.
    pub fn hand_over(&mut self, pid: Pid) {
        self.phase = ManagerPhase::Stopping;
        self.ready_again = None;
        self.tell(&format!("MAINPID={pid}"));
    }

    /// This master is the service from now on.
    pub fn take_over(&mut self) {
        self.tell(&format!("MAINPID={}", process::getpid()));
    }

    /// Sends how many workers serve, if that has changed.
    fn count(&mut self, serving: usize, wanted: usize) {
        let status = format!("STATUS={serving} of {wanted} workers serving");
        if matches!(self.phase, ManagerPhase::Ready | ManagerPhase::Reloading) && status != self.status {
            self.tell(&status);
            self.status = status;
        }
    }

    /// Sends the sign of life if it is due. Without it the manager restarts the service.
    pub fn send_watchdog_when_due(&mut self, now: Instant) {
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.next <= now) {
            watchdog.next = now + watchdog.every;
            self.tell("WATCHDOG=1");
        }
    }

    /// When the next message is due: a sign of life, or READY once more. A late sign of life waits
    /// for a worker to serve, which wakes the master anyway.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let sign_of_life = self.watchdog.as_ref().map(|watchdog| watchdog.next).filter(|&next| next > now);
        sign_of_life.into_iter().chain(self.ready_again).min()
    }

    /// Sends a message that may be lost.
    fn tell(&self, state: &str) {
        if let Err(error) = self.send(state) {
            warn!("Can't tell the service manager {state:?}: {error}");
        }
    }

    fn send(&self, state: &str) -> io::Result<()> {
        self.socket.as_ref().map_or(Ok(()), |socket| notify(socket, state))
    }
}

impl Master {
    /// Informs the service manager. During an upgrade only one master is the service: the old one.
    pub(super) fn report_to_service_manager(&mut self) {
        if self.upgrade.has_parent() {
            return;
        }
        let serving = &self.generations.serving;
        let old_ones_serve = || self.workers.iter().any(|it| it.is_serving() && it.generation < serving.number);
        let is_reloading = self.upgrade.tries_reload() || self.generations.candidate.is_some() || old_ones_serve();
        let alive = self.workers.iter().any(Worker::is_alive_and_serving);
        let report = Report {
            serving: self.workers.iter().filter(|worker| worker.is_serving()).count(),
            wanted: serving.wanted,
            has_ever_served: self.phase != Phase::Starting,
            is_reloading,
            is_alive: alive,
        };
        self.reports.service_manager.report(&report, Instant::now());
    }

    /// When the service manager is to be told something.
    pub(super) fn service_manager_deadline(&self, now: Instant) -> Option<Instant> {
        self.reports.service_manager.deadline(now).filter(|_| !self.upgrade.has_parent())
    }
}

/// Whether a service manager waits for a message. To be called before
/// [`ServiceManager::from_environment`].
pub(super) fn is_there() -> bool {
    env::var_os(SOCKET).is_some()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// What a manager has received after each of `steps`: the first lines of its messages.
    fn messages(steps: &[&dyn Fn(&mut ServiceManager)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("notify");
        let receiver = UnixDatagram::bind(&socket).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let (socket, phase, status) = (Some(socket.into_os_string()), ManagerPhase::Starting, String::new());
        let mut manager = ServiceManager { socket, watchdog: None, phase, status, ready_again: None };
        let received = || {
            let mut buffer = [0; 512];
            let first_lines = std::iter::from_fn(|| {
                let length = receiver.recv(&mut buffer).ok()?;
                Some(String::from_utf8_lossy(&buffer[..length]).lines().next().unwrap_or_default().to_owned())
            });
            first_lines.collect::<Vec<_>>().join(" ")
        };
        let after = |step: &&dyn Fn(&mut ServiceManager)| {
            step(&mut manager);
            received()
        };
        steps.iter().map(after).collect()
    }

    const BOOTING: Report =
        Report { serving: 0, wanted: 2, has_ever_served: false, is_reloading: false, is_alive: false };
    const SERVING: Report = Report { serving: 2, has_ever_served: true, is_alive: true, ..BOOTING };

    #[test]
    fn ready_comes_with_the_first_worker_and_after_a_reload() {
        let sent = messages(&[
            &|manager| manager.report(&BOOTING, Instant::now()),
            &|manager| manager.report(&SERVING, Instant::now()),
            &|manager| manager.report(&SERVING, Instant::now()),
            &|manager| manager.report(&Report { serving: 1, ..SERVING }, Instant::now()),
            &|manager| manager.reloading(),
            &|manager| manager.report(&Report { is_reloading: true, ..SERVING }, Instant::now()),
            &|manager| manager.report(&SERVING, Instant::now()),
        ]);
        let (one, two) = ("STATUS=1 of 2 workers serving", "STATUS=2 of 2 workers serving");
        let ready = format!("READY=1 {two}");
        assert_eq!(sent, ["", &ready, "", one, "RELOADING=1", two, &ready]);
    }

    #[test]
    fn a_service_that_stops_says_so_once_and_nothing_after_it() {
        let sent = messages(&[
            &|manager| manager.stopping(),
            &|manager| manager.stopping(),
            &|manager| manager.report(&SERVING, Instant::now()),
            &|manager| manager.reloading(),
        ]);
        assert_eq!(sent, ["STOPPING=1", "", "", ""]);
    }

    #[test]
    fn no_workers_are_a_service_only_if_none_are_wanted_and_it_has_worked() {
        let none_wanted = Report { wanted: 0, ..BOOTING };
        let withdrawn = Report { has_ever_served: true, ..none_wanted };
        let sent = messages(&[&|manager| manager.report(&none_wanted, Instant::now()), &|manager| {
            manager.report(&withdrawn, Instant::now())
        }]);
        assert_eq!(sent, ["", "READY=1 STATUS=0 of 0 workers serving"]);
    }

    #[test]
    fn the_sign_of_life_is_due_at_its_moment_only_and_one_that_is_late_sets_no_deadline() {
        let (now, every) = (Instant::now(), Duration::from_secs(1));
        let (phase, status) = (ManagerPhase::Ready, String::new());
        let watchdog = Some(Watchdog { every, next: now });
        let mut manager = ServiceManager { socket: None, watchdog, phase, status, ready_again: None };
        assert_eq!(manager.deadline(now), None);
        manager.send_watchdog_when_due(now);
        assert_eq!(manager.deadline(now), Some(now + every));
        manager.send_watchdog_when_due(now);
        assert_eq!(manager.deadline(now), Some(now + every));
    }

    #[test]
    fn a_manager_without_room_is_told_of_ready_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let receiver = UnixDatagram::bind(&path).unwrap();
        receiver.set_nonblocking(true).unwrap();
        while notify(path.as_os_str(), "STATUS=other").is_ok() {}
        let (phase, status) = (ManagerPhase::Starting, String::new());
        let mut manager =
            ServiceManager { socket: Some(path.into()), watchdog: None, phase, status, ready_again: None };
        let now = Instant::now();
        manager.report(&SERVING, now);
        assert_eq!(manager.deadline(now), Some(now + READY_AGAIN));
        let mut buffer = [0; 64];
        while receiver.recv(&mut buffer).is_ok() {}
        manager.report(&SERVING, now + READY_AGAIN);
        assert!(receiver.recv(&mut buffer).is_ok_and(|length| buffer[..length].starts_with(b"READY=1\n")));
        assert_eq!(manager.deadline(now + READY_AGAIN), None);
    }
}
