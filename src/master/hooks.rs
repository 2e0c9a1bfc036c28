//! The operator's hooks in the master: what they see of the master, and what an exception in one
//! means.
//!
//! gunicorn's master dies of most exceptions in hooks, and its workers with it. Here an exception
//! costs what the hook was about (a start, a reload, a fork), never a service that runs.

use log::error;

use crate::python::hooks::{Raised, ServerHook, ServerState};
use crate::sys::process;

use super::generation::Generation;
use super::upgrade::Upgrade;
use super::worker::Worker;
use super::{Master, listeners};

impl Master {
    /// The master as hooks see it.
    pub(super) fn shown(&self) -> ServerState {
        let serving = &self.generations.serving;
        ServerState {
            pid: self.identity.pid,
            master_name: self.name(),
            old_master: self.upgrade.old_master(),
            new_master: self.upgrade.new_master(),
            num_workers: serving.wanted,
            worker_age: self.workers.forked(),
            listeners: listeners::shown(&serving.service),
            pid_file: self.identity.pid_file.as_ref().map(|file| file.path().to_owned()),
            dirty_arbiter_pid: self.dirty_arbiter(),
        }
    }

    /// Calls `nworkers_changed` of the generation that serves.
    pub(super) fn call_nworkers_changed(&self, old: usize) {
        let serving = &self.generations.serving;
        let outcome = serving.service.hooks.nworkers_changed(|| self.shown(), serving.wanted, Some(old));
        log_exception("nworkers_changed", outcome);
    }

    /// Calls the hooks of a reload, before anything of it is in force.
    pub(super) fn call_reload_hooks(&self, called: &Generation) -> Result<(), Raised> {
        let shown =
            || ServerState { num_workers: called.wanted, listeners: listeners::shown(&called.service), ..self.shown() };
        let hooks = &called.service.hooks;
        hooks.nworkers_changed(shown, called.wanted, Some(self.generations.serving.wanted))?;
        hooks.call(ServerHook::OnReload, shown)
    }

    /// Calls `child_exit` for a worker that was reaped.
    pub(super) fn call_child_exit(&self, worker: &Worker) {
        let generation = self.generations.get(worker.generation).unwrap_or(&self.generations.serving);
        log_exception("child_exit", generation.service.hooks.child_exit(|| self.shown(), worker.pid));
    }

    /// Calls `on_exit`, as the last thing that happens.
    pub(super) fn call_on_exit(&self) {
        let hooks = &self.generations.serving.service.hooks;
        log_exception("on_exit", hooks.call(ServerHook::OnExit, || self.shown()));
    }
}

/// The master as hooks see it while it starts.
pub(super) fn shown_at_start(upgrade: &Upgrade, num_workers: usize) -> ServerState {
    ServerState {
        pid: process::getpid(),
        master_name: upgrade.master_name(),
        old_master: upgrade.old_master(),
        new_master: None,
        num_workers,
        worker_age: 0,
        listeners: Vec::new(),
        pid_file: None,
        dirty_arbiter_pid: None,
    }
}

/// For a hook whose exception changes nothing.
fn log_exception(hook: &str, outcome: Result<(), Raised>) {
    if let Err(raised) = outcome {
        error!("Exception in {hook} hook\n{raised}");
    }
}
