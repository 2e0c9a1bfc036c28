//! The workers together: forked when one is missing, told to stop when there is one too many, watched, and reaped.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use log::{error, info};

use crate::python::hooks::Hooks;
use crate::scoreboard::{MAX_WORKERS, Row, WorkerPhase};
use crate::settings::Config;
use crate::sys::clock::monotonic_ms;
use crate::sys::fork::Forked;
use crate::sys::process::{self, End, Pid};
use crate::sys::signal::{Blocked, Signal, block_all};
use crate::sys::socket::Listener;
use crate::tls::Tls;
use crate::worker_init::WorkerInit;

use super::generation::Generation;
use super::jitter::up_to;
use super::upgrade::restore;
use super::worker::{BootFailure, Fate, Worker};
use super::{Master, Outcome, Phase};

/// The most workers of one generation: half of the scoreboard, because a reload needs as many again.
pub(super) const MOST_WORKERS: usize = MAX_WORKERS.get() / 2;

/// What a worker collects from the fork on (see [`WorkerInit::signals`]): all that the master handles but for the end of children, which is
/// the application's to know, and the verdict on a worker that is stuck.
const WORKER_SIGNALS: [Signal; 11] = [
    Signal::Term,
    Signal::Int,
    Signal::Quit,
    Signal::Abrt,
    Signal::Usr1,
    Signal::Hup,
    Signal::Ttin,
    Signal::Ttou,
    Signal::Usr2,
    Signal::Winch,
    Signal::Rtmin,
];

/// What the child of a fork takes with it.
pub(super) struct ForkedChild {
    number: usize,
    age: u64,
    config: Arc<Config>,
    hooks: Hooks,
    listeners: Vec<Arc<Listener>>,
    tls: Option<Tls>,
    slot: usize,
    row: Row,
    max_requests: u64,
    held: Blocked,
}

impl ForkedChild {
    /// A worker says what concerns itself; what concerns others it only reads.
    fn give_up_shared_memory(&self) -> io::Result<()> {
        self.row.give_up_others()?;
        self.tls.as_ref().map_or(Ok(()), Tls::give_up_writing)
    }
}

/// A generation that lacks a worker, and what that worker needs.
struct SpawnRequest {
    generation: u64,
    config: Arc<Config>,
    hooks: Hooks,
    listeners: Vec<Arc<Listener>>,
    tls: Option<Tls>,
    slot: usize,
}

impl Master {
    /// Forks what is missing. Some only in the new worker.
    pub(super) fn maintain_worker_count(&mut self) -> Option<ForkedChild> {
        let before = self.workers.len();
        while let Some(request) = self.next_spawn() {
            if let Some(child) = self.spawn_worker(request) {
                return Some(child);
            }
        }
        if self.workers.len() != before {
            self.tell_of_workers();
        }
        None
    }

    pub(super) fn generations(&self) -> impl Iterator<Item = &Generation> {
        [Some(&self.serving), self.candidate.as_ref()].into_iter().flatten()
    }

    fn next_spawn(&self) -> Option<SpawnRequest> {
        let now = Instant::now();
        let lacking = self.generations().find(|generation| {
            let present = self.workers.iter().filter(|worker| worker.counts_for(generation.number)).count();
            present < self.places(generation) && generation.backoff.until(now).is_none()
        })?;
        Some(SpawnRequest {
            generation: lacking.number,
            config: Arc::clone(&lacking.config),
            hooks: lacking.hooks.clone(),
            listeners: lacking.listeners.clone(),
            tls: lacking.tls.clone(),
            slot: self.free_slot(lacking.number),
        })
    }

    /// The lowest slot that no worker of this generation fills, but for those that wait for their replacement.
    fn free_slot(&self, generation: u64) -> usize {
        let is_free = |slot: &usize| !self.workers.iter().any(|it| it.counts_for(generation) && it.slot == *slot);
        (0..).find(is_free).unwrap_or_default()
    }

    /// How many workers a generation may have now. With `reload_surge` a candidate boots its first batch only, and its
    /// successors wait until old workers have made room.
    fn places(&self, generation: &Generation) -> usize {
        let is_candidate = generation.number != self.serving.number;
        if generation.takes_over_whole() {
            return generation.wanted;
        }
        if is_candidate {
            return generation.surge();
        }
        let older = self.workers.iter().filter(|worker| worker.generation < generation.number).count();
        match older {
            0 => generation.wanted,
            older => (generation.wanted + generation.surge()).saturating_sub(older).min(generation.wanted),
        }
    }

    /// Some in the child. A fork that fails is tried again later.
    fn spawn_worker(&mut self, request: SpawnRequest) -> Option<ForkedChild> {
        let Some(number) = self.free_row() else {
            self.fork_failed(request.generation, &io::Error::other("too many workers are still finishing"));
            return None;
        };
        let row = self.scoreboard.row(number);
        row.clear();
        if let Err(raised) = request.hooks.pre_fork(|| self.shown(), self.age + 1) {
            self.fork_refused(request.generation, &raised);
            return None;
        }
        let max_requests = with_jitter(&request.config);
        // No signal of the child may reach our pipe, which it shares until it has one of its own.
        match block_all().map(|held| (held, super::fork())) {
            Ok((held, Ok(Forked::Child))) => {
                let SpawnRequest { config, hooks, listeners, tls, slot, .. } = request;
                let age = self.age + 1;
                Some(ForkedChild { number, age, config, hooks, listeners, tls, slot, row, max_requests, held })
            }
            Ok((held, Ok(Forked::Parent(pid)))) => {
                restore(held);
                self.add_worker(pid, number, row, request);
                None
            }
            Ok((held, Err(error))) => {
                restore(held);
                self.fork_failed(request.generation, &error);
                None
            }
            Err(error) => {
                self.fork_failed(request.generation, &error);
                None
            }
        }
    }

    fn add_worker(&mut self, pid: Pid, number: usize, row: Row, request: SpawnRequest) {
        self.age += 1;
        if let Err(raised) = request.hooks.forked(pid) {
            error!("{raised}");
        }
        self.workers.push(Worker::new(pid, number, request.slot, row, request.generation, request.config));
    }

    fn fork_failed(&mut self, generation: u64, error: &io::Error) {
        error!("Can't fork a worker: {error}");
        self.backoff_failed(generation);
    }

    pub(super) fn backoff_failed(&mut self, number: u64) {
        if let Some(generation) = self.generation_mut(number) {
            generation.backoff.failed(Instant::now());
        }
    }

    fn generation_mut(&mut self, number: u64) -> Option<&mut Generation> {
        [Some(&mut self.serving), self.candidate.as_mut()]
            .into_iter()
            .flatten()
            .find(|generation| generation.number == number)
    }

    /// The lowest free number.
    fn free_row(&self) -> Option<usize> {
        (0..MAX_WORKERS.get()).find(|number| self.workers.iter().all(|worker| worker.number != *number))
    }

    /// In the child: what it drops is everything that leaves with `self`, what it keeps is its seat.
    pub(super) fn become_worker(self, child: ForkedChild) -> Outcome {
        info!("Booting worker with pid: {}", process::getpid());
        let confined = child.give_up_shared_memory();
        let signals = self.signals.replace_after_fork(&WORKER_SIGNALS);
        restore(child.held);
        match confined.and(signals) {
            Ok(signals) => Outcome::Worker(WorkerInit {
                number: child.number,
                age: child.age,
                config: child.config,
                hooks: child.hooks,
                listeners: child.listeners,
                tls: child.tls,
                slot: child.slot,
                row: child.row,
                ppid: self.pid,
                wakeup: self.wakeup,
                max_requests: child.max_requests,
                channel: self.channel,
                preloaded: self.preloaded,
                signals,
            }),
            Err(error) => {
                error!("{error}");
                Outcome::Exit(BootFailure::Worker.status())
            }
        }
    }

    /// Acts on what the workers say of themselves.
    pub(super) fn note_states(&mut self) {
        let mut ready = Vec::new();
        for worker in &mut self.workers {
            let state = worker.row.state();
            if worker.seen == WorkerPhase::Booting && state != WorkerPhase::Booting {
                ready.push(worker.generation);
                // Until now there was no deadline for the sleep to have missed, however long it was.
                worker.forgiven_at = monotonic_ms();
            }
            match state {
                WorkerPhase::Retiring if worker.fate == Fate::Serving => worker.fate = Fate::Retiring,
                // Somebody else has told it to finish.
                WorkerPhase::Draining => worker.note_drain(),
                _ => {}
            }
            worker.seen = state;
        }
        for generation in ready {
            if self.phase == Phase::Starting {
                self.phase = Phase::Proven;
                self.serving.take_over(self.upgrade.is_under_way());
            }
            if let Some(generation) = self.generation_mut(generation) {
                generation.backoff.succeeded();
            }
        }
        self.open_doors();
    }

    /// During an upgrade not at all: which of the two masters stays is open, and only one of them has the new sockets.
    fn open_doors(&mut self) {
        let number = self.serving.number;
        let serves = |worker: &Worker| worker.generation == number && worker.is_serving();
        if !self.upgrade.is_under_way() && self.workers.iter().any(serves) {
            self.serving.open_doors();
        }
    }

    /// Takes note of every child that has ended. Breaks when the very first boot failed.
    pub(super) fn reap_workers(&mut self) -> ControlFlow<BootFailure> {
        if let Some(failure) = self.doomed.take() {
            return ControlFlow::Break(failure);
        }
        let mut at = 0;
        while at < self.workers.len() {
            match process::reap(self.workers[at].pid) {
                Some(end) => {
                    let worker = self.workers.remove(at);
                    self.tell_of_end(&worker);
                    let settled = self.worker_ended(&worker, end);
                    // A dead worker must not look idle to its siblings.
                    worker.row.clear();
                    settled?;
                }
                None => at += 1,
            }
        }
        self.reap_new_master();
        let ours = [self.upgrade.new_master(), self.upgrade.check()];
        process::reap_orphans(|pid| ours.contains(&Some(pid)) || self.workers.iter().any(|worker| worker.pid == pid));
        ControlFlow::Continue(())
    }

    fn worker_ended(&mut self, worker: &Worker, end: End) -> ControlFlow<BootFailure> {
        if worker.fate == Fate::Discarded {
            return ControlFlow::Continue(());
        }
        self.oom_watch.log_end(worker, end);
        if !worker.failed_to_boot() {
            return ControlFlow::Continue(());
        }
        if self.candidate.as_ref().is_some_and(|candidate| candidate.number == worker.generation) {
            self.give_up_candidate(worker.pid);
            return ControlFlow::Continue(());
        }
        self.backoff_failed(worker.generation);
        let too_slow = worker.overdue.map(|_| BootFailure::Worker);
        match BootFailure::from_end(end).or(too_slow) {
            Some(failure) if self.phase == Phase::Starting => ControlFlow::Break(failure),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Tells workers to stop of which there are too many: those that have not booted yet, the youngest first; then those that
    /// wait for their replacement; then the oldest, as gunicorn. Never below the count of workers that serve, to which those of
    /// an older generation belong until they are replaced.
    pub(super) fn stop_surplus(&mut self) {
        let (number, wanted) = (self.serving.number, self.serving.wanted);
        while self.workers.iter().filter(|worker| worker.counts_for(number)).count() > wanted
            && let Some(youngest) =
                self.workers.iter_mut().rfind(|worker| worker.counts_for(number) && worker.is_booting())
        {
            youngest.retire();
        }
        let serves = |worker: &Worker| worker.is_serving() && worker.generation <= number;
        while self.workers.iter().filter(|worker| serves(worker)).count() > wanted {
            let retiring = self.workers.iter().position(|worker| serves(worker) && worker.fate == Fate::Retiring);
            let oldest = self.workers.iter().position(serves);
            match retiring.or(oldest) {
                Some(at) => self.workers[at].retire(),
                None => return,
            }
        }
    }

    /// Tells all workers of a generation, and of those before it, to finish.
    pub(super) fn stop_generation(&mut self, number: u64) {
        for worker in self.workers.iter_mut().filter(|worker| worker.generation <= number) {
            worker.retire();
        }
    }

    /// Ends workers that have run out of time.
    pub(super) fn check_heartbeats(&mut self) {
        self.notice_lost_time();
        let (now, now_ms) = (Instant::now(), monotonic_ms());
        for worker in &mut self.workers {
            worker.kill_when_due(now);
            match worker.fate {
                Fate::Serving | Fate::Retiring | Fate::Stopping { .. } => worker.abort_when_overdue(now, now_ms),
                Fate::Aborted { .. } | Fate::Killed | Fate::Discarded => {}
            }
        }
    }

    /// We were stopped ourselves, and the workers perhaps with us: what they could not do meanwhile does not count.
    pub(super) fn forgive_heartbeats(&mut self) {
        let now = monotonic_ms();
        for worker in &mut self.workers {
            worker.forgiven_at = now;
        }
    }
}

/// `max_requests` with up to `max_requests_jitter` added, drawn here so that the workers do not retire all at once.
fn with_jitter(config: &Config) -> u64 {
    match config.max_requests {
        0 => 0,
        limit => limit.saturating_add(up_to(config.max_requests_jitter)),
    }
}
