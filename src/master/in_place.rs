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

use crate::logging;
use crate::python::hooks::ServerHook;
use crate::sys::output;
use crate::sys::process::{self, End, Pid};
use crate::sys::signal;

use super::autoscale::keep_wanted;
use super::inheritance::{Adopted, Estate, Successor, environment_for};
use super::standing::Fate;
use super::upgrade::{Check, Order, Purpose, keep_on_exec};
use super::{Master, Phase, unblock};

/// The generation of adopted workers: older than any of this program.
pub(super) const ADOPTED: u64 = 0;

impl Master {
    pub(super) fn check_before_upgrade_in_place(&mut self) {
        if matches!(self.phase, Phase::Leaving(_)) {
            return info!("Upgrade ignored: the server is stopping");
        }
        if self.end_hanging_check(Instant::now()) {
            return self.upgrade.want_another_check();
        }
        if self.may_upgrade("RTMIN")
            && let Some(child) = self.start_program(Purpose::Check)
        {
            self.begin_check(child, Order::Upgrade);
        }
    }

    /// For a HUP: starts a child that tries whether a new program would start. Returns false where
    /// the system has no room for a process. No other master may share the sockets.
    pub(super) fn check_before_reload_in_place(&mut self) -> bool {
        let child = self.start_program(Purpose::Check);
        child.inspect(|&child| self.begin_check(child, Order::Reload)).is_some()
    }

    fn begin_check(&mut self, child: Pid, order: Order) {
        let hopeless_at = self.generations.serving.hopeless_after(Instant::now());
        self.upgrade.begin_check(Check { child, order, hopeless_at, is_followed: false });
    }

    /// Ends the check, for whatever waits behind it, if it has taken longer than `timeout`: the app
    /// may hang in its import. The check then fails as any other, when the child is reaped. Returns
    /// whether it is so, once.
    pub(super) fn end_hanging_check(&mut self, now: Instant) -> bool {
        let Some(child) = self.upgrade.give_up_check(now) else { return false };
        error!("The new program does not get ready within timeout. It is given up for the next one.");
        let _ = process::kill_hard(child);
        true
    }

    /// When the master must look at a check for which a HUP waits.
    pub(super) fn check_deadline(&self) -> Option<Instant> {
        self.upgrade.check()?.hopeless_at.filter(|_| self.generations.is_reload_wanted())
    }

    /// Moves an upgrade in place on, if the check has ended.
    pub(super) fn settle_upgrade(&mut self) {
        if matches!(self.phase, Phase::Leaving(_)) {
            return self.drop_upgrade_check();
        }
        let Some(Check { child, order, is_followed, .. }) = self.upgrade.check() else { return };
        let Some(end) = process::reap(child) else { return };
        let said = self.upgrade.end_check();
        let Err(reason) = self.replace_program(end, said);
        match order {
            Order::Upgrade => error!("Upgrade failed, everything stays as it was: {reason}"),
            Order::Reload => self.give_up_reload(&reason),
        }
        if is_followed {
            self.check_before_upgrade_in_place();
        }
    }

    /// Ends the check, because the master stops: a new program would know nothing of that.
    pub(super) fn drop_upgrade_check(&mut self) {
        let Some(Check { child, order, .. }) = self.upgrade.check() else { return };
        let _ = process::kill_hard(child);
        self.upgrade.end_check();
        if order == Order::Reload {
            self.give_up_reload("the server is stopping");
        }
    }

    /// Executes the program in place. `check` is how the trial has ended, and `said` the reason
    /// that it has left. Returns why the program cannot be executed; this one then goes on.
    fn replace_program(&mut self, check: End, said: Option<String>) -> Result<Infallible, String> {
        if check != End::Exited(0) {
            let said = said.map_or_else(String::new, |said| format!("\n{}", said.trim_end()));
            return Err(format!("the new program would not start ({check:?}).{said}"));
        }
        let called = self.generations.serving.service.hooks.call(ServerHook::PreExec, || self.shown());
        called.map_err(|raised| format!("exception in pre_exec hook\n{raised}"))?;
        let program = self.startup.exec_command().program.display().to_string();
        self.tell_waiting_clients();
        self.dismiss_candidate("a new program takes over");
        info!("Executing {program} in place");
        self.reports.service_manager.reloading();
        // To come back to. It may have been removed: a release that is replaced by path.
        let here = env::current_dir();
        // Signals wait until the new program has its queue.
        let blocked = signal::block_all().map_err(|error| format!("cannot execute {program}: {error}"))?;
        // Signals that are in our queue already come again, to whichever program is there then.
        while let Some(signal) = self.signals.next() {
            let _ = process::kill(self.identity.pid, signal);
        }
        self.add_counts_of_last_master();
        self.report_last_counts();
        let estate = self.estate();
        let Err(error) = self.try_to_execute(&estate);
        for descriptor in estate.descriptors() {
            let _ = process::close_on_exec(descriptor);
        }
        let _ = here.and_then(env::set_current_dir);
        // The log captures the streams again.
        let _ = logging::reopen();
        unblock(blocked);
        Err(format!("cannot execute {program}: {error}"))
    }

    /// Tells the clients that wait for a reload: settings and code are about to be read anew. That
    /// holds for a reload under way, and for one that waits behind it or behind an upgrade's trial.
    /// No later program knows these clients.
    fn tell_waiting_clients(&mut self) {
        for _this_and_next in 0..2 {
            self.tell_reload(Ok(json!({"status": "the new program takes over"})));
        }
    }

    /// Tells statsd what was counted since the last report: the next program takes that for told.
    /// If there is no next program, this one goes on from here.
    fn report_last_counts(&mut self) {
        let (service, workers) = (&self.generations.serving.service, self.reports.worker_gauge.count());
        self.reports.statsd.send(service, self.workers.own_scoreboard(), workers, Instant::now());
    }

    fn try_to_execute(&self, estate: &Estate) -> io::Result<Infallible> {
        let command = self.startup.exec_command();
        let pids = |are_serving: bool| -> Vec<Pid> {
            self.workers.iter().filter(|it| it.is_serving() == are_serving).map(|it| it.pid).collect()
        };
        let (serving, ending, dirty) = (pids(true), pids(false), self.dirty.inheritance());
        let pid_file = self.identity.pid_file.as_ref().map(|file| file.path().to_owned());
        let successor = Successor::InPlace { serving, ending, dirty, pid_file };
        let environment = environment_for(&successor, command, estate);
        keep_on_exec(estate)?;
        env::set_current_dir(&command.cwd)?;
        output::release_standard_streams()?;
        process::exec(&command.program, &command.arguments(None), &environment)
    }

    /// What the load and the operator have changed in the last program holds on, as over a reload.
    fn go_on_from_last_program(&mut self) {
        if let Some((wanted, is_drained)) = self.workers.scoreboard().of_last_program() {
            keep_wanted(&mut self.generations.serving, wanted);
            self.workers.announce_drain(is_drained);
        }
    }

    /// Takes the workers of the earlier program over.
    pub(super) fn adopt_workers(&mut self, adopted: Adopted) {
        let config = Arc::clone(&self.generations.serving.service.config);
        if !adopted.serving.is_empty() {
            // The service has worked, and workers serve: no failure to boot may end it.
            self.phase = Phase::Proven;
        }
        self.go_on_from_last_program();
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
