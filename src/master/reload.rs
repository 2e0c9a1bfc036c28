//! HUP: a new generation is called, and takes over only when all of it serves. Until then, and if it fails, nothing changes.
//!
//! In order: read the settings, open new sockets, point the log, fork the new workers beside the old ones; when every new one is
//! ready, tell the old ones to finish and close the sockets that nobody needs. With `reload_surge` the first batch of new workers
//! decides, and the old ones then go one by one, each when a new one serves in its place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};

use crate::bootstrap::configure_logging;
use crate::scoreboard::WorkerPhase;
use crate::settings::Config;
use crate::sys::process::Pid;
use crate::sys::socket::Listener;

use super::generation::Generation;
use super::worker::Fate;
use super::worker_count::worker_count;
use super::{Master, Phase, listeners};

impl Master {
    /// Moves a reload on by what has happened meanwhile, and begins the next one.
    pub(super) fn settle_reload(&mut self) {
        self.promote_candidate_when_ready();
        self.replace_hopeless_candidate();
        if self.reload_wanted && self.candidate.is_none() {
            self.reload_wanted = false;
            match self.phase {
                Phase::Leaving(_) => info!("Reload ignored: the server is stopping"),
                Phase::Starting | Phase::Proven => self.begin_reload(),
            }
        }
    }

    fn begin_reload(&mut self) {
        info!("Hang up: {}", self.name());
        if !self.upgrade.has_parent() {
            self.service_manager.reloading();
        }
        match self.call_generation() {
            Ok(generation) => self.candidate = Some(generation),
            Err(reason) => error!("Reload failed, everything stays as it was: {reason}"),
        }
    }

    /// All that can fail before a worker is forked, the log last: what it changes is seen at once.
    fn call_generation(&mut self) -> Result<Generation, String> {
        let (config, hooks) = self.startup.reload()?;
        let tls = self.startup.load_tls(&config, &hooks)?;
        if config.preload_app && self.preloaded.is_none() {
            // What kills the process that imports it, or hangs in it, must not meet the one that all depends on.
            warn!("preload_app takes effect with the next start or upgrade. Until then each worker loads the app.");
        }
        let workers = worker_count(&config);
        let open = self.listeners_for(&config, workers)?;
        let called = Generation::new(self.next_generation_number(), config, hooks, open, tls, workers);
        configure_logging(&called.config, &called.hooks).inspect_err(|_| self.take_back(&called))?;
        if !same(&called.listeners, &self.serving.listeners) {
            info!("Listening at: {} ({})", listeners::names(&called.listeners, &called.config), self.pid);
        }
        let told = self.tell_of_reload(&called).inspect_err(|_| self.take_back(&called));
        told.map_err(|raised| raised.to_string())?;
        Ok(called)
    }

    /// A generation will not serve: its sockets and its log go.
    fn take_back(&self, generation: &Generation) {
        listeners::unlink_unless(&generation.listeners, &self.serving.listeners);
        if let Err(reason) = configure_logging(&self.serving.config, &self.serving.hooks) {
            error!("{reason}");
        }
    }

    fn listeners_for(&self, config: &Config, workers: usize) -> Result<Vec<Arc<Listener>>, String> {
        // The service manager's sockets stay, whatever `bind` says.
        if self.upgrade.by_systemd() {
            return Ok(self.serving.listeners.clone());
        }
        listeners::open_for_reload(config, workers, &self.serving.listeners)
    }

    fn promote_candidate_when_ready(&mut self) {
        let Some(candidate) = &self.candidate else { return };
        let ready = self.workers.iter().filter(|worker| worker.generation == candidate.number && worker.is_serving());
        if ready.count() < candidate.surge() {
            return;
        }
        let Some(candidate) = self.candidate.take() else { return };
        debug!("generation {} serves", candidate.number);
        let old = std::mem::replace(&mut self.serving, candidate);
        self.serving.take_over(old.config.defer_accept);
        match self.serving.takes_over_whole() {
            true => self.stop_generation(old.number),
            false => self.replace_step_by_step(old.number),
        }
        if !self.upgrade.is_under_way() {
            listeners::unlink_unless(&old.listeners, &self.serving.listeners);
        }
        self.move_pid_file();
    }

    /// The old workers serve on, until the surplus of serving workers says that one can go.
    fn replace_step_by_step(&mut self, old: u64) {
        let old = self.workers.iter_mut().filter(|worker| worker.generation <= old && worker.fate == Fate::Serving);
        for worker in old {
            match worker.is_booting() {
                true => worker.kill(Fate::Discarded),
                false => worker.fate = Fate::Retiring,
            }
        }
    }

    /// A worker of the candidate ended before it served: its generation is not fit to take over.
    pub(super) fn give_up_candidate(&mut self, culprit: Pid) {
        error!(
            "Reload failed: worker (pid:{culprit}) ended before it served. The old workers go on with the old settings."
        );
        self.dismiss_candidate();
    }

    /// A HUP that waits behind a generation that has been booting for longer than `timeout` takes its place: it may
    /// bring the cure for what that one hangs in.
    fn replace_hopeless_candidate(&mut self) {
        let now = Instant::now();
        if self.reload_wanted && self.candidate_patience().is_some_and(|until| until <= now) {
            error!("Reload failed: the new workers do not get ready. The next reload takes their place.");
            self.dismiss_candidate();
        }
    }

    pub(super) fn dismiss_candidate(&mut self) {
        let Some(candidate) = self.candidate.take() else { return };
        for worker in self.workers.iter_mut().filter(|worker| worker.generation == candidate.number) {
            match worker.row.state() {
                WorkerPhase::Booting => worker.kill(Fate::Discarded),
                _ => worker.retire(),
            }
        }
        self.take_back(&candidate);
    }

    /// When the loop must look at a waiting HUP again.
    pub(super) fn reload_deadline(&self) -> Option<Instant> {
        self.candidate_patience().filter(|_| self.reload_wanted)
    }

    fn candidate_patience(&self) -> Option<Instant> {
        let candidate = self.candidate.as_ref()?;
        match candidate.config.timeout {
            0 => None,
            seconds => candidate.since.checked_add(Duration::from_secs(seconds)),
        }
    }

    fn next_generation_number(&mut self) -> u64 {
        self.generations_called += 1;
        self.generations_called
    }
}

fn same(one: &[Arc<Listener>], other: &[Arc<Listener>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}
