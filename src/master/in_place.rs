//! A new program in the same process: for supervisors that follow one pid, and take USR2's second
//! master for a stray process.
//!
//! On the first real-time signal a child runs the new program with `--check-config`. Only if the
//! settings can be read and the app loads does the master execute the program over itself, and hand
//! on its sockets and the pids of its workers. The workers serve on, and each is replaced when a
//! new worker is ready. A reload takes the same way where the master has loaded the application: no
//! process can load Python code a second time and be sure of what it has.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, io};

use log::{error, info};
use serde_json::json;

use crate::python::hooks::ServerHook;
use crate::sys::process::{self, End, Pid};
use crate::sys::signal;

use super::inheritance::{Adopted, Estate, Successor, environment_for};
use super::standing::Fate;
use super::upgrade::{Order, Purpose, keep_on_exec};
use super::{Master, Phase, unblock};

/// The generation of adopted workers: older than any of this program.
pub(super) const ADOPTED: u64 = 0;

impl Master {
    pub(super) fn check_before_upgrade_in_place(&mut self) {
        if matches!(self.phase, Phase::Leaving(_)) {
            return info!("Upgrade ignored: the server is stopping");
        }
        if self.may_upgrade("RTMIN")
            && let Some(child) = self.start_program(Purpose::Check)
        {
            self.upgrade.begin_check(child, Order::Upgrade);
        }
    }

    /// For a HUP: starts a child that tries whether a new program would start. Returns false where
    /// the system has no room for a process. No other master may share the sockets.
    pub(super) fn check_before_reload_in_place(&mut self) -> bool {
        let child = self.start_program(Purpose::Check);
        child.inspect(|&child| self.upgrade.begin_check(child, Order::Reload)).is_some()
    }

    /// Moves an upgrade in place on, if the check has ended.
    pub(super) fn settle_upgrade(&mut self) {
        let Some((child, order)) = self.upgrade.check() else { return };
        let Some(end) = process::reap(child) else { return };
        let said = self.upgrade.end_check();
        let Err(reason) = self.replace_program(end, said, order);
        match order {
            Order::Upgrade => error!("Upgrade failed, everything stays as it was: {reason}"),
            Order::Reload => self.give_up_reload(&reason),
        }
    }

    /// Ends the check, because the master stops.
    pub(super) fn drop_upgrade_check(&mut self) {
        if let Some((child, _)) = self.upgrade.check() {
            let _ = process::kill_hard(child);
            self.upgrade.end_check();
        }
    }

    /// Executes the program in place. `check` is how the trial has ended, and `said` the reason
    /// that it has left. Returns why the program cannot be executed; this one then goes on.
    fn replace_program(&mut self, check: End, said: Option<String>, order: Order) -> Result<Infallible, String> {
        if check != End::Exited(0) {
            let said = said.map_or_else(String::new, |said| format!("\n{}", said.trim_end()));
            return Err(format!("the new program would not start ({check:?}).{said}"));
        }
        let called = self.generations.serving.service.hooks.call(ServerHook::PreExec, || self.shown());
        called.map_err(|raised| format!("exception in pre_exec hook\n{raised}"))?;
        let program = self.startup.exec_command().program.display().to_string();
        self.dismiss_candidate("a new program takes over");
        info!("Executing {program} in place");
        if order == Order::Reload {
            self.tell_reload(Ok(json!({"status": "the new program takes over"})));
        }
        self.reports.service_manager.reloading();
        // Signals wait until the new program has its queue.
        let (blocked, here) = signal::block_all()
            .and_then(|blocked| Ok((blocked, env::current_dir()?)))
            .map_err(|error| format!("cannot execute {program}: {error}"))?;
        self.add_counts_of_last_master();
        let estate = self.estate();
        let Err(error) = self.try_to_execute(&estate);
        for descriptor in estate.descriptors() {
            let _ = process::close_on_exec(descriptor);
        }
        let _ = env::set_current_dir(here);
        unblock(blocked);
        Err(format!("cannot execute {program}: {error}"))
    }

    fn try_to_execute(&self, estate: &Estate) -> io::Result<Infallible> {
        let command = self.startup.exec_command();
        let pids = |are_serving: bool| -> Vec<Pid> {
            self.workers.iter().filter(|it| it.is_serving() == are_serving).map(|it| it.pid).collect()
        };
        let (serving, ending, dirty) = (pids(true), pids(false), self.dirty.inheritance());
        let environment = environment_for(&Successor::InPlace { serving, ending, dirty }, command, estate);
        keep_on_exec(estate)?;
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
        self.adopt_dirty_pools(adopted.dirty);
    }
}
