//! One worker as its master sees it: what it says of itself, what the master means to do with it, and how it ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info};

use crate::logging;
use crate::scoreboard::{Row, WorkerPhase};
use crate::settings::Config;
use crate::sys::clock::monotonic_ms;
use crate::sys::process::{self, End, Pid};
use crate::sys::signal::Signal;

use super::recycle::RecycleLimits;

/// From SIGABRT to SIGKILL: time for a traceback, as gunicorn gives.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// An idle worker beats its heart once a second, so that much silence is none.
const BETWEEN_BEATS_MS: u64 = 1000;

/// A worker as its master sees it. What it says of itself is in its row.
pub(super) struct Worker {
    pub pid: Pid,
    pub generation: u64,
    pub row: Row,
    pub fate: Fate,
    /// Its number on the scoreboard.
    pub number: usize,
    /// Its place among the workers of its generation, see [`WorkerInit::slot`](crate::seat::Seat::slot).
    pub slot: usize,
    /// The state the master has acted on.
    pub seen: WorkerPhase,
    /// Silence before this moment does not count (milliseconds of the monotonic clock).
    pub forgiven_at: u64,
    /// How long it may live and how large it may grow.
    pub limits: RecycleLimits,
    /// The deadline it has missed, if it was aborted for one.
    pub overdue: Option<Overdue>,
    /// When it was forked, on the same clock.
    forked_at: u64,
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

/// The deadlines that the master holds a worker to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// `timeout`: no sign of life.
    Silent,
    /// `request_timeout`: one request takes too long.
    Request,
    /// `boot_timeout`: loading the app takes too long.
    Boot,
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
    pub fn new(pid: Pid, number: usize, slot: usize, row: Row, generation: u64, config: Arc<Config>) -> Worker {
        let (fate, seen) = (Fate::Serving, WorkerPhase::Booting);
        let (limits, forked_at) = (RecycleLimits::draw(&config), monotonic_ms());
        let (forgiven_at, overdue) = (0, None);
        Worker { pid, generation, row, fate, number, slot, seen, forgiven_at, limits, overdue, forked_at, config }
    }

    pub fn is_booting(&self) -> bool {
        self.row.state() == WorkerPhase::Booting
    }

    /// Whether it answers requests and means to go on with that.
    pub fn is_serving(&self) -> bool {
        matches!(self.fate, Fate::Serving | Fate::Retiring)
            && matches!(self.row.state(), WorkerPhase::Ready | WorkerPhase::Retiring)
    }

    /// Whether it serves and has not fallen silent.
    pub fn is_alive_and_serving(&self) -> bool {
        self.is_serving() && self.overdue_at().is_none_or(|(at, _)| at >= monotonic_ms())
    }

    /// Whether it ended before it served though nobody had asked it to: by itself, or because it took too long.
    pub fn failed_to_boot(&self) -> bool {
        self.is_booting() && (self.fate == Fate::Serving || self.overdue == Some(Overdue::Boot))
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

    /// It finishes though it was not told by us: it gets as long as any, and its place is free.
    pub fn note_drain(&mut self) {
        if matches!(self.fate, Fate::Serving | Fate::Retiring) {
            self.fate = Fate::Stopping { until: Instant::now() + Duration::from_secs(self.config.graceful_timeout) };
        }
    }

    /// Tells it by TERM or QUIT to end before `until`. One that is past its time already gets no more of it.
    pub fn stop(&mut self, signal: Signal, until: Instant) {
        self.tell(signal);
        if !matches!(self.fate, Fate::Aborted { .. } | Fate::Killed | Fate::Discarded) {
            self.fate = Fate::Stopping { until };
        }
    }

    /// When it is to be killed, if it has been told to end.
    pub fn end(&self) -> Option<Instant> {
        match self.fate {
            Fate::Stopping { until } | Fate::Aborted { until } => Some(until),
            Fate::Serving | Fate::Retiring | Fate::Killed | Fate::Discarded => None,
        }
    }

    /// Kills it when the time is up in which it was told to end.
    pub fn kill_when_due(&mut self, now: Instant) {
        if self.end().is_some_and(|until| until <= now) {
            self.kill(Fate::Killed);
        }
    }

    /// Kills it; `fate` says what its end will mean.
    pub fn kill(&mut self, fate: Fate) {
        let _ = process::kill_hard(self.pid);
        self.fate = fate;
    }

    /// Ends it when it has missed a deadline: first asked to say where it is.
    pub fn abort_when_overdue(&mut self, now: Instant, now_ms: u64) {
        if let Some((_, overdue)) = self.overdue_at().filter(|&(at, _)| at < now_ms) {
            error!(target: logging::CRITICAL, "WORKER TIMEOUT (pid:{})", self.pid);
            self.log_what_it_was_at(overdue, now_ms);
            self.tell(Signal::Abrt);
            self.overdue = Some(overdue);
            self.fate = Fate::Aborted { until: now + ABORT_TIMEOUT };
        }
    }

    fn log_what_it_was_at(&self, overdue: Overdue, now_ms: u64) {
        let (pid, served, connections) = (self.pid, self.row.served(), self.row.connections());
        let seconds = |at: u64| now_ms.saturating_sub(at) / 1000;
        match (overdue, self.row.request_started_at()) {
            (Overdue::Boot, _) => {
                error!("Worker (pid:{pid}) has been loading the app for {} s: boot_timeout.", seconds(self.forked_at));
            }
            (Overdue::Request, Some(at)) => {
                let seconds = seconds(at);
                error!(
                    "Worker (pid:{pid}) has been in the app for {seconds} s with request {}: request_timeout.",
                    served + 1
                );
            }
            (_, Some(at)) => {
                info!("Worker (pid:{pid}) has been in the app for {} s with request {}.", seconds(at), served + 1);
            }
            (_, None) => info!("Worker (pid:{pid}) was in no request; {connections} connections were open."),
        }
    }

    /// The deadline that it misses first, and when (milliseconds of the monotonic clock). Without `boot_timeout` loading the
    /// app may take any time, as gunicorn allows since 22.0.
    fn overdue_at(&self) -> Option<(u64, Overdue)> {
        let after = |since: u64, seconds: u64| {
            (seconds > 0).then(|| since.max(self.forgiven_at).saturating_add(seconds.saturating_mul(1000)))
        };
        if self.is_booting() {
            return Some((after(self.forked_at, self.config.boot_timeout)?, Overdue::Boot));
        }
        let started = self.row.request_started_at();
        let silent = self.row.heartbeat().and_then(|beat| match started {
            // A worker with one thread says nothing while it runs a request: `timeout` bounds that to the point. With several, the heart
            // beats on, and its last beat may be nearly a whole interval older than the request.
            Some(started) if self.config.threads == 1 && beat <= started => after(started, self.config.timeout),
            _ => after(beat + BETWEEN_BEATS_MS, self.config.timeout),
        });
        let silent = silent.map(|at| (at, Overdue::Silent));
        let request = started.and_then(|at| after(at, self.config.request_timeout)).map(|at| (at, Overdue::Request));
        silent.into_iter().chain(request).min_by_key(|&(at, _)| at)
    }

    /// When the master must look at it again, if nothing else happens.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let now_ms = monotonic_ms();
        let overdue = || {
            let at = self.overdue_at()?.0.saturating_add(1);
            now.checked_add(Duration::from_millis(at.saturating_sub(now_ms)))
        };
        // A request that begins while the master sleeps wakes nobody: look again before it could be overdue.
        let request_timeout = Some(self.config.request_timeout).filter(|&seconds| seconds > 0);
        let next_look = request_timeout.and_then(|seconds| now.checked_add(Duration::from_secs(seconds)));
        let overdue = || [overdue(), next_look].into_iter().flatten().min();
        match self.fate {
            Fate::Serving | Fate::Retiring => overdue(),
            Fate::Stopping { until } => Some(overdue().map_or(until, |at| at.min(until))),
            Fate::Aborted { until } => Some(until),
            Fate::Killed | Fate::Discarded => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::Scoreboard;

    #[test]
    fn a_request_is_a_sign_of_life_of_a_single_thread_only() {
        for (threads, silence_ms) in [(1, 0), (4, BETWEEN_BEATS_MS)] {
            let config = Arc::new(Config { threads, timeout: 1, ..Config::default() });
            let row = Scoreboard::new(std::num::NonZeroUsize::MIN).unwrap().row(0);
            let worker = Worker::new(crate::sys::process::getpid(), 0, 0, row.clone(), 1, config);
            row.set_state(WorkerPhase::Ready);
            row.beat();
            let beat = row.heartbeat().unwrap();
            let request = row.start_request();
            let since = if threads == 1 { row.request_started_at().unwrap() } else { beat };
            assert_eq!(worker.overdue_at(), Some((since + silence_ms + 1000, Overdue::Silent)), "{threads} threads");
            row.finish_request(request);
        }
    }
}
