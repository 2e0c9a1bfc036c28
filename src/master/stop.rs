//! The end: workers first, then the log's last lines and the pid file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info};

use crate::scoreboard::WorkerPhase;
use crate::sys::signal::Signal;
use crate::sys::socket::Listener;

use super::worker::{BootFailure, Fate, Worker};
use super::{Master, Outcome, listeners};

/// Why the master stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// TERM: requests in flight may finish.
    Graceful,
    /// INT or QUIT: at once.
    Quick,
    /// The application has never worked.
    Failed(BootFailure),
}

/// What is left of the wait for the workers after INT or QUIT cut it short: gunicorn's number. A worker that still loads the app has
/// nothing to finish and gets no more either.
const QUICK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long killed workers may take to disappear. One that hangs in the kernel must not keep the master.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);

impl Master {
    pub(super) fn halt(mut self, halt: StopReason) -> Outcome {
        self.tell_of_the_stop();
        self.drop_upgrade_check();
        self.fail_health_checks();
        let listeners = self.give_up_addresses();
        self.stop_workers(halt, &listeners);
        self.look_who_is_left();
        close_and_unlink(listeners);
        let status = match halt {
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
        if let Some(file) = &self.pid_file {
            file.remove();
        }
        self.tell_of_exit();
        Outcome::Exit(status)
    }

    /// A service with another master does not stop: it goes over to that one.
    fn tell_of_the_stop(&mut self) {
        match self.upgrade.new_master() {
            Some(new) => self.service_manager.hand_over(new),
            None if self.upgrade.has_parent() => {}
            None => self.service_manager.stopping(),
        }
    }

    /// The files of unix sockets first, so that nobody knocks at a door that will not be opened. The sockets stay until the
    /// workers have taken what the kernel has queued.
    fn give_up_addresses(&mut self) -> Vec<Arc<Listener>> {
        let candidate = self.candidate.take().map(|generation| generation.listeners);
        let serving = std::mem::take(&mut self.serving.listeners);
        let all = [serving, candidate.unwrap_or_default()].concat();
        self.look_who_is_left();
        // During an upgrade the other master owns the files as well.
        if !self.upgrade.is_under_way() {
            listeners::unlink_unless(&all, &[]);
        }
        all
    }

    /// The other master of an upgrade may have gone meanwhile.
    fn look_who_is_left(&mut self) {
        self.reap_new_master();
        self.promote_when_alone();
    }

    fn stop_workers(&mut self, halt: StopReason, listeners: &[Arc<Listener>]) {
        let until = Instant::now() + Duration::from_secs(self.serving.config.graceful_timeout);
        match halt {
            StopReason::Graceful => self.workers.iter_mut().for_each(|worker| worker.stop(Signal::Term, until)),
            StopReason::Quick => self.end_workers_quickly(until),
            StopReason::Failed(_) => self.workers.iter_mut().for_each(|worker| worker.kill(Fate::Discarded)),
        }
        self.wait_for_workers(until, listeners);
        self.workers.iter_mut().for_each(|worker| worker.kill(Fate::Killed));
        self.wait_for_workers(Instant::now() + REAP_TIMEOUT, listeners);
    }

    /// A worker that still loads the app has nothing to finish.
    fn end_workers_quickly(&mut self, until: Instant) {
        for worker in &mut self.workers {
            if worker.is_booting() {
                worker.kill(Fate::Discarded);
            } else {
                worker.stop(Signal::Quit, until);
            }
        }
    }

    /// Once every worker drains, the kernel's queue is empty and whoever comes now is better refused than left to wait for a
    /// server that will not come. During an upgrade the other master goes on listening.
    fn refuse_newcomers(&self, listeners: &[Arc<Listener>]) {
        let drains = |worker: &Worker| worker.row.state() == WorkerPhase::Draining;
        if !self.upgrade.is_under_way() && self.workers.iter().all(drains) {
            listeners.iter().for_each(|listener| listener.stop_listening());
        }
    }

    /// Kills workers whose own time to end is up, and after `loaded_by` those that still load the app: TERM has not unwound the import.
    /// Says when to look again.
    fn kill_the_overdue(&mut self, now: Instant, loaded_by: Instant) -> Option<Instant> {
        for worker in &mut self.workers {
            worker.kill_when_due(now);
            if worker.is_booting() && now >= loaded_by {
                worker.kill(Fate::Discarded);
            }
        }
        let loads = self.workers.iter().any(|worker| worker.is_booting() && worker.end().is_some());
        self.workers.iter().filter_map(Worker::end).chain(loads.then_some(loaded_by)).min()
    }

    fn wait_for_workers(&mut self, mut deadline: Instant, listeners: &[Arc<Listener>]) {
        let loaded_by = Instant::now() + QUICK_TIMEOUT;
        loop {
            self.refuse_newcomers(listeners);
            // No worker is meant to serve any more, so none can fail to.
            let _ = self.reap_workers();
            let now = Instant::now();
            if self.workers.is_empty() || now >= deadline {
                return;
            }
            let wake = self.kill_the_overdue(now, loaded_by).into_iter().chain(self.watchdog_deadline(now));
            let wake = wake.fold(deadline, Instant::min);
            self.keep_watchdog_quiet_while_stopping();
            self.waiter.wait(Some(wake), &self.wakeup_receiver);
            while let Some(signal) = self.signals.next() {
                match signal {
                    Signal::Int | Signal::Quit => {
                        info!("Quick shutdown requested");
                        deadline = deadline.min(Instant::now() + QUICK_TIMEOUT);
                        self.end_workers_quickly(deadline);
                    }
                    Signal::Usr1 => self.reopen_logs(),
                    // A second TERM is not "hurry": a service manager may send it to the whole group. The rest is too late.
                    _ => {}
                }
            }
        }
    }
}

/// Two masters of an upgrade may be told to stop at once, and neither sees how far the other is. But each closes its sockets before
/// it knocks, so the one that is last finds nobody there, and removes the files.
fn close_and_unlink(listeners: Vec<Arc<Listener>>) {
    // The workers' seats and other generations are gone, so nothing else holds them.
    listeners.into_iter().filter_map(Arc::into_inner).for_each(Listener::close_and_unlink);
}
