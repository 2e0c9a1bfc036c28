//! The table of workers: who was forked, what each says of itself, and what it is told.
//!
//! The table owns what the workers share, and knows nothing of generations but their numbers.
//! `plan` decides how many there should be; `spawn` forks them.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use log::{error, info};

use crate::scoreboard::{ExitCause, InheritedBoards, MAX_WORKERS, Row, Scoreboard, WorkerPhase};
use crate::settings::Config;
use crate::sys::clock::monotonic_ms;
use crate::sys::fd_channel::FdChannel;
use crate::sys::process::{self, End, Pid};
use crate::sys::signal::Signal;

use super::exit_reason::{self, OomWatch};
use super::generation::Generation;
use super::plan::{Target, is_replacing};
use super::standing::{Fate, Standing};
use super::worker::Worker;

/// The most workers of one generation: half of the scoreboard, because a reload needs as many
/// again.
pub(super) const MOST_WORKERS: usize = MAX_WORKERS.get() / 2;

pub(super) struct Workers {
    /// Oldest first.
    table: Vec<Worker>,
    /// How many were forked so far.
    forked: u64,
    scoreboard: Scoreboard,
    /// The scoreboard without what workers of other masters count.
    own: Scoreboard,
    /// Where busy workers leave connections for their siblings, of any generation.
    channel: Arc<FdChannel>,
    oom_watch: OomWatch,
}

impl Workers {
    /// An empty table, with what earlier programs have counted. Before the first fork, because
    /// workers share the memory.
    pub fn new(inherited: InheritedBoards) -> io::Result<Workers> {
        let scoreboard = Scoreboard::after(MAX_WORKERS, inherited)?;
        let channel = Arc::new(FdChannel::new()?);
        let own = scoreboard.of_this_process();
        Ok(Workers { table: Vec::new(), forked: 0, scoreboard, own, channel, oom_watch: OomWatch::new() })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.table.iter()
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn standings(&self) -> Vec<Standing> {
        self.table.iter().map(Worker::standing).collect()
    }

    pub fn has(&self, pid: Pid) -> bool {
        self.table.iter().any(|worker| worker.pid == pid)
    }

    /// How many were forked so far, as gunicorn's `worker_age`.
    pub fn forked(&self) -> u64 {
        self.forked
    }

    /// The lowest row that no worker has, emptied; `None` if all are in use.
    pub fn free_row(&self) -> Option<(usize, Row)> {
        let is_free = |number: &usize| self.table.iter().all(|worker| worker.number != *number);
        let number = (0..MAX_WORKERS.get()).find(is_free)?;
        let row = self.scoreboard.row(number);
        row.clear();
        Some((number, row))
    }

    /// Tells readers of the scoreboard which generation serves.
    pub fn note_service(&self, serving: &Generation) {
        let name = serving.service.config.name();
        self.scoreboard.set_service(serving.number, serving.wanted, name);
    }

    /// The scoreboard, to be read.
    pub fn scoreboard(&self) -> &Scoreboard {
        &self.scoreboard
    }

    /// The scoreboard without what workers of other masters count: for decisions about this
    /// master's workers, and for reports to programs to which the other masters report as well.
    pub fn own_scoreboard(&self) -> &Scoreboard {
        &self.own
    }

    /// Has health checks fail, or succeed again.
    pub fn announce_drain(&self, is_on: bool) {
        self.scoreboard.set_drained(is_on);
    }

    /// Counts how a reload has ended.
    pub fn count_reload(&self, is_ok: bool) {
        self.scoreboard.count_reload(is_ok);
    }

    /// A worker was forked.
    pub fn add(&mut self, mut worker: Worker) {
        self.forked += 1;
        worker.age = self.forked;
        self.scoreboard.count_start(worker.number);
        self.table.push(worker);
    }

    /// Takes in a worker of an earlier program in this process. The worker goes on writing to that
    /// program's board. Its row on this one says that the worker serves, and never misses a
    /// deadline.
    pub fn adopt(&mut self, pid: Pid, generation: u64, fate: Fate, config: Arc<Config>) {
        let is_free = |number: &usize| self.table.iter().all(|worker| worker.number != *number);
        let before = self.scoreboard.row_of(pid).filter(is_free);
        let Some(number) = before.or_else(|| (0..MAX_WORKERS.get()).find(is_free)) else {
            return error!("Too many workers to adopt: this master does not watch over worker (pid:{pid}).");
        };
        let row = self.scoreboard.row(number);
        row.set_state(WorkerPhase::Ready);
        self.scoreboard.note_row(number);
        let mut worker = Worker::new(pid, number, self.table.len(), row, generation, config);
        worker.seen = WorkerPhase::Ready;
        worker.fate = fate;
        worker.note_reason(ExitCause::Reload);
        if matches!(fate, Fate::Stopping { .. }) {
            // The worker may have been loading the app when the earlier program told it to end.
            worker.tell(Signal::Term);
        }
        self.table.push(worker);
    }

    /// Removes the first worker that has ended, from index `at` on, and moves `at` behind those
    /// that have not.
    pub fn take_ended(&mut self, at: &mut usize) -> Option<(Worker, End)> {
        while let Some(worker) = self.table.get(*at) {
            if let Some((end, used)) = process::reap_with_cpu(worker.pid) {
                worker.row.count_cpu_of_dead(used);
                return Some((self.table.remove(*at), end));
            }
            *at += 1;
        }
        None
    }

    /// Counts the end of a worker, and logs it if `is_told`.
    pub fn note_end(&mut self, worker: &Worker, end: End, is_told: bool) {
        let killer = self.oom_watch.look(worker, end);
        self.scoreboard.count_exit(exit_reason::cause(worker, end, killer, self.scoreboard.is_stopping()));
        if is_told {
            exit_reason::log_end(worker, end, killer);
        }
    }

    /// Acts on the phases that workers have entered. Returns the generation of each that has begun
    /// to serve.
    pub fn note_phases(&mut self) -> Vec<u64> {
        let mut ready = Vec::new();
        for worker in &mut self.table {
            let phase = worker.row.state();
            if worker.seen == WorkerPhase::Booting && phase != WorkerPhase::Booting {
                ready.push(worker.generation);
                // `timeout` begins now: however long the boot took, no deadline was missed.
                worker.forgiven_at = monotonic_ms();
            }
            match phase {
                WorkerPhase::Retiring if worker.fate == Fate::Serving => worker.note_retirement(),
                // A process other than the master has told it to finish.
                WorkerPhase::Draining => worker.note_drain(),
                _ => {}
            }
            worker.seen = phase;
        }
        ready
    }

    /// Tells surplus workers to finish.
    pub fn retire_surplus(&mut self, target: &Target) {
        for at in target.surplus(&self.standings()) {
            self.table[at].note_reason(ExitCause::ScaleDown);
            self.table[at].retire();
        }
    }

    /// Tells all workers of a generation, and of those before it, to finish.
    pub fn retire_up_to(&mut self, generation: u64) {
        for worker in self.table.iter_mut().filter(|worker| worker.generation <= generation) {
            worker.note_reason(ExitCause::Reload);
            worker.retire();
        }
    }

    /// Has all workers of a generation, and of those before it, replaced one by one: each serves
    /// until it is one too many. A worker that still boots is not needed, and is killed.
    pub fn replace_up_to(&mut self, generation: u64) {
        let old = |worker: &&mut Worker| worker.generation <= generation && worker.fate == Fate::Serving;
        for worker in self.table.iter_mut().filter(old) {
            worker.note_reason(ExitCause::Reload);
            if worker.is_booting() {
                worker.kill(Fate::Discarded);
            } else {
                worker.fate = Fate::Retiring;
            }
        }
    }

    /// Ends the workers of a generation that will not serve.
    pub fn discard(&mut self, generation: u64) {
        for worker in self.table.iter_mut().filter(|worker| worker.generation == generation) {
            worker.note_reason(ExitCause::Reload);
            if worker.is_booting() {
                worker.kill(Fate::Discarded);
            } else {
                worker.retire();
            }
        }
    }

    /// Ends workers that have missed a deadline.
    pub fn check_deadlines(&mut self) {
        let (now, now_ms) = (Instant::now(), monotonic_ms());
        for worker in &mut self.table {
            worker.note_recovery(now);
            worker.kill_when_due(now);
            match worker.fate {
                Fate::Serving | Fate::Retiring | Fate::Stopping { .. } => worker.abort_when_overdue(now, now_ms),
                Fate::Aborted { .. } | Fate::Killed | Fate::Discarded => {}
            }
        }
    }

    /// The master was stopped, and the workers perhaps with it: silence until now does not count.
    pub fn forgive_silence(&mut self) {
        let now = monotonic_ms();
        for worker in &mut self.table {
            worker.forgiven_at = now;
        }
    }

    /// Samples the workers' memory, and has one worker replaced that has reached a limit, unless
    /// another replacement is under way.
    pub fn recycle(&mut self, now: Instant, is_reloading: bool) {
        for worker in self.table.iter_mut().filter(|worker| worker.is_serving()) {
            worker.limits.sample(worker.pid, now);
        }
        if is_reloading || is_replacing(&self.standings()) {
            return;
        }
        let serving = self.table.iter_mut().filter(|worker| worker.fate == Fate::Serving && worker.is_serving());
        let mut reached = serving.filter_map(|worker| worker.limits.reached(now).map(|reason| (worker, reason)));
        if let Some((worker, (cause, reason))) = reached.next() {
            info!("Replacing worker (pid:{}): {reason}.", worker.pid);
            worker.note_reason(cause);
            worker.fate = Fate::Retiring;
        }
    }

    /// When the master must look at a worker again: a deadline, a sample of memory, the end of a
    /// life.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let overdue = self.table.iter().filter_map(|worker| worker.deadline(now));
        let serving = self.table.iter().filter(|worker| worker.is_serving());
        overdue.chain(serving.filter_map(|worker| worker.limits.deadline(now))).min()
    }

    pub fn tell_all(&self, signal: Signal) {
        self.table.iter().for_each(|worker| worker.tell(signal));
    }

    /// Notes why all workers leave, unless they had a reason before.
    pub fn note_reason(&mut self, cause: ExitCause) {
        self.table.iter_mut().for_each(|worker| worker.note_reason(cause));
    }

    /// Tells all workers by TERM to finish before `until`.
    pub fn stop_all(&mut self, until: Instant) {
        self.table.iter_mut().for_each(|worker| worker.stop(Signal::Term, until));
    }

    /// Tells all workers by QUIT to end at once. A worker that still loads the app has nothing to
    /// finish.
    pub fn stop_all_quickly(&mut self, until: Instant) {
        for worker in &mut self.table {
            if worker.is_booting() {
                worker.kill(Fate::Discarded);
            } else {
                worker.stop(Signal::Quit, until);
            }
        }
    }

    pub fn kill_all(&mut self, fate: Fate) {
        self.table.iter_mut().for_each(|worker| worker.kill(fate));
    }

    /// Kills workers whose time to end is over, and after `loaded_by` those that still load the
    /// app: TERM has not interrupted the import. Returns when to look again.
    pub fn kill_overdue(&mut self, now: Instant, loaded_by: Instant) -> Option<Instant> {
        for worker in &mut self.table {
            worker.note_recovery(now);
            worker.kill_when_due(now);
            if worker.is_booting() && now >= loaded_by {
                worker.kill(Fate::Discarded);
            }
        }
        let kill_at = || self.table.iter().filter_map(|worker| worker.fate.kill_at());
        let loads = self.table.iter().any(|worker| worker.is_booting() && worker.fate.kill_at().is_some());
        kill_at().chain(loads.then_some(loaded_by)).min()
    }

    /// Whether no worker accepts connections any more.
    pub fn have_drained(&self) -> bool {
        self.table.iter().all(|worker| worker.row.state() == WorkerPhase::Draining)
    }

    /// Tells all workers that the server is about to stop, so that health checks fail.
    pub fn announce_stop(&self) {
        self.scoreboard.announce_stop();
    }

    /// In a new worker: what it keeps of the table.
    pub fn into_channel(self) -> Arc<FdChannel> {
        self.channel
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A table of workers without processes: kill(2) and waitpid(2) answer ESRCH and ECHILD for
    /// this pid, which is above the kernel's limit (PID_MAX_LIMIT, 2^22).
    const NO_PROCESS: i32 = i32::MAX;

    fn table(config: &Config, phases: &[WorkerPhase]) -> Workers {
        let mut workers = Workers::new(InheritedBoards::default()).unwrap();
        for (slot, &phase) in phases.iter().enumerate() {
            let (number, row) = workers.free_row().unwrap();
            row.set_state(phase);
            let config = Arc::new(config.clone());
            workers.add(Worker::new(Pid::from_raw(NO_PROCESS), number, slot, row, 1, config));
        }
        workers
    }

    fn fates(workers: &Workers) -> Vec<Fate> {
        workers.iter().map(|worker| worker.fate).collect()
    }

    #[test]
    fn a_row_is_free_again_when_its_worker_has_ended() {
        let mut workers = table(&Config::default(), &[WorkerPhase::Ready; 3]);
        assert_eq!(workers.free_row().map(|(number, _)| number), Some(3));
        let (mut at, mut ended) = (1, Vec::new());
        while let Some((worker, end)) = workers.take_ended(&mut at) {
            ended.push((worker.number, end));
        }
        assert_eq!(ended, [(1, End::Exited(0)), (2, End::Exited(0))]);
        assert_eq!(workers.free_row().map(|(number, _)| number), Some(1));
        assert_eq!((workers.len(), workers.forked()), (1, 3));
    }

    #[test]
    fn a_worker_that_begins_to_serve_is_reported_once_and_its_timeout_begins() {
        let mut workers = table(&Config::default(), &[WorkerPhase::Booting, WorkerPhase::Booting]);
        assert!(workers.note_phases().is_empty());
        workers.table[1].row.set_state(WorkerPhase::Ready);
        assert_eq!(workers.note_phases(), [1]);
        assert!(workers.note_phases().is_empty());
        assert!(workers.table[1].forgiven_at > 0 && workers.table[0].forgiven_at == 0);
    }

    #[test]
    fn what_a_worker_says_of_itself_decides_its_fate() {
        let mut workers =
            table(&Config::default(), &[WorkerPhase::Ready, WorkerPhase::Retiring, WorkerPhase::Draining]);
        workers.note_phases();
        let fates = fates(&workers);
        assert_eq!(fates[..2], [Fate::Serving, Fate::Retiring]);
        assert!(matches!(fates[2], Fate::Stopping { .. }));
    }

    #[test]
    fn a_generation_that_is_replaced_step_by_step_serves_on_and_one_that_failed_does_not() {
        let phases = [WorkerPhase::Ready, WorkerPhase::Booting];
        let mut replaced = table(&Config::default(), &phases);
        replaced.replace_up_to(1);
        assert_eq!(fates(&replaced), [Fate::Retiring, Fate::Discarded]);
        let mut failed = table(&Config::default(), &phases);
        failed.discard(1);
        assert!(matches!(fates(&failed)[..], [Fate::Stopping { .. }, Fate::Discarded]));
    }

    #[test]
    fn a_worker_that_has_missed_its_deadline_is_aborted_and_then_killed() {
        let config = Config { boot_timeout: 1, ..Config::default() };
        let mut workers = table(&config, &[WorkerPhase::Booting]);
        workers.check_deadlines();
        assert_eq!(fates(&workers), [Fate::Serving]);
        let later = Instant::now() + Duration::from_secs(5);
        workers.table[0].abort_when_overdue(later, monotonic_ms() + 5000);
        assert_eq!(fates(&workers), [Fate::Aborted { until: later + Duration::from_secs(1) }]);
        assert!(workers.table[0].failed_to_boot(), "it was the boot that took too long");
        assert_eq!(workers.kill_overdue(later, later + Duration::from_secs(9)), Some(later + Duration::from_secs(1)));
        assert_eq!(workers.kill_overdue(later + Duration::from_secs(1), later + Duration::from_secs(9)), None);
        assert_eq!(fates(&workers), [Fate::Killed]);
    }

    #[test]
    fn a_worker_that_still_loads_the_app_gets_less_time_to_end() {
        let now = Instant::now();
        let (loaded_by, until) = (now + Duration::from_secs(2), now + Duration::from_secs(30));
        let mut workers = table(&Config::default(), &[WorkerPhase::Ready, WorkerPhase::Booting]);
        workers.stop_all(until);
        assert_eq!(workers.kill_overdue(now, loaded_by), Some(loaded_by));
        assert_eq!(workers.kill_overdue(loaded_by, loaded_by), Some(until));
        assert_eq!(fates(&workers), [Fate::Stopping { until }, Fate::Discarded]);
    }

    #[test]
    fn one_worker_at_a_time_is_recycled_and_none_during_a_reload() {
        let config = Config { max_worker_lifetime: 1, ..Config::default() };
        let mut workers = table(&config, &[WorkerPhase::Ready, WorkerPhase::Ready]);
        let (now, late) = (Instant::now(), Instant::now() + Duration::from_secs(5));
        workers.recycle(now, false);
        assert_eq!(fates(&workers), [Fate::Serving, Fate::Serving], "their time has not come");
        workers.recycle(late, true);
        assert_eq!(fates(&workers), [Fate::Serving, Fate::Serving]);
        workers.recycle(late, false);
        workers.recycle(late, false);
        assert_eq!(fates(&workers), [Fate::Retiring, Fate::Serving]);
    }
}
