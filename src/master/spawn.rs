//! Forking the workers that are missing.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use log::{error, info};

use crate::python::hooks::Raised;
use crate::scoreboard::{AskedLevel, Row};
use crate::service::Service;
use crate::settings::Config;
use crate::sys::failure_note::FailureNote;
use crate::sys::fork::Forked;
use crate::sys::process;
use crate::sys::signal::{Blocked, Signal, block_all};
use crate::tls::Tls;
use crate::worker_init::{MasterTies, WorkerInit};

use super::exit_reason::BootFailure;
use super::jitter::up_to;
use super::worker::Worker;
use super::{Departure, Master, Outcome, Phase, StopReason, fork, unblock};

/// The signals that a worker collects from the fork on (see [`WorkerInit::signals`]): those of the
/// master without CHLD, which belongs to the application's own children, and with ABRT, which the
/// master sends to a worker that hangs.
pub(super) const WORKER_SIGNALS: [Signal; 11] = [
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

/// A worker that a generation lacks, with what its process takes along.
struct SpawnRequest {
    generation: u64,
    service: Arc<Service>,
    slot: usize,
    /// The number of its row.
    number: usize,
    row: Row,
    age: u64,
    max_requests: u64,
    asked_level: Arc<AskedLevel>,
    failure_note: Option<Arc<FailureNote>>,
}

/// The child of a fork, whose signals are still blocked.
pub(super) struct ForkedChild {
    request: SpawnRequest,
    blocked: Blocked,
}

impl SpawnRequest {
    /// In the child: from now on the process can write only to its own row of the shared memory,
    /// and reads the rest.
    fn give_up_shared_memory(&self) -> io::Result<()> {
        self.row.give_up_others()?;
        self.service.tls.as_ref().map_or(Ok(()), Tls::give_up_writing)
    }
}

impl Master {
    /// Forks the workers that are missing. Breaks in the child of each fork, and if the start has
    /// failed.
    pub(super) fn spawn_missing(&mut self) -> ControlFlow<Departure> {
        while let Some(request) = self.next_spawn() {
            self.spawn_worker(request)?;
        }
        ControlFlow::Continue(())
    }

    fn next_spawn(&mut self) -> Option<SpawnRequest> {
        let now = Instant::now();
        let (lacking, slot) = self.generations.next_vacancy(&self.workers.standings(), now)?;
        let (generation, service) = (lacking.number, Arc::clone(&lacking.service));
        let failure_note = lacking.failure_note.clone();
        let Some((number, row)) = self.workers.free_row() else {
            self.fork_failed(generation, &io::Error::other("too many workers are still finishing"));
            return self.next_spawn();
        };
        let max_requests = draw_max_requests(&service.config);
        let asked_level = Arc::new(AskedLevel::new(self.workers.scoreboard(), row.clone()));
        let age = self.workers.forked() + 1;
        Some(SpawnRequest { generation, service, slot, number, row, age, max_requests, asked_level, failure_note })
    }

    /// A fork that fails is tried again later.
    fn spawn_worker(&mut self, request: SpawnRequest) -> ControlFlow<Departure> {
        if let Err(raised) = request.service.hooks.pre_fork(|| self.shown(), request.age) {
            return self.fork_refused(request.generation, &raised);
        }
        // The child shares our signal pipe until it has its own, so none of its signals may arrive
        // before.
        match block_all().map(|blocked| (blocked, fork())) {
            Ok((blocked, Ok(Forked::Child))) => {
                return ControlFlow::Break(Departure::Worker(Box::new(ForkedChild { request, blocked })));
            }
            Ok((blocked, Ok(Forked::Parent(pid)))) => {
                unblock(blocked);
                self.add_worker(pid, request);
            }
            Ok((blocked, Err(error))) => {
                unblock(blocked);
                self.fork_failed(request.generation, &error);
            }
            Err(error) => self.fork_failed(request.generation, &error),
        }
        ControlFlow::Continue(())
    }

    fn add_worker(&mut self, pid: process::Pid, request: SpawnRequest) {
        let SpawnRequest { generation, service, slot, number, row, .. } = request;
        if let Err(raised) = service.hooks.forked(pid) {
            error!("{raised}");
        }
        self.workers.add(Worker::new(pid, number, slot, row, generation, Arc::clone(&service.config)));
    }

    fn fork_failed(&mut self, generation: u64, error: &io::Error) {
        error!("Can't fork a worker: {error}");
        self.backoff_failed(generation);
    }

    /// `pre_fork` raised: there is no fork. If no worker has served yet, the start has failed.
    fn fork_refused(&mut self, generation: u64, raised: &Raised) -> ControlFlow<Departure> {
        error!("Exception in pre_fork hook\n{raised}");
        if self.generations.is_candidate(generation) {
            error!("Reload failed: pre_fork raised. The old workers go on with the old settings.");
            self.dismiss_candidate(&format!("exception in pre_fork hook\n{raised}"));
            return ControlFlow::Continue(());
        }
        self.backoff_failed(generation);
        if self.phase == Phase::Starting {
            return ControlFlow::Break(Departure::Stop(StopReason::Failed(BootFailure::Worker)));
        }
        ControlFlow::Continue(())
    }

    pub(super) fn backoff_failed(&mut self, generation: u64) {
        if let Some(generation) = self.generations.get_mut(generation) {
            generation.backoff.failed(Instant::now());
        }
    }

    /// In the child: keeps what a worker needs, and drops the rest of the master with `self`.
    pub(super) fn become_worker(self, child: Box<ForkedChild>) -> Outcome {
        info!("Booting worker with pid: {}", process::getpid());
        let ForkedChild { request, blocked } = *child;
        let confined = request.give_up_shared_memory();
        let signals = self.signals.replace_after_fork(&WORKER_SIGNALS);
        unblock(blocked);
        let workers = self.generations.iter().map(|generation| generation.wanted).max().unwrap_or_default();
        let dirty_socket = self.dirty.socket(request.generation);
        match confined.and(signals) {
            Ok(signals) => Outcome::Worker(WorkerInit {
                service: request.service,
                age: request.age,
                slot: request.slot,
                workers,
                row: request.row,
                master: MasterTies {
                    pid: self.identity.pid,
                    wakeup: self.waiter.into_wakeup(),
                    asked_level: request.asked_level,
                    failure_note: request.failure_note,
                },
                max_requests: request.max_requests,
                channel: self.workers.into_channel(),
                dirty_socket,
                preloaded: self.generations.preloaded,
                signals,
            }),
            Err(error) => {
                error!("{error}");
                Outcome::Exit(BootFailure::Worker.status())
            }
        }
    }
}

/// `max_requests` with up to `max_requests_jitter` added, so that the workers do not retire all at
/// once.
fn draw_max_requests(config: &Config) -> u64 {
    match config.max_requests {
        0 => 0,
        limit => limit.saturating_add(up_to(config.max_requests_jitter)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_added_to_a_limit_and_never_makes_one() {
        let drawn = |max_requests, max_requests_jitter| {
            draw_max_requests(&Config { max_requests, max_requests_jitter, ..Config::default() })
        };
        assert_eq!((drawn(0, 100), drawn(7, 0)), (0, 7));
        assert!((0..100).all(|_| (7..=10).contains(&drawn(7, 3))));
        assert_eq!(drawn(u64::MAX, 5), u64::MAX);
    }
}
