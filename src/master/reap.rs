//! What the master concludes from its workers' phases and ends.

use std::ops::ControlFlow;
use std::time::Instant;

use log::warn;

use crate::sys::process::{self, End};

use super::exit_reason::{BootFailure, name_of};
use super::standing::Fate;
use super::worker::Worker;
use super::{Master, Phase};

impl Master {
    /// Acts on what the workers say of themselves.
    pub(super) fn note_phases(&mut self) {
        for number in self.workers.note_phases() {
            if self.phase == Phase::Starting {
                self.phase = Phase::Proven;
                self.generations.serving.take_over(self.upgrade.is_under_way());
            }
            if let Some(generation) = self.generations.get_mut(number) {
                generation.backoff.succeeded();
            }
        }
        self.start_listening();
    }

    /// Begins to listen at new sockets once a worker that has them serves. Not during an upgrade:
    /// either master may stay, and only one of them has the new sockets.
    fn start_listening(&mut self) {
        let serving = &mut self.generations.serving;
        let is_served = self.workers.iter().any(|worker| worker.generation == serving.number && worker.is_serving());
        if is_served && !self.upgrade.is_under_way() {
            serving.start_listening();
        }
    }

    /// Reaps every child that has ended. Breaks if the very first boot has failed.
    pub(super) fn reap_workers(&mut self) -> ControlFlow<BootFailure> {
        let mut at = 0;
        while let Some((worker, end)) = self.workers.take_ended(&mut at) {
            self.call_child_exit(&worker);
            let settled = self.worker_ended(&worker, end);
            // A dead worker must not look idle to its siblings.
            worker.row.clear();
            settled?;
        }
        self.reap_new_master();
        let other_children = [self.upgrade.new_master(), self.upgrade.check().map(|check| check.child)];
        process::reap_orphans(|pid| {
            other_children.contains(&Some(pid)) || self.workers.has(pid) || self.dirty.has(pid)
        });
        ControlFlow::Continue(())
    }

    /// Notes a worker that has died young, unless somebody has killed it, perhaps the kernel.
    fn note_young_death(&mut self, worker: &Worker, end: End) {
        let is_killed = matches!(end, End::Killed(number) if name_of(number) == "SIGKILL");
        if worker.fate != Fate::Serving || is_killed {
            return;
        }
        if let Some(pause) = self.generations.young_deaths.note(worker.age_now(), Instant::now()) {
            warn!("Workers end soon after they began to serve: the next one is forked in {} ms.", pause.as_millis());
        }
    }

    fn worker_ended(&mut self, worker: &Worker, end: End) -> ControlFlow<BootFailure> {
        self.workers.note_end(worker, end, worker.fate != Fate::Discarded);
        if worker.fate == Fate::Discarded {
            return ControlFlow::Continue(());
        }
        if !worker.failed_to_boot() {
            self.note_young_death(worker, end);
            return ControlFlow::Continue(());
        }
        if self.generations.is_candidate(worker.generation) {
            self.give_up_candidate(worker, end);
            return ControlFlow::Continue(());
        }
        self.backoff_failed(worker.generation);
        let too_slow = worker.overdue.map(|_| BootFailure::Worker);
        match BootFailure::from_end(end).or(too_slow) {
            Some(failure) if self.phase == Phase::Starting => ControlFlow::Break(failure),
            _ => ControlFlow::Continue(()),
        }
    }
}
