//! The operator's hooks in the master: what they are shown, and what becomes of the master when one raises.
//!
//! gunicorn's master dies of most exceptions in hooks, and its workers with it. Here an exception costs what the hook was about (a start,
//! a reload, a fork) and never a service that runs.

use std::time::{Duration, Instant};

use log::{debug, error};

use crate::python::hooks::{Raised, ServerHook, ServerState};
use crate::sys::process;

use super::generation::Generation;
use super::worker::{BootFailure, Worker};
use super::{Master, Phase, listeners};

/// gunicorn's loop turns once a second.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(1);

impl Master {
    /// The master as hooks see it.
    pub(super) fn shown(&self) -> ServerState {
        ServerState {
            pid: self.pid,
            master_name: self.name(),
            num_workers: self.serving.wanted,
            worker_age: self.age,
            listeners: listeners::shown(&self.serving.listeners, &self.serving.config),
            pid_file: self.pid_file.as_ref().map(|file| file.path().to_owned()),
        }
    }

    /// Calls `nworkers_changed` of the generation that serves.
    pub(super) fn tell_of_count(&self, old: usize) {
        let new = self.serving.wanted;
        note("nworkers_changed", self.serving.hooks.nworkers_changed(|| self.shown(), new, Some(old)));
    }

    /// Calls the hooks of a reload, before anything of it is in force.
    pub(super) fn tell_of_reload(&self, called: &Generation) -> Result<(), Raised> {
        let shown = || ServerState {
            num_workers: called.wanted,
            listeners: listeners::shown(&called.listeners, &called.config),
            ..self.shown()
        };
        called.hooks.nworkers_changed(shown, called.wanted, Some(self.serving.wanted))?;
        called.hooks.call(ServerHook::OnReload, shown)
    }

    /// Calls `child_exit` for a worker that was reaped.
    pub(super) fn tell_of_end(&self, worker: &Worker) {
        let generation = self.generations().find(|generation| generation.number == worker.generation);
        let hooks = &generation.unwrap_or(&self.serving).hooks;
        note("child_exit", hooks.child_exit(|| self.shown(), worker.pid));
    }

    /// Calls `on_exit`, the last thing that happens.
    pub(super) fn tell_of_exit(&self) {
        note("on_exit", self.serving.hooks.call(ServerHook::OnExit, || self.shown()));
    }

    /// `pre_fork` raised: there is no fork.
    pub(super) fn fork_refused(&mut self, generation: u64, raised: &Raised) {
        error!("Exception in pre_fork hook\n{raised}");
        if self.candidate.as_ref().is_some_and(|candidate| candidate.number == generation) {
            error!("Reload failed: pre_fork raised. The old workers go on with the old settings.");
            return self.dismiss_candidate();
        }
        self.backoff_failed(generation);
        if self.phase == Phase::Starting {
            self.doomed = Some(BootFailure::Worker);
        }
    }

    /// Tells statsd how many connections wait to be accepted, once in [`BACKLOG_INTERVAL`].
    pub(super) fn report_backlog(&mut self, now: Instant) {
        if self.backlog_deadline(now).is_none_or(|due| due > now) {
            return;
        }
        self.backlog_reported = Some(now);
        let waiting: u64 = self.serving.listeners.iter().filter_map(|listener| listener.waiting()).map(u64::from).sum();
        self.serving.hooks.metric("socket backlog", "gunicorn.backlog", waiting, "histogram");
    }

    /// When that is due next, if ever.
    pub(super) fn backlog_deadline(&self, now: Instant) -> Option<Instant> {
        let wanted = self.serving.config.enable_backlog_metric && self.serving.hooks.write_logs();
        wanted.then(|| self.backlog_reported.map_or(now, |last| last + BACKLOG_INTERVAL))
    }

    /// Logs how many workers there are, where statsd is told as well.
    pub(super) fn tell_of_workers(&self) {
        let count = self.workers.len();
        let text = format!("{count} workers");
        if !self.serving.hooks.metric(&text, "gunicorn.workers", count as u64, "gauge") {
            debug!("{text}");
        }
    }
}

/// The master as hooks see it while it starts.
pub(super) fn shown_at_start(master_name: &'static str, num_workers: usize) -> ServerState {
    let pid = process::getpid();
    ServerState { pid, master_name, num_workers, worker_age: 0, listeners: Vec::new(), pid_file: None }
}

/// Calls a hook whose exception changes nothing.
fn note(hook: &str, outcome: Result<(), Raised>) {
    if let Err(raised) = outcome {
        error!("Exception in {hook} hook\n{raised}");
    }
}
