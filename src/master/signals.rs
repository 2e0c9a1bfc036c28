//! What each signal means to the master.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use log::{debug, error, info};

use crate::logging;
use crate::python::{hooks, loggers};
use crate::sys::signal::Signal;

use super::stop::StopReason;
use super::workers::MOST_WORKERS;
use super::{Master, Phase};

/// The signals the master answers to.
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

impl Master {
    /// Handles what is pending, in the order in which it came. The pipe's size bounds how much that can be.
    pub(super) fn handle_signals(&mut self) -> ControlFlow<StopReason> {
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::Chld => debug!("Handling signal: {signal}"),
                _ => info!("Handling signal: {signal}"),
            }
            self.handle(signal)?;
        }
        match self.phase {
            Phase::Leaving(at) if at <= Instant::now() => ControlFlow::Break(StopReason::Graceful),
            _ => ControlFlow::Continue(()),
        }
    }

    fn handle(&mut self, signal: Signal) -> ControlFlow<StopReason> {
        match signal {
            Signal::Term => return self.stop_gracefully(),
            Signal::Int | Signal::Quit => return ControlFlow::Break(StopReason::Quick),
            Signal::Hup => self.reload_wanted = true,
            Signal::Ttin => self.change_worker_count(|count| (count + 1).min(MOST_WORKERS)),
            Signal::Ttou => self.change_worker_count(one_less),
            Signal::Usr1 => self.reopen_logs(),
            Signal::Usr2 => self.start_upgrade(),
            Signal::Rtmin => self.check_before_upgrade_in_place(),
            Signal::Winch => self.withdraw_workers(),
            // It has woken the loop, which reaps in every turn; an abort is for workers.
            Signal::Chld | Signal::Abrt => {}
        }
        ControlFlow::Continue(())
    }

    /// At once, or after `shutdown_delay`, which a second TERM does not cut short.
    fn stop_gracefully(&mut self) -> ControlFlow<StopReason> {
        let delay = Duration::from_secs(self.serving.config.shutdown_delay);
        if delay.is_zero() {
            return ControlFlow::Break(StopReason::Graceful);
        }
        if !matches!(self.phase, Phase::Leaving(_)) {
            info!("Serving on for {} s before the stop", delay.as_secs());
            self.fail_health_checks();
            self.phase = Phase::Leaving(Instant::now() + delay);
            self.service_manager.stopping();
        }
        ControlFlow::Continue(())
    }

    /// Health checks fail from now on, unless another master goes on serving on the same sockets.
    pub(super) fn fail_health_checks(&mut self) {
        if !self.upgrade.is_under_way() {
            self.scoreboard.announce_stop();
        }
    }

    /// A hook has set `server.num_workers`.
    pub(super) fn settle_worker_count(&mut self) {
        if let Some(count) = hooks::take_wanted_workers() {
            self.change_worker_count(|_| count.min(MOST_WORKERS));
        }
    }

    /// A generation that is about to take over inherits the change.
    fn change_worker_count(&mut self, change: impl Fn(usize) -> usize) {
        let old = self.serving.wanted;
        for generation in [Some(&mut self.serving), self.candidate.as_mut()].into_iter().flatten() {
            generation.wanted = change(generation.wanted);
        }
        if self.serving.wanted != old {
            self.tell_of_count(old);
        }
    }

    /// Reopens our log, then tells the workers to reopen theirs.
    pub(super) fn reopen_logs(&self) {
        if let Err(error) = logging::reopen() {
            error!("{error}");
        }
        if let Err(raised) = loggers::reopen() {
            error!("Cannot reopen the logs\n{raised}");
        }
        for worker in &self.workers {
            worker.tell(Signal::Usr1);
        }
    }

    /// WINCH stops the workers and keeps the master: gunicorn's way when it is a daemon, because in the foreground the
    /// signal also says that the terminal changed its size. During an upgrade it is honoured too.
    fn withdraw_workers(&mut self) {
        if !self.serving.config.daemon && !self.upgrade.is_under_way() {
            debug!("SIGWINCH ignored. Not daemonized");
            return;
        }
        info!("graceful stop of workers");
        self.change_worker_count(|_| 0);
        self.stop_generation(self.serving.number);
    }
}

/// The last worker stays; after WINCH there is none to stay.
fn one_less(count: usize) -> usize {
    if count > 1 { count - 1 } else { count }
}
