//! HUP: a new generation is called, and takes over when all of it serves. Until then, and if it
//! fails, nothing changes.
//!
//! In order: the master reads the settings, opens new sockets, points the log, and forks the new
//! workers beside the old ones. When every new worker is ready, it tells the old ones to finish and
//! closes the sockets that no generation needs. With `reload_surge` the first batch of new workers
//! decides, and each old worker goes when a new one serves in its place.

use std::sync::Arc;
use std::time::Instant;

use log::{debug, error, info, warn};
use serde_json::json;

use crate::bootstrap::configure_logging;
use crate::python::loggers;
use crate::service::Service;
use crate::settings::Config;
use crate::sys::failure_note::FailureNote;
use crate::sys::process::End;
use crate::sys::socket::Listener;

use super::generation::Generation;
use super::worker::Worker;
use super::worker_count::{WorkerCount, worker_count};
use super::{Master, Phase, exit_reason, listeners, metrics_listener};

impl Master {
    /// Moves a reload on by what has happened since the last turn, and begins the next one.
    pub(super) fn settle_reload(&mut self) {
        self.promote_candidate_when_ready();
        if self.generations.is_candidate_hopeless(Instant::now()) {
            // The settings of the HUP that waits may mend what keeps the candidate from getting
            // ready.
            error!("Reload failed: the new workers do not get ready. The next reload takes their place.");
            self.dismiss_candidate("the new workers do not get ready");
        }
        if self.generations.is_reload_wanted() {
            self.end_hanging_check(Instant::now());
        }
        if self.upgrade.check().is_none() && self.generations.take_reload() {
            match self.phase {
                Phase::Leaving(_) => {
                    info!("Reload ignored: the server is stopping");
                    self.tell_reload(Err("Reload ignored: the server is stopping".to_owned()));
                }
                Phase::Starting | Phase::Proven => self.begin_reload(),
            }
        }
    }

    fn begin_reload(&mut self) {
        info!("Hang up: {}", self.name());
        if !self.upgrade.has_parent() {
            self.reports.service_manager.reloading();
        }
        match self.call_generation() {
            Ok(generation) if self.generations.loads_in_master && self.upgrade.is_alone() => {
                self.reload_in_place(&generation)
            }
            Ok(generation) => self.generations.candidate = Some(generation),
            Err(reason) => self.give_up_reload(&reason),
        }
    }

    /// The settings can be used, but only a new program loads the code of a preloaded application
    /// anew. That program reads the settings again, so what was `tried` is taken back.
    fn reload_in_place(&mut self, tried: &Generation) {
        self.take_back(tried);
        if !self.check_before_reload_in_place() {
            self.give_up_reload("no process can be started");
        }
    }

    /// Tells that a reload has failed before anything of it is in force.
    pub(super) fn give_up_reload(&mut self, reason: &str) {
        let said = format!("Reload failed, everything stays as it was: {reason}");
        self.workers.count_reload(false);
        error!("{said}");
        self.tell_reload(Err(said));
    }

    /// Does all that can fail before a worker is forked. The log comes late, because its change is
    /// visible at once.
    fn call_generation(&mut self) -> Result<Generation, String> {
        let (config, hooks) = self.startup.reload()?;
        let tls = self.startup.load_tls(&config, &hooks)?;
        if config.preload_app && !self.generations.loads_in_master {
            // The master does not load the app: an import may kill or hang its process, and every
            // worker depends on the master.
            warn!("preload_app takes effect with the next start or upgrade. Until then each worker loads the app.");
        }
        let WorkerCount { count, found_for } = worker_count(&config);
        let listeners = self.listeners_for(&config, count)?;
        let current = &self.generations.serving.service;
        let metrics = metrics_listener::open(&config, current.metrics.as_ref())
            .inspect_err(|_| listeners::unlink_unless(&listeners, &current.listeners))?;
        let mut called = self.generations.call(Service { config, hooks, listeners, metrics, tls }, count);
        self.keep_scale(&mut called);
        called.found_for = found_for;
        // Without the note the reason is in the log alone.
        called.failure_note = FailureNote::new().ok().map(Arc::new);
        let Service { config, hooks, .. } = &*called.service;
        let serving = Some(self.generations.serving.number);
        self.dirty
            .join(called.number, config, hooks, serving, self.upgrade.has_parent())
            .inspect_err(|_| self.take_back(&called))?;
        configure_logging(&called.service.config, &called.service.hooks).inspect_err(|_| self.take_back(&called))?;
        if !same(&called.service.listeners, &self.generations.serving.service.listeners) {
            info!("Listening at: {} ({})", listeners::names(&called.service), self.identity.pid);
        }
        let told = self.call_reload_hooks(&called).inspect_err(|_| self.take_back(&called));
        told.map_err(|raised| raised.to_string())?;
        Ok(called)
    }

    /// Undoes the call of a generation that will not serve: removes its sockets, and points the log
    /// back.
    fn take_back(&mut self, generation: &Generation) {
        self.dirty.leave(generation.number);
        let serving = &self.generations.serving.service;
        listeners::unlink_unless(&generation.service.listeners, &serving.listeners);
        metrics_listener::unlink_unless(&generation.service, Some(serving));
        if let Err(reason) = configure_logging(&serving.config, &serving.hooks) {
            error!("{reason}");
        }
        if let Some(level) = self.generations.serving.log_level {
            loggers::set_level(level);
        }
    }

    fn listeners_for(&self, config: &Config, workers: usize) -> Result<Vec<Arc<Listener>>, String> {
        let current = &self.generations.serving.service.listeners;
        // The service manager's sockets stay, whatever `bind` says.
        if self.upgrade.by_systemd() {
            return Ok(current.clone());
        }
        listeners::open_for_reload(config, workers, current)
    }

    fn promote_candidate_when_ready(&mut self) {
        let Some(old) = self.generations.promote_when_ready(&self.workers.standings()) else { return };
        self.generations.serving.failure_note = None;
        let serving = &self.generations.serving;
        debug!("generation {} serves", serving.number);
        serving.take_over(old.service.config.defer_accept);
        self.dirty.reload(serving.number, &serving.service.config, &serving.service.hooks);
        if serving.target().takes_over_whole() {
            self.workers.retire_up_to(old.number);
        } else {
            self.workers.replace_up_to(old.number);
        }
        if !self.upgrade.is_under_way() {
            listeners::unlink_unless(&old.service.listeners, &serving.service.listeners);
            metrics_listener::unlink_unless(&old.service, Some(&serving.service));
        }
        self.workers.count_reload(true);
        self.tell_reload(Ok(json!({"status": "reloaded", "generation": self.generations.serving.number})));
        if !self.upgrade.is_under_way() {
            self.open_control();
        }
        self.move_pid_file();
    }

    /// A worker of the candidate ended before it served: its generation cannot take over.
    pub(super) fn give_up_candidate(&mut self, worker: &Worker, end: End) {
        let culprit = worker.pid;
        error!(
            "Reload failed: worker (pid:{culprit}) ended before it served. The old workers go on with the old settings."
        );
        let how = exit_reason::said(worker, end);
        self.dismiss_candidate(&format!("worker (pid:{culprit}) {how} before it served"));
    }

    /// Ends the candidate's workers, and undoes what its call has changed. The clients that wait
    /// for the reload are told `why`, and the reason that a worker has left.
    pub(super) fn dismiss_candidate(&mut self, why: &str) {
        if let Some(candidate) = self.generations.candidate.take() {
            self.workers.count_reload(false);
            let reason = candidate.failure_note.as_ref().and_then(|note| note.read());
            let said = reason.map_or_else(String::new, |reason| format!("\n{}", reason.trim_end()));
            self.tell_reload(Err(format!("Reload failed, the old workers go on: {why}{said}")));
            self.workers.discard(candidate.number);
            self.take_back(&candidate);
        }
    }
}

fn same(one: &[Arc<Listener>], other: &[Arc<Listener>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}
