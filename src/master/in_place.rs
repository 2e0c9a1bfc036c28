//! A new program in the same process: for supervisors that follow one pid, and take USR2's second master for a stray process.
//!
//! On the first real-time signal a child runs the new program with `--check-config`. Only if the settings can be read and
//! the app loads does the master execute the program over itself, and hand on its sockets and the pids of its workers. The
//! workers serve on, and each is replaced when a new worker is ready.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, io};

use log::{error, info};

use crate::python::hooks::ServerHook;
use crate::sys::process::{self, End, Pid};
use crate::sys::signal;

use super::upgrade::{Purpose, Successor};
use super::worker::Fate;
use super::{Master, Phase, unblock};

/// The process that the next two variables are for, like systemd's LISTEN_PID: other processes may inherit them.
pub(super) const MEANT_FOR: &str = "MONOCEROS_IN_PLACE";
/// The pids of the workers that serve, separated by commas.
pub(super) const SERVING: &str = "MONOCEROS_WORKERS";
/// The pids of those that have been told to end.
pub(super) const ENDING: &str = "MONOCEROS_ENDING_WORKERS";

/// The generation of adopted workers: older than any of this program.
const ADOPTED: u64 = 0;

/// With this flag the new program is tried before it takes our place.
pub(super) const CHECK_FLAG: &str = "--check-config";

/// The workers that an earlier program in this process has left.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    serving: Vec<Pid>,
    ending: Vec<Pid>,
}

impl Adopted {
    /// Reads what the process was started with, and takes it out of the environment; `None` if it was not executed over an
    /// earlier program. Only children of this process count as workers.
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

    /// Moves an upgrade in place on, if the check has ended.
    pub(super) fn settle_upgrade(&mut self) {
        let Some(child) = self.upgrade.check() else { return };
        let Some(end) = process::reap(child) else { return };
        self.upgrade.end_check();
        match end {
            End::Exited(0) => self.execute_in_place(),
            end => error!("Upgrade failed, everything stays as it was: the new program would not start ({end:?})."),
        }
    }

    /// Ends the check, because the master stops.
    pub(super) fn drop_upgrade_check(&mut self) {
        if let Some(child) = self.upgrade.check() {
            let _ = process::kill_hard(child);
            self.upgrade.end_check();
        }
    }

    /// Returns only if the program cannot be executed, and then nothing has changed.
    fn execute_in_place(&mut self) {
        if let Err(raised) = self.generations.serving.service.hooks.call(ServerHook::PreExec, || self.shown()) {
            return error!("Upgrade failed, everything stays as it was: exception in pre_exec hook\n{raised}");
        }
        self.dismiss_candidate();
        info!("Executing {} in place", self.startup.exec_command().program.display());
        self.service_manager.reloading();
        // Signals wait until the new program has its queue.
        let (blocked, here) = match signal::block_all().and_then(|blocked| Ok((blocked, env::current_dir()?))) {
            Ok(both) => both,
            Err(error) => return error!("Can't execute the new program: {error}"),
        };
        let Err(error) = self.try_to_execute();
        error!("Can't execute {}: {error}", self.startup.exec_command().program.display());
        for listener in &self.generations.serving.service.listeners {
            let _ = process::close_on_exec(listener.as_raw_fd());
        }
        let _ = env::set_current_dir(here);
        unblock(blocked);
    }

    fn try_to_execute(&self) -> io::Result<std::convert::Infallible> {
        let command = self.startup.exec_command();
        let mut environment = self.environment_to_pass(command, Successor::InPlace);
        let pids = |serving: bool| {
            let workers = self.workers.iter().filter(|worker| worker.is_serving() == serving);
            workers.map(|worker| worker.pid.to_string()).collect::<Vec<_>>().join(",")
        };
        environment.push((MEANT_FOR.into(), self.pid.to_string().into()));
        environment.push((SERVING.into(), pids(true).into()));
        environment.push((ENDING.into(), pids(false).into()));
        self.keep_sockets_on_exec()?;
        env::set_current_dir(&command.cwd)?;
        process::exec(&command.program, &command.arguments(None), &environment)
    }

    /// Takes the workers of the earlier program over.
    pub(super) fn adopt_workers(&mut self, adopted: Adopted) {
        let config = Arc::clone(&self.generations.serving.service.config);
        if !adopted.serving.is_empty() {
            // The service has worked, and workers serve: no failure to boot may end it.
            self.phase = Phase::Proven;
        }
        for pid in adopted.serving {
            self.workers.adopt(pid, ADOPTED, Fate::Retiring, Arc::clone(&config));
        }
        let until = Instant::now() + Duration::from_secs(config.graceful_timeout);
        for pid in adopted.ending {
            self.workers.adopt(pid, ADOPTED, Fate::Stopping { until }, Arc::clone(&config));
        }
    }
}

/// Only children: any other process may have such a pid by now, and the master is going to signal it.
fn children(pids: Vec<Pid>) -> Vec<Pid> {
    pids.into_iter().filter(|&pid| process::is_child(pid)).collect()
}

fn take_pids(name: &str) -> Vec<Pid> {
    let list = process::take_environment(name).unwrap_or_default();
    let numbers = list.to_string_lossy().into_owned();
    numbers.split(',').filter_map(|text| text.parse().ok()).filter(|&pid| pid > 0).map(Pid::from_raw).collect()
}
