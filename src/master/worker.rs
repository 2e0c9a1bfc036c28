//! One worker as the master sees it: what its row says, and what the master intends with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info};

use crate::logging;
use crate::scoreboard::{ExitCause, Row, WorkerPhase};
use crate::settings::{Config, WorkerClass};
use crate::sys::clock::monotonic_ms;
use crate::sys::process::{self, Pid};
use crate::sys::signal::Signal;

use super::overdue::{Overdue, SignsOfLife, TimeLimits};
use super::recycle::RecycleLimits;
use super::standing::{Fate, Standing};

/// From SIGABRT to SIGKILL: time for a traceback. gunicorn's number.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Worker {
    pub pid: Pid,
    /// How many workers had been forked by then, this one included; 0 for a worker of an earlier
    /// program.
    pub age: u64,
    pub generation: u64,
    pub row: Row,
    pub fate: Fate,
    /// The number of its row.
    pub number: usize,
    /// Its place among the workers of its generation, see
    /// [`WorkerInit::slot`](crate::worker_init::WorkerInit::slot).
    pub slot: usize,
    /// The phase that the master has acted on.
    pub seen: WorkerPhase,
    /// Silence before this moment does not count (milliseconds of the monotonic clock).
    pub forgiven_at: u64,
    /// How long it may live and how large it may grow.
    pub limits: RecycleLimits,
    /// The deadline that it has missed, if it was aborted for one.
    pub overdue: Option<Overdue>,
    /// Why the worker leaves: the first reason that the master or the worker itself has given.
    pub leaves_for: Option<ExitCause>,
    /// When it was forked (milliseconds of the monotonic clock).
    forked_at: u64,
    /// When it was aborted (milliseconds of the monotonic clock).
    aborted_at: u64,
    config: Arc<Config>,
}

impl Worker {
    pub fn new(pid: Pid, number: usize, slot: usize, row: Row, generation: u64, config: Arc<Config>) -> Worker {
        let (fate, seen) = (Fate::Serving, WorkerPhase::Booting);
        let (limits, forked_at) = (RecycleLimits::draw(&config), monotonic_ms());
        let (forgiven_at, overdue, leaves_for, aborted_at) = (0, None, None, 0);
        row.assign(pid, generation, config.app_threads());
        Worker {
            pid,
            age: 0,
            generation,
            row,
            fate,
            number,
            slot,
            seen,
            forgiven_at,
            limits,
            overdue,
            leaves_for,
            forked_at,
            aborted_at,
            config,
        }
    }

    pub fn standing(&self) -> Standing {
        Standing { generation: self.generation, slot: self.slot, fate: self.fate, phase: self.row.state() }
    }

    pub fn is_booting(&self) -> bool {
        self.standing().is_booting()
    }

    pub fn is_serving(&self) -> bool {
        self.standing().is_serving()
    }

    /// Whether it serves and has missed no deadline.
    pub fn is_alive_and_serving(&self) -> bool {
        self.is_serving() && self.overdue_at().is_none_or(|(at, _)| at >= monotonic_ms())
    }

    /// Whether it ended before it served although the master wanted it: by itself, or because it
    /// took too long.
    pub fn failed_to_boot(&self) -> bool {
        self.is_booting() && (self.fate == Fate::Serving || self.overdue == Some(Overdue::Boot))
    }

    /// Sends a signal. The call fails only if the worker has just ended, and then the worker is
    /// reaped soon.
    pub fn tell(&self, signal: Signal) {
        let _ = process::kill(self.pid, signal);
    }

    /// How long it has lived.
    pub fn age_now(&self) -> Duration {
        Duration::from_millis(monotonic_ms().saturating_sub(self.forked_at))
    }

    /// Notes why it leaves, unless it had a reason before.
    pub fn note_reason(&mut self, cause: ExitCause) {
        self.leaves_for.get_or_insert(cause);
    }

    /// Takes note that it asks to be replaced: it has served its `max_requests`, or its code has
    /// changed.
    pub fn note_retirement(&mut self) {
        self.note_reason(if self.config.max_requests > 0 { ExitCause::MaxRequests } else { ExitCause::Reload });
        self.fate = Fate::Retiring;
    }

    /// Tells it to finish within `graceful_timeout`, if it has not been told. A class that accepts
    /// by itself stops accepting before it gets TERM (see [`crate::sys::stop_accepting`]): other
    /// workers take the connections.
    pub fn retire(&mut self) {
        if self.fate.is_undecided() {
            self.stop(self.row.stop_signal(), Instant::now() + self.graceful_timeout());
        }
    }

    /// Takes note that it finishes although this master has not told it to. It gets as long as any
    /// other, and its place is free.
    pub fn note_drain(&mut self) {
        if self.fate.is_undecided() {
            self.fate = Fate::Stopping { until: Instant::now() + self.graceful_timeout() };
        }
    }

    /// Tells it by TERM or QUIT to end before `until`.
    pub fn stop(&mut self, signal: Signal, until: Instant) {
        self.tell(signal);
        self.fate = self.fate.told_to_end(until);
    }

    /// Kills it if the time that it was given to end is over.
    pub fn kill_when_due(&mut self, now: Instant) {
        if self.fate.kill_at().is_some_and(|until| until <= now) {
            self.kill(Fate::Killed);
        }
    }

    /// Kills it; `fate` says what its end will mean.
    pub fn kill(&mut self, fate: Fate) {
        let _ = process::kill_hard(self.pid);
        self.fate = fate;
    }

    /// Aborts it if it has missed a deadline: first it is told to log its stack.
    pub fn abort_when_overdue(&mut self, now: Instant, now_ms: u64) {
        if let Some((_, overdue)) = self.overdue_at().filter(|&(at, _)| at < now_ms) {
            error!(target: logging::CRITICAL, "WORKER TIMEOUT (pid:{})", self.pid);
            self.log_activity(overdue, now_ms);
            self.tell(Signal::Abrt);
            (self.overdue, self.aborted_at) = (Some(overdue), now_ms);
            self.fate = Fate::Aborted { until: now + ABORT_TIMEOUT };
        }
    }

    /// An aborted worker whose requests run in greenlets may have ended the greenlet that did not
    /// let go of its thread. The worker then finishes its other requests, like one that was told to
    /// end.
    pub fn note_recovery(&mut self, now: Instant) {
        let has_recovered = matches!(self.fate, Fate::Aborted { .. })
            && matches!(self.config.worker_class, WorkerClass::Gevent | WorkerClass::Foreign(_))
            && self.row.state() == WorkerPhase::Draining
            && self.row.heartbeat().is_some_and(|at| at >= self.aborted_at);
        if has_recovered {
            self.fate = Fate::Stopping { until: now + self.graceful_timeout() };
        }
    }

    /// When the master must look at it again if nothing else happens.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.time_limits().next_look(self.fate, self.overdue_at().map(|(at, _)| at), now, monotonic_ms())
    }

    fn log_activity(&self, overdue: Overdue, now_ms: u64) {
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
            (_, None) if self.config.worker_class == WorkerClass::Gevent => {
                info!(
                    "A greenlet of worker (pid:{pid}) does not let go of its thread; {connections} connections were open."
                );
            }
            (_, None) => info!("Worker (pid:{pid}) was in no request; {connections} connections were open."),
        }
    }

    /// The deadline that it misses first, and when (milliseconds of the monotonic clock).
    fn overdue_at(&self) -> Option<(u64, Overdue)> {
        self.time_limits().first_missed(&SignsOfLife {
            is_booting: self.is_booting(),
            forked_at: self.forked_at,
            forgiven_at: self.forgiven_at,
            heartbeat: self.row.heartbeat(),
            request_started_at: self.row.request_started_at(),
        })
    }

    fn time_limits(&self) -> TimeLimits {
        TimeLimits::of(&self.config)
    }

    fn graceful_timeout(&self) -> Duration {
        Duration::from_secs(self.config.graceful_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::{MAX_WORKERS, Scoreboard};
    use crate::sys::process::getpid;

    #[test]
    fn the_board_shows_as_many_threads_as_run_the_app() {
        let board = Scoreboard::new(MAX_WORKERS).unwrap();
        board.count_start(0);
        for (worker_class, threads) in [(WorkerClass::Gthread, 4), (WorkerClass::Gevent, 1)] {
            let config = Config { worker_class, threads: 4, ..Config::default() };
            Worker::new(getpid(), 0, 0, board.row(0), 1, Arc::new(config));
            assert_eq!(board.read_workers()[0].threads, threads);
        }
    }
}
