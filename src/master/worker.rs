//! One worker as its master sees it: what it says of itself, what the master means to do with it, and how it ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info, warn};

use crate::logging;
use crate::scoreboard::{Row, State};
use crate::settings::Config;
use crate::sys::clock::monotonic_ms;
use crate::sys::process::{self, End, Pid};
use crate::sys::signal::Signal;

/// From SIGABRT to SIGKILL: time for a traceback, as gunicorn gives.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// A worker as its master sees it. What it says of itself is in its row.
pub(super) struct Worker {
    pub pid: Pid,
    pub generation: u64,
    pub row: Row,
    pub fate: Fate,
    /// Its number on the scoreboard.
    pub number: usize,
    /// The state the master has acted on.
    pub seen: State,
    /// Silence before this moment does not count (milliseconds of the monotonic clock).
    pub forgiven_at: u64,
    config: Arc<Config>,
}

/// What the master means to do with a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It counts.
    Serving,
    /// It serves on until there is another in its place.
    Retiring,
    /// Told to finish, not later than this.
    Stopping { until: Instant },
    /// It gave no sign of life for too long, and has been told to say where it is.
    Aborted { until: Instant },
    /// Killed because it took too long.
    Killed,
    /// Killed because it was no longer wanted; its end is no news.
    Discarded,
}

/// The failures to boot that end a master whose app has never worked. gunicorn's exit statuses of a worker and of its master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BootFailure {
    Worker,
    App,
}

impl BootFailure {
    pub fn status(self) -> i32 {
        match self {
            BootFailure::Worker => 3,
            BootFailure::App => 4,
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            BootFailure::Worker => "Worker failed to boot.",
            BootFailure::App => "App failed to load.",
        }
    }

    pub fn from_end(end: End) -> Option<BootFailure> {
        [BootFailure::Worker, BootFailure::App].into_iter().find(|failure| end == End::Exited(failure.status()))
    }
}

impl Worker {
    pub fn new(pid: Pid, number: usize, row: Row, generation: u64, config: Arc<Config>) -> Worker {
        let (fate, seen) = (Fate::Serving, State::Booting);
        Worker { pid, generation, row, fate, number, seen, forgiven_at: 0, config }
    }

    pub fn is_booting(&self) -> bool {
        self.row.state() == State::Booting
    }

    /// Whether it answers requests and means to go on with that.
    pub fn is_serving(&self) -> bool {
        matches!(self.fate, Fate::Serving | Fate::Retiring)
            && matches!(self.row.state(), State::Ready | State::Retiring)
    }

    /// Whether it is one of those that its generation should have.
    pub fn counts_for(&self, generation: u64) -> bool {
        self.generation == generation && self.fate == Fate::Serving
    }

    /// Sends a signal. A worker that has just ended is reaped soon.
    pub fn tell(&self, signal: Signal) {
        let _ = process::kill(self.pid, signal);
    }

    /// Tells it to finish within `graceful_timeout`, if it has not been told.
    pub fn retire(&mut self) {
        if matches!(self.fate, Fate::Serving | Fate::Retiring) {
            self.stop(Signal::Term, Instant::now() + Duration::from_secs(self.config.graceful_timeout));
        }
    }

    /// Tells it by TERM or QUIT to end before `until`.
    pub fn stop(&mut self, signal: Signal, until: Instant) {
        self.tell(signal);
        if !matches!(self.fate, Fate::Killed | Fate::Discarded) {
            self.fate = Fate::Stopping { until };
        }
    }

    /// Kills it; `fate` says what its end will mean.
    pub fn kill(&mut self, fate: Fate) {
        let _ = process::kill_hard(self.pid);
        self.fate = fate;
    }

    pub fn abort_when_silent(&mut self, now: Instant, now_ms: u64) {
        if self.silent_at().is_some_and(|at| at < now_ms) {
            error!(target: logging::CRITICAL, "WORKER TIMEOUT (pid:{})", self.pid);
            self.log_what_it_was_at(now_ms);
            self.tell(Signal::Abrt);
            self.fate = Fate::Aborted { until: now + ABORT_TIMEOUT };
        }
    }

    fn log_what_it_was_at(&self, now_ms: u64) {
        let (served, connections) = (self.row.served(), self.row.connections());
        match self.row.request_started_at() {
            Some(at) => {
                let seconds = now_ms.saturating_sub(at) / 1000;
                info!("Worker (pid:{}) has been in the app for {seconds} s with request {}.", self.pid, served + 1);
            }
            None => info!("Worker (pid:{}) was in no request; {connections} connections were open.", self.pid),
        }
    }

    /// When its silence becomes too long, in milliseconds of the monotonic clock. Never while it boots: loading an app may
    /// take any time (gunicorn's rule since 22.0).
    fn silent_at(&self) -> Option<u64> {
        if self.config.timeout == 0 || self.is_booting() {
            return None;
        }
        let sign_of_life = self.row.heartbeat()?.max(self.forgiven_at);
        Some(sign_of_life.saturating_add(self.config.timeout.saturating_mul(1000)))
    }

    /// When the master must look at it again, if nothing else happens.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let now_ms = monotonic_ms();
        let silent = || {
            let at = self.silent_at()?.saturating_add(1);
            now.checked_add(Duration::from_millis(at.saturating_sub(now_ms)))
        };
        match self.fate {
            Fate::Serving | Fate::Retiring => silent(),
            Fate::Stopping { until } => Some(silent().map_or(until, |at| at.min(until))),
            Fate::Aborted { until } => Some(until),
            Fate::Killed | Fate::Discarded => None,
        }
    }

    /// gunicorn's lines, but memory is suspected only of a kill that was not ours.
    pub fn log_end(&self, end: End) {
        let pid = self.pid;
        match end {
            End::Exited(0) => {}
            End::Exited(code) => error!("Worker (pid:{pid}) exited with code {code}."),
            End::Killed(libc::SIGKILL) if self.fate == Fate::Killed => error!("Worker (pid:{pid}) was sent SIGKILL!"),
            End::Killed(libc::SIGKILL) => error!("Worker (pid:{pid}) was sent SIGKILL! Perhaps out of memory?"),
            End::Killed(libc::SIGTERM) => info!("Worker (pid:{pid}) was sent SIGTERM!"),
            End::Killed(number) => warn!("Worker (pid:{pid}) was sent {}!", name_of(number)),
        }
    }
}

/// A signal's name as Python has it.
pub(super) fn name_of(number: i32) -> String {
    process::signal_name(number).map_or_else(|| format!("signal {number}"), str::to_owned)
}
