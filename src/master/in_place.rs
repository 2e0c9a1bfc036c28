//! A new program in the same process: for supervisors that follow a pid, to whom USR2's second master looks like a runaway.
//!
//! On the first real-time signal a child starts the new program with `--check-config`. Only when the settings can be read and
//! the app loads does the master execute the program over itself, handing on its sockets and the pids of its workers. Those serve
//! on, and are replaced one by one as new workers get ready.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use std::{env, io};

use log::{error, info};

use crate::python::hooks::ServerHook;
use crate::scoreboard::{MAX_WORKERS, WorkerPhase};
use crate::sys::process::{self, End, Pid};
use crate::sys::signal::{self, Signal};

use super::upgrade::{Purpose, Successor, restore};
use super::worker::{Fate, Worker};
use super::{Master, Phase};

/// The process that the next two are meant for, as systemd has it with LISTEN_PID: whatever else inherits them is not.
pub(super) const MEANT_FOR: &str = "MONOCEROS_IN_PLACE";
/// The pids of the workers that serve, separated by commas.
pub(super) const SERVING: &str = "MONOCEROS_WORKERS";
/// The pids of those that have been told to end.
pub(super) const ENDING: &str = "MONOCEROS_ENDING_WORKERS";

/// The generation of the adopted: older than any of ours.
const ADOPTED: u64 = 0;

/// What the new program is asked before it may take our place.
pub(super) const QUESTION: &str = "--check-config";

/// Workers that an earlier program in this process has left us.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    serving: Vec<Pid>,
    ending: Vec<Pid>,
}

impl Adopted {
    /// Reads what the process was started with, and takes it out of the environment; `None` where it was not executed over an earlier
    /// program. Only children of this process are taken for workers.
    pub fn from_environment() -> Option<Adopted> {
        let is_meant = take_pids(MEANT_FOR) == [process::getpid()];
        let [serving, ending] = [SERVING, ENDING].map(take_pids);
        is_meant.then(|| Adopted { serving: children(serving), ending: children(ending) })
    }
}

impl Master {
    pub(super) fn check_before_upgrade_in_place(&mut self) {
        if matches!(self.phase, Phase::Leaving(_)) {
            return info!("Upgrade ignored: the server is stopping");
        }
        if self.may_upgrade("RTMIN")
            && let Some(child) = self.start_program(Purpose::Check)
        {
            self.upgrade.begin_check(child);
        }
    }

    /// Moves an upgrade in place on by what the check has said meanwhile.
    pub(super) fn settle_upgrade(&mut self) {
        let Some(child) = self.upgrade.check() else { return };
        let Some(end) = process::reap(child) else { return };
        self.upgrade.end_check();
        match end {
            End::Exited(0) => self.execute_in_place(),
            end => error!("Upgrade failed, everything stays as it was: the new program would not start ({end:?})."),
        }
    }

    /// A stop takes the check with it.
    pub(super) fn drop_upgrade_check(&mut self) {
        if let Some(child) = self.upgrade.check() {
            let _ = process::kill_hard(child);
            self.upgrade.end_check();
        }
    }

    /// Returns only when the program cannot be executed, and then nothing has changed.
    fn execute_in_place(&mut self) {
        if let Err(raised) = self.serving.hooks.call(ServerHook::PreExec, || self.shown()) {
            return error!("Upgrade failed, everything stays as it was: exception in pre_exec hook\n{raised}");
        }
        self.dismiss_candidate();
        info!("Executing {} in place", self.startup.exec_command().program.display());
        self.service_manager.reloading();
        // What comes until the new program has a queue waits for it.
        let (held, here) = match signal::block_all().and_then(|held| Ok((held, env::current_dir()?))) {
            Ok(both) => both,
            Err(error) => return error!("Can't execute the new program: {error}"),
        };
        let Err(error) = self.try_to_execute();
        error!("Can't execute {}: {error}", self.startup.exec_command().program.display());
        for listener in &self.serving.listeners {
            let _ = process::close_on_exec(listener.as_raw_fd());
        }
        let _ = env::set_current_dir(here);
        restore(held);
    }

    fn try_to_execute(&self) -> io::Result<std::convert::Infallible> {
        let launch = self.startup.exec_command();
        let mut environment = self.environment_to_pass(launch, Successor::InPlace);
        let pids = |serving: bool| {
            let workers = self.workers.iter().filter(|worker| worker.is_serving() == serving);
            workers.map(|worker| worker.pid.to_string()).collect::<Vec<_>>().join(",")
        };
        environment.push((MEANT_FOR.into(), self.pid.to_string().into()));
        environment.push((SERVING.into(), pids(true).into()));
        environment.push((ENDING.into(), pids(false).into()));
        self.keep_sockets_on_exec()?;
        env::set_current_dir(&launch.cwd)?;
        process::exec(&launch.program, &launch.arguments(None), &environment)
    }

    /// Makes the workers of the earlier program ours. Their rows are lost with its memory, so they get new ones, which say that they
    /// serve and never age.
    pub(super) fn adopt_workers(&mut self, adopted: Adopted) {
        if !adopted.serving.is_empty() {
            // The service has worked, and somebody serves: no failure to boot may end it.
            self.phase = Phase::Proven;
        }
        for pid in adopted.serving {
            self.adopt(pid, Fate::Retiring);
        }
        let until = Instant::now() + Duration::from_secs(self.serving.config.graceful_timeout);
        for pid in adopted.ending {
            self.adopt(pid, Fate::Stopping { until });
        }
    }

    fn adopt(&mut self, pid: Pid, fate: Fate) {
        let number = self.workers.len();
        if number >= MAX_WORKERS.get() {
            return error!("Too many workers to adopt: worker (pid:{pid}) is on its own.");
        }
        let row = self.scoreboard.row(number);
        row.set_state(WorkerPhase::Ready);
        let mut worker = Worker::new(pid, number, number, row, ADOPTED, self.serving.config.clone());
        worker.seen = WorkerPhase::Ready;
        worker.fate = fate;
        if matches!(fate, Fate::Stopping { .. }) {
            // It may have been loading the app when it was left behind.
            worker.tell(Signal::Term);
        }
        self.workers.push(worker);
    }
}

/// A pid says nothing by itself: it may be anybody's, and the signal that it gets is one of ours.
fn children(pids: Vec<Pid>) -> Vec<Pid> {
    pids.into_iter().filter(|&pid| process::is_child(pid)).collect()
}

fn take_pids(name: &str) -> Vec<Pid> {
    let list = process::take_environment(name).unwrap_or_default();
    let numbers = list.to_string_lossy().into_owned();
    numbers.split(',').filter_map(|text| text.parse().ok()).filter(|&pid| pid > 0).map(Pid::from_raw).collect()
}
