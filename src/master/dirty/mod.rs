//! Dirty workers. For each set of settings there is one dirty arbiter. It is gunicorn's own code
//! and supervises the dirty workers; the master supervises the arbiter.
//!
//! `pool` is one arbiter with the folder of its sockets; `query` and `wire` ask it. A reload that
//! changes none of an arbiter's own settings keeps the arbiter, and tells it to replace its
//! workers. Otherwise the new generation gets a pool of its own, and the old pool ends with the
//! last worker that calls it.

mod folder;
mod pool;
mod query;
mod wire;

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::python::hooks::Hooks;
use crate::settings::Config;
use crate::sys::fork::Forked;
use crate::sys::process::Pid;
use crate::sys::signal::{Blocked, Signal, block_all};
use crate::worker_init::DirtyArbiterInit;

use self::pool::Pool;
pub(super) use self::query::Query;
pub(super) use self::wire::Request;
use super::in_place::ADOPTED;
use super::inheritance::AdoptedPool;
use super::spawn::WORKER_SIGNALS;
use super::{BootFailure, Departure, Master, Outcome, fork, unblock};

/// The pools, the youngest last.
#[derive(Default)]
pub(super) struct DirtyPools {
    pools: Vec<Pool>,
}

/// The child of a fork that is to be an arbiter, whose signals are still blocked.
pub(super) struct ForkedArbiter {
    pool: usize,
    blocked: Blocked,
}

impl DirtyPools {
    /// Gives the workers of a generation a pool, if their settings ask for one: that of the
    /// generation `serving`, or a new one.
    ///
    /// # Errors
    /// A sentence: there is no room for a folder.
    pub fn join(
        &mut self,
        generation: u64,
        config: &Arc<Config>,
        hooks: &Hooks,
        serving: Option<u64>,
        is_second: bool,
    ) -> Result<(), String> {
        if !config.dirty.is_on() {
            return Ok(());
        }
        let current = serving.and_then(|serving| self.pools.iter_mut().find(|pool| pool.serves(serving)));
        match current.filter(|pool| !pool.differs(config)) {
            Some(pool) => pool.add_user(generation),
            None => self.pools.push(Pool::new(generation, config, hooks, is_second)?),
        }
        Ok(())
    }

    /// Takes a generation that will not serve off its pool.
    pub fn leave(&mut self, generation: u64) {
        self.pools.iter_mut().for_each(|pool| pool.remove_user(generation));
    }

    /// To be called when a generation takes over. If it shares an arbiter with the generation
    /// before, the arbiter is told to replace its workers.
    pub fn reload(&mut self, generation: u64, config: &Arc<Config>, hooks: &Hooks) {
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.serves(generation))
            && pool.take_over(config, hooks)
        {
            pool.tell(Signal::Hup);
        }
    }

    /// Where the workers of a generation find their arbiter.
    pub fn socket(&self, generation: u64) -> Option<PathBuf> {
        self.pools.iter().find(|pool| pool.serves(generation)).map(Pool::socket)
    }

    /// The arbiter of a generation, if one runs.
    pub fn arbiter(&self, generation: u64) -> Option<Pid> {
        self.pools.iter().find(|pool| pool.serves(generation))?.pid()
    }

    pub fn has(&self, pid: Pid) -> bool {
        self.pools.iter().any(|pool| pool.pid() == Some(pid))
    }

    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// The arbiters that run, each with its folder, for the next program in this process.
    pub fn inheritance(&self) -> Vec<AdoptedPool> {
        let running = self.pools.iter().filter_map(|pool| Some((pool.pid()?, pool.folder())));
        running.map(|(pid, folder)| AdoptedPool { pid, folder: folder.to_owned() }).collect()
    }

    pub fn tell_all(&self, signal: Signal) {
        self.pools.iter().for_each(|pool| pool.tell(signal));
    }

    /// Tells every arbiter to end within its grace time, and by `at_latest`. TERM lets it finish
    /// its actions, QUIT does not.
    pub fn stop_all(&mut self, signal: Signal, at_latest: Instant) {
        let now = Instant::now();
        for pool in &mut self.pools {
            pool.stop(signal, at_latest.min(now + pool.grace()));
        }
    }

    /// Moves all pools on, and forgets those that are over.
    pub fn settle(&mut self, now: Instant) {
        self.pools.iter_mut().for_each(|pool| pool.settle(now));
        self.pools.retain(|pool| !pool.is_over());
    }

    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.pools.iter().filter_map(|pool| pool.deadline(now)).min()
    }
}

impl Master {
    /// Takes the pools of the earlier program over, for the workers of that program.
    pub(super) fn adopt_dirty_pools(&mut self, adopted: Vec<AdoptedPool>) {
        let service = &self.generations.serving.service;
        let of = |it: AdoptedPool| Pool::adopted(it.folder, it.pid, ADOPTED, &service.config, &service.hooks);
        let made: Vec<Pool> = adopted.into_iter().map(of).collect();
        // In front: a pool of this program is younger.
        self.dirty.pools.splice(0..0, made);
    }

    /// Moves the pools on by what has happened since the last turn.
    pub(super) fn settle_dirty_pools(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        let is_there = |generation: u64| {
            self.generations.get(generation).is_some() || self.workers.iter().any(|it| it.generation == generation)
        };
        self.dirty.pools.iter_mut().for_each(|pool| pool.keep_users(is_there));
        self.dirty.settle(Instant::now());
    }

    /// Forks the arbiters that are missing. Breaks in the child of each fork.
    pub(super) fn spawn_dirty_arbiters(&mut self) -> ControlFlow<Departure> {
        let now = Instant::now();
        while let Some(at) = self.dirty.pools.iter().position(|pool| pool.is_due(now)) {
            // As for a worker: the child shares our signal pipe until it has its own.
            let listening = self.dirty.pools[at].listen();
            match listening.and_then(|()| block_all()).map(|blocked| (blocked, fork())) {
                Ok((blocked, Ok(Forked::Child))) => {
                    return ControlFlow::Break(Departure::DirtyArbiter(ForkedArbiter { pool: at, blocked }));
                }
                Ok((blocked, forked)) => {
                    unblock(blocked);
                    match forked {
                        Ok(Forked::Parent(pid)) => self.dirty.pools[at].started(pid),
                        Ok(Forked::Child) => unreachable!("it has left above"),
                        Err(error) => self.dirty.pools[at].not_started(&error),
                    }
                }
                Err(error) => self.dirty.pools[at].not_started(&error),
            }
        }
        ControlFlow::Continue(())
    }

    /// In the child: keeps what an arbiter needs, and drops the rest of the master with `self`. The
    /// listeners go too, so that their ports are free when the server has ended.
    pub(super) fn become_dirty_arbiter(mut self, child: ForkedArbiter) -> Outcome {
        let mut pool = self.dirty.pools.swap_remove(child.pool);
        let listener = pool.take_listener();
        let signals = self.signals.replace_after_fork(&WORKER_SIGNALS);
        unblock(child.blocked);
        match signals.and_then(|signals| Ok((signals, listener.ok_or(ErrorKind::NotConnected)?))) {
            Ok((signals, listener)) => Outcome::DirtyArbiter(DirtyArbiterInit {
                config: Arc::clone(pool.config()),
                hooks: pool.hooks().clone(),
                folder: pool.folder().to_owned(),
                listener,
                pid_file: pool.pid_file().to_owned(),
                ppid: self.identity.pid,
                signals,
            }),
            Err(error) => {
                log::error!("{error}");
                Outcome::Exit(BootFailure::Worker.status())
            }
        }
    }

    /// The arbiter of the generation that serves, if one runs.
    pub(super) fn dirty_arbiter(&self) -> Option<Pid> {
        self.dirty.arbiter(self.generations.serving.number)
    }
}
