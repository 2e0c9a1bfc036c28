//! The end: workers first, then the last lines of the log, and the pid file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info};

use crate::scoreboard::ExitCause;
use crate::sys::signal::Signal;
use crate::sys::socket::Listener;

use super::standing::Fate;
use super::{Master, Outcome, StopReason, listeners, metrics_listener};

/// What remains of the wait for the workers when INT or QUIT cuts it short: gunicorn's number. A
/// worker that still loads the app has nothing to finish, and gets no more either.
const QUICK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long killed workers may take to disappear. One that hangs in the kernel must not keep the
/// master.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);

impl Master {
    pub(super) fn stop(mut self, reason: StopReason) -> Outcome {
        self.drop_upgrade_check();
        self.control.close();
        self.report_stop();
        self.fail_health_checks();
        let listeners = self.give_up_addresses();
        self.stop_workers(reason, &listeners);
        self.look_for_other_masters();
        // The end of the old master of an upgrade has opened it here.
        self.control.close();
        close_and_unlink(listeners);
        if !self.upgrade.is_under_way() {
            metrics_listener::unlink_unless(&self.generations.serving.service, None);
        }
        let status = match reason {
            StopReason::Graceful | StopReason::Quick => {
                info!("Shutting down: {}", self.name());
                0
            }
            StopReason::Failed(failure) => {
                error!("Shutting down: {}", self.name());
                error!("Reason: {}", failure.reason());
                failure.status()
            }
        };
        if let Some(file) = &self.identity.pid_file {
            file.remove();
        }
        self.call_on_exit();
        Outcome::Exit(status)
    }

    /// Tells the service manager. A service with another master does not stop: that master takes it
    /// over.
    fn report_stop(&mut self) {
        match self.upgrade.new_master() {
            Some(new) => self.reports.service_manager.hand_over(new),
            None if self.upgrade.has_parent() => {}
            None => self.reports.service_manager.stopping(),
        }
    }

    /// Removes the files of unix sockets first, so that no client connects to a socket that no
    /// process will accept from. The sockets stay until the workers have taken what the kernel has
    /// queued.
    fn give_up_addresses(&mut self) -> Vec<Arc<Listener>> {
        let candidate = self.generations.candidate.take().map(|mut generation| generation.give_up_listeners());
        let serving = self.generations.serving.give_up_listeners();
        let all = [serving, candidate.unwrap_or_default()].concat();
        self.look_for_other_masters();
        // During an upgrade the files belong to the other master as well.
        if !self.upgrade.is_under_way() {
            listeners::unlink_unless(&all, &[]);
        }
        all
    }

    /// Takes note if the other master of an upgrade has ended.
    fn look_for_other_masters(&mut self) {
        self.reap_new_master();
        self.promote_when_alone();
    }

    fn stop_workers(&mut self, reason: StopReason, listeners: &[Arc<Listener>]) {
        let graceful_timeout = Duration::from_secs(self.generations.serving.service.config.graceful_timeout);
        let until = Instant::now() + graceful_timeout;
        let goes_on = self.upgrade.new_master().is_some();
        self.workers.note_reason(if goes_on { ExitCause::Reload } else { ExitCause::Stop });
        match reason {
            StopReason::Graceful => self.workers.stop_all(until),
            StopReason::Quick => self.workers.stop_all_quickly(until),
            StopReason::Failed(_) => self.workers.kill_all(Fate::Discarded),
        }
        if reason != StopReason::Graceful {
            self.dirty.stop_all(Signal::Quit, Instant::now() + QUICK_TIMEOUT);
        }
        self.wait_for_workers(until, listeners);
        self.workers.kill_all(Fate::Killed);
        self.wait_for_workers(Instant::now() + REAP_TIMEOUT, listeners);
        self.stop_dirty_arbiters(until);
        // statsd is told of the last requests as well.
        let service = &self.generations.serving.service;
        self.reports.statsd.send(service, self.workers.own_scoreboard(), 0, Instant::now());
    }

    /// Ends the dirty arbiters of a start that has failed.
    pub(super) fn give_up_dirty_arbiters(&mut self) {
        self.dirty.stop_all(Signal::Quit, Instant::now() + QUICK_TIMEOUT);
        self.stop_dirty_arbiters(Instant::now());
    }

    /// Ends the dirty arbiters after the workers, whose last requests may call dirty apps.
    fn stop_dirty_arbiters(&mut self, until: Instant) {
        self.dirty.stop_all(Signal::Term, until.max(Instant::now() + QUICK_TIMEOUT));
        while !self.dirty.is_empty() {
            let now = Instant::now();
            self.dirty.settle(now);
            let Some(deadline) = self.dirty.deadline(now) else { return };
            self.waiter.wait(Some(deadline));
            while let Some(signal) = self.signals.next() {
                if matches!(signal, Signal::Int | Signal::Quit) {
                    self.dirty.stop_all(Signal::Quit, Instant::now() + QUICK_TIMEOUT);
                }
            }
        }
    }

    /// When every worker drains, the kernel's queue is empty. A client that connects from then on
    /// is refused, which is better than to wait for a server that ends. During an upgrade the other
    /// master still listens.
    fn refuse_newcomers(&self, listeners: &[Arc<Listener>]) {
        if !self.upgrade.is_under_way() && self.workers.have_drained() {
            listeners.iter().for_each(|listener| listener.stop_listening());
        }
    }

    fn wait_for_workers(&mut self, mut deadline: Instant, listeners: &[Arc<Listener>]) {
        let loaded_by = Instant::now() + QUICK_TIMEOUT;
        loop {
            self.refuse_newcomers(listeners);
            // The master stops already, so a failure to boot changes nothing.
            let _ = self.reap_workers();
            let now = Instant::now();
            if self.workers.is_empty() || now >= deadline {
                return;
            }
            let wake = self.workers.kill_overdue(now, loaded_by).into_iter().chain(self.service_manager_deadline(now));
            let wake = wake.fold(deadline, Instant::min);
            // A stop may take longer than the watchdog waits.
            self.reports.service_manager.send_watchdog_when_due(Instant::now());
            self.waiter.wait(Some(wake));
            while let Some(signal) = self.signals.next() {
                match signal {
                    Signal::Int | Signal::Quit => {
                        info!("Quick shutdown requested");
                        deadline = deadline.min(Instant::now() + QUICK_TIMEOUT);
                        self.workers.stop_all_quickly(deadline);
                        self.dirty.stop_all(Signal::Quit, deadline);
                    }
                    Signal::Usr1 => self.reopen_logs(),
                    // A second TERM does not hurry the stop: a service manager may send it to the
                    // whole group. All other signals come too late.
                    _ => {}
                }
            }
        }
    }
}

/// Closes the sockets, and removes the files of those that no other master listens on. Two masters
/// of an upgrade may be told to stop at once, and neither knows how far the other is. But each
/// closes its sockets before it tries to connect: so the last one cannot connect, and removes the
/// files.
fn close_and_unlink(listeners: Vec<Arc<Listener>>) {
    // The generations have given them up, so this list is their only owner.
    listeners.into_iter().filter_map(Arc::into_inner).for_each(Listener::close_and_unlink);
}
