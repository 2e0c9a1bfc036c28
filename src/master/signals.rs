//! What each signal means to the master.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use log::{debug, error, info};

use crate::logging;
use crate::python::signals::started_in_master;
use crate::python::{hooks, loggers};
use crate::sys::signal::{self, Signal, SignalQueue};

use super::workers::MOST_WORKERS;
use super::{Departure, Master, Phase, StopReason};

/// The signals that the master handles.
pub(super) const HANDLED: [Signal; 11] = [
    Signal::Hup,
    Signal::Quit,
    Signal::Int,
    Signal::Term,
    Signal::Ttin,
    Signal::Ttou,
    Signal::Usr1,
    Signal::Usr2,
    Signal::Winch,
    Signal::Chld,
    Signal::Rtmin,
];

/// Whether TERM, INT or QUIT has come while the server starts. Other signals go back to the queue,
/// for the loop.
pub(super) fn told_to_stop(signals: &SignalQueue) -> bool {
    let pending: Vec<Signal> = std::iter::from_fn(|| signals.next()).collect();
    if let Some(stop) = pending.iter().find(|signal| Signal::STOPS.contains(signal)) {
        info!("Handling signal: {stop}");
        started_in_master();
        return true;
    }
    pending.into_iter().for_each(signal::push);
    false
}

impl Master {
    /// Handles the pending signals in the order in which they came. The size of their pipe bounds
    /// how many there can be.
    pub(super) fn handle_signals(&mut self) -> ControlFlow<Departure> {
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::Chld => debug!("Handling signal: {signal}"),
                _ => info!("Handling signal: {signal}"),
            }
            self.handle(signal)?;
        }
        match self.phase {
            Phase::Leaving(at) if at <= Instant::now() => ControlFlow::Break(Departure::Stop(StopReason::Graceful)),
            _ => ControlFlow::Continue(()),
        }
    }

    pub(super) fn handle(&mut self, signal: Signal) -> ControlFlow<Departure> {
        match signal {
            Signal::Term => return self.stop_gracefully(),
            Signal::Int | Signal::Quit => return ControlFlow::Break(Departure::Stop(StopReason::Quick)),
            Signal::Hup => self.generations.want_reload(),
            Signal::Ttin => self.change_worker_count(one_more),
            Signal::Ttou => self.change_worker_count(one_less),
            Signal::Usr1 => self.reopen_logs(),
            Signal::Usr2 => self.start_upgrade(),
            Signal::Rtmin => self.check_before_upgrade_in_place(),
            Signal::Winch => self.withdraw_workers(),
            // CHLD has woken the loop, which reaps in every turn. ABRT is for workers.
            Signal::Chld | Signal::Abrt => {}
        }
        ControlFlow::Continue(())
    }

    /// Stops at once, or after `shutdown_delay`. A second TERM does not shorten the delay.
    fn stop_gracefully(&mut self) -> ControlFlow<Departure> {
        let delay = Duration::from_secs(self.generations.serving.service.config.shutdown_delay);
        if delay.is_zero() {
            return ControlFlow::Break(Departure::Stop(StopReason::Graceful));
        }
        if !matches!(self.phase, Phase::Leaving(_)) {
            info!("Serving on for {} s before the stop", delay.as_secs());
            self.fail_health_checks();
            self.phase = Phase::Leaving(Instant::now() + delay);
            // With another master the service goes on; `report_stop` says the rest at the end.
            if !self.upgrade.is_under_way() {
                self.reports.service_manager.stopping();
            }
        }
        ControlFlow::Continue(())
    }

    /// Health checks fail from now on, unless another master goes on serving on the same sockets.
    pub(super) fn fail_health_checks(&mut self) {
        if !self.upgrade.is_under_way() {
            self.workers.announce_stop();
        }
    }

    /// Changes the count if a hook has set `server.num_workers`.
    pub(super) fn settle_worker_count(&mut self) {
        if let Some(count) = hooks::take_wanted_workers() {
            self.change_worker_count(|_| count.min(MOST_WORKERS));
        }
    }

    /// Sets how many workers there should be, and calls the hook for it.
    pub(super) fn change_worker_count(&mut self, change: impl Fn(usize) -> usize) {
        let old = self.generations.serving.wanted;
        self.generations.change_wanted(change);
        if self.generations.serving.wanted != old {
            self.call_nworkers_changed(old);
        }
    }

    /// Reopens the master's log, then tells the workers to reopen theirs.
    pub(super) fn reopen_logs(&self) {
        if let Err(error) = logging::reopen() {
            error!("{error}");
        }
        if let Err(raised) = loggers::reopen() {
            error!("Cannot reopen the logs\n{raised}");
        }
        self.workers.tell_all(Signal::Usr1);
        self.dirty.tell_all(Signal::Usr1);
    }

    /// WINCH stops the workers and keeps the master. As under gunicorn only a daemon does that,
    /// because in the foreground the signal also means that the terminal has changed its size. Here
    /// a master does it during an upgrade too.
    fn withdraw_workers(&mut self) {
        let serving = &self.generations.serving;
        if !serving.service.config.daemon && !self.upgrade.is_under_way() {
            debug!("SIGWINCH ignored. Not daemonized");
            return;
        }
        let number = serving.number;
        info!("graceful stop of workers");
        self.change_worker_count(|_| 0);
        self.workers.retire_up_to(number);
    }
}

fn one_more(count: usize) -> usize {
    (count + 1).min(MOST_WORKERS)
}

/// The last worker stays; after WINCH there is no last worker.
fn one_less(count: usize) -> usize {
    if count > 1 { count - 1 } else { count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttou_keeps_the_last_worker_and_ttin_fills_the_scoreboard_only() {
        assert_eq!([0, 1, 2].map(one_less), [0, 1, 1]);
        assert_eq!([0, 1, MOST_WORKERS - 1, MOST_WORKERS].map(one_more), [1, 2, MOST_WORKERS, MOST_WORKERS]);
    }
}
