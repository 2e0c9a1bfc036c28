//! USR2: a new program over the same sockets, beside the old one until one of the two is told to
//! stop.
//!
//! The old master passes its sockets by descriptor number in the environment, under gunicorn's
//! names, so that either program can follow the other. The new one calls itself "Master.2" and
//! writes a pid file of its own until the old one is gone.

use std::env;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::{error, info, warn};

use crate::python::hooks::ServerHook;
use crate::scoreboard;
use crate::sys::failure_note::FailureNote;
use crate::sys::fork::Forked;
use crate::sys::output;
use crate::sys::pidfile::PidFile;
use crate::sys::process::{self, End, Pid};
use crate::sys::signal;

use super::exit_reason::name_of;
use super::inheritance::{
    Estate, Inheritance, Inherited, PassedMetrics, Successor, environment_for, trial_environment,
};
use super::{Master, fork, unblock};

/// With this flag a child tries the new program before that takes our place.
const CHECK_FLAG: &str = "--check-config";

/// How often the master looks for the workers of a newer master that is gone.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// The exit status of the child when the new program cannot be executed, as a shell has it.
const NOT_EXECUTED: i32 = 127;

/// Where this master stands in an upgrade.
#[derive(Debug)]
pub(super) struct Upgrade {
    stage: UpgradeStage,
    /// systemd opened the sockets, so their files are its own.
    by_systemd: bool,
    /// This program was executed over an earlier one.
    in_place: bool,
    /// Where the last trial says why it has failed.
    trial_note: Option<FailureNote>,
    /// The board of the newer master that we have started, until its counts are added to ours.
    board: Option<scoreboard::SuccessorBoard>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UpgradeStage {
    Alone,
    /// This older master has started us.
    New {
        old: Pid,
    },
    /// We have started this newer one.
    Old {
        new: Pid,
    },
    /// A child tries whether the new program would start (see `in_place`).
    Checking(Check),
}

/// A child that tries the new program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Check {
    pub child: Pid,
    pub order: Order,
    /// From when on the child may be given up for another order; `None` without `timeout`, and once
    /// it is.
    pub hopeless_at: Option<Instant>,
    /// Whether an upgrade was ordered that is to be tried when this check has failed.
    pub is_followed: bool,
}

/// The signal that has ordered a new program in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// RTMIN.
    Upgrade,
    /// HUP, where the master has loaded the application.
    Reload,
}

impl Upgrade {
    pub fn new(inheritance: &Inheritance) -> Upgrade {
        Upgrade {
            stage: inheritance.old_master.map_or(UpgradeStage::Alone, |old| UpgradeStage::New { old }),
            by_systemd: matches!(inheritance.sockets, Inherited::FromSystemd(_)),
            in_place: inheritance.adopted.is_some(),
            trial_note: None,
            board: None,
        }
    }

    /// Whether this program was executed over an earlier one.
    pub fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// Whether another master shares our sockets.
    pub fn is_under_way(&self) -> bool {
        matches!(self.stage, UpgradeStage::New { .. } | UpgradeStage::Old { .. })
    }

    /// Whether the master that started us still runs, as far as we know.
    pub fn has_parent(&self) -> bool {
        matches!(self.stage, UpgradeStage::New { .. })
    }

    /// Whether systemd opened the sockets, and so decides on them.
    pub fn by_systemd(&self) -> bool {
        self.by_systemd
    }

    /// gunicorn's names.
    pub fn master_name(&self) -> &'static str {
        if self.has_parent() { "Master.2" } else { "Master" }
    }

    /// The older master that has started this one.
    pub fn old_master(&self) -> Option<Pid> {
        match self.stage {
            UpgradeStage::New { old } => Some(old),
            UpgradeStage::Alone | UpgradeStage::Old { .. } | UpgradeStage::Checking(_) => None,
        }
    }

    /// The pid file's name: with `.2` while the old master, which has the plain name, runs.
    pub fn pid_file_name(&self, configured: &Path) -> PathBuf {
        let mut name = configured.as_os_str().to_owned();
        if self.has_parent() {
            name.push(".2");
        }
        name.into()
    }

    /// The newer master, if we have started one.
    pub fn new_master(&self) -> Option<Pid> {
        match self.stage {
            UpgradeStage::Old { new } => Some(new),
            UpgradeStage::Alone | UpgradeStage::New { .. } | UpgradeStage::Checking(_) => None,
        }
    }

    /// The child that tries the new program, if there is one.
    pub fn check(&self) -> Option<Check> {
        match self.stage {
            UpgradeStage::Checking(check) => Some(check),
            UpgradeStage::Alone | UpgradeStage::New { .. } | UpgradeStage::Old { .. } => None,
        }
    }

    pub fn begin_check(&mut self, check: Check) {
        self.stage = UpgradeStage::Checking(check);
    }

    /// Gives the check up, if it has become hopeless by `now`. Returns the child once: it is to be
    /// killed.
    pub fn give_up_check(&mut self, now: Instant) -> Option<Pid> {
        match &mut self.stage {
            UpgradeStage::Checking(check) => check.hopeless_at.take_if(|at| *at <= now).map(|_| check.child),
            UpgradeStage::Alone | UpgradeStage::New { .. } | UpgradeStage::Old { .. } => None,
        }
    }

    /// Has another upgrade be tried after the check that was given up.
    pub fn want_another_check(&mut self) {
        if let UpgradeStage::Checking(check) = &mut self.stage {
            check.is_followed = true;
        }
    }

    /// Whether a child tries what a reload would bring.
    pub fn tries_reload(&self) -> bool {
        self.check().is_some_and(|check| check.order == Order::Reload)
    }

    /// Whether there is neither another master nor a check.
    pub fn is_alone(&self) -> bool {
        self.stage == UpgradeStage::Alone
    }

    /// Ends the check, because its child has ended. Returns the reason that the child has left, if
    /// any.
    pub fn end_check(&mut self) -> Option<String> {
        self.stage = UpgradeStage::Alone;
        self.trial_note.take()?.read()
    }

    /// Why no upgrade may begin now, if so: there is one at a time.
    fn obstacle(&self) -> Option<&'static str> {
        match self.stage {
            UpgradeStage::Old { .. } | UpgradeStage::Checking(_) => Some("Child exists."),
            UpgradeStage::New { .. } => Some("Parent exists."),
            UpgradeStage::Alone => None,
        }
    }

    /// Becomes the only master if the old one is gone: our parent, `parent`, is then another
    /// process. True once.
    fn promote(&mut self, parent: Pid) -> bool {
        let is_orphan = matches!(self.stage, UpgradeStage::New { old } if old != parent);
        if is_orphan {
            self.stage = UpgradeStage::Alone;
        }
        is_orphan
    }
}

impl Master {
    pub(super) fn start_upgrade(&mut self) {
        // The last new master may have failed just now, and CHLD may come after this signal.
        self.reap_new_master();
        if !self.may_upgrade("USR2") {
            return;
        }
        self.add_counts_of_last_master();
        self.upgrade.board = self.workers.scoreboard().for_successor();
        match self.start_program(Purpose::Serve) {
            Some(new) => self.upgrade.stage = UpgradeStage::Old { new },
            None => self.upgrade.board = None,
        }
        self.upgrade.board.iter().for_each(scoreboard::SuccessorBoard::close_file);
    }

    /// Once a newer master and its workers are gone, adds what they have counted. Our workers then
    /// answer for metrics again.
    pub(super) fn add_counts_of_new_master(&mut self) {
        let is_over = |board: &scoreboard::SuccessorBoard| !board.has_writers();
        if self.upgrade.new_master().is_none() && self.upgrade.board.as_ref().is_some_and(is_over) {
            self.add_counts_of_last_master();
        }
    }

    /// The same at once, because another program is about to follow. What the workers of the last
    /// newer master count from now on is lost.
    pub(super) fn add_counts_of_last_master(&mut self) {
        let Some(board) = self.upgrade.board.take() else { return };
        // What that master has told statsd is not told again.
        let (service, own) = (&self.generations.serving.service, self.workers.own_scoreboard());
        self.reports.statsd.send(service, own, self.reports.worker_gauge.count(), Instant::now());
        self.workers.scoreboard().add_successor(&board);
        self.reports.statsd.skip(own);
        self.sizing.autoscaler.forget();
        if let Some(metrics) = &self.generations.serving.service.metrics {
            metrics.turn.take_back();
        }
    }

    /// When to look again whether the workers of a newer master are gone. This master cannot reap
    /// them.
    pub(super) fn counts_deadline(&self, now: Instant) -> Option<Instant> {
        let waits = self.upgrade.board.is_some() && self.upgrade.new_master().is_none();
        waits.then(|| now + BETWEEN_LOOKS)
    }

    /// Whether an upgrade may begin; logs why not.
    pub(super) fn may_upgrade(&self, signal: &str) -> bool {
        let obstacle = self.upgrade.obstacle();
        if let Some(reason) = obstacle {
            warn!("{signal} signal ignored. {reason}");
        }
        obstacle.is_none()
    }

    /// Starts the program once more, as a child. `None` if the system has no room for another
    /// process.
    pub(super) fn start_program(&mut self, purpose: Purpose) -> Option<Pid> {
        // Without the note the reason is on the standard error of the child alone.
        self.upgrade.trial_note = if purpose == Purpose::Check { FailureNote::new().ok() } else { None };
        // No signal may write to our pipe from the child, nor end the child before it is the new
        // program.
        let forked = signal::block_all().and_then(|blocked| match fork() {
            Ok(Forked::Child) => self.become_new_program(blocked, purpose),
            Ok(Forked::Parent(pid)) => {
                unblock(blocked);
                Ok(pid)
            }
            Err(error) => {
                unblock(blocked);
                Err(error)
            }
        });
        forked.inspect_err(|error| error!("Can't start a new master: {error}")).ok()
    }

    /// In the child: gives up what it has of the master, and executes the program.
    fn become_new_program(&mut self, blocked: signal::Blocked, purpose: Purpose) -> ! {
        let command = self.startup.exec_command().clone();
        let estate = match purpose {
            Purpose::Serve => self.estate(),
            Purpose::Check => Estate { sockets: self.sockets(), ..Estate::default() },
        };
        let (arguments, environment) = match purpose {
            Purpose::Serve => {
                let successor = Successor::Beside { master: self.identity.pid };
                (command.arguments(None), environment_for(&successor, &command, &estate))
            }
            Purpose::Check => {
                let note = self.upgrade.trial_note.as_ref().map(AsRawFd::as_raw_fd);
                let kept = note.filter(|&note| process::keep_on_exec(note).is_ok());
                (command.arguments(Some(CHECK_FLAG)), trial_environment(&command, kept))
            }
        };
        self.signals.abandon_after_fork();
        if purpose == Purpose::Serve
            && let Err(raised) = self.generations.serving.service.hooks.call(ServerHook::PreExec, || self.shown())
        {
            error!("Exception in pre_exec hook, there is no new master\n{raised}");
            process::exit_now(NOT_EXECUTED)
        }
        let executed = blocked
            .restore()
            .and_then(|()| keep_on_exec(&estate))
            .and_then(|()| env::set_current_dir(&command.cwd))
            .and_then(|()| output::release_standard_streams())
            .and_then(|()| process::exec(&command.program, &arguments, &environment));
        let Err(error) = executed;
        error!("Can't execute {}: {error}", command.program.display());
        process::exit_now(NOT_EXECUTED)
    }

    fn sockets(&self) -> Vec<RawFd> {
        self.generations.serving.service.listeners.iter().map(|listener| listener.as_raw_fd()).collect()
    }

    /// The descriptors that the next master gets.
    pub(super) fn estate(&self) -> Estate {
        let service = &self.generations.serving.service;
        let metrics = service.metrics.as_ref().and_then(|metrics| {
            let (turn, number) = metrics.turn.for_successor()?;
            Some(PassedMetrics { socket: metrics.listener.as_raw_fd(), turn, number })
        });
        Estate {
            sockets: self.sockets(),
            by_systemd: self.upgrade.by_systemd,
            boards: self.workers.scoreboard().descriptors(),
            fresh_board: self.upgrade.board.as_ref().and_then(scoreboard::SuccessorBoard::descriptor),
            metrics,
        }
    }

    /// Reaps the newer master if it has ended. The upgrade then has failed or was taken back, and
    /// this master is alone again.
    pub(super) fn reap_new_master(&mut self) {
        let Some(new) = self.upgrade.new_master() else { return };
        match process::reap(new) {
            None => return,
            Some(End::Exited(0)) => info!("The new master (pid:{new}) has ended."),
            Some(End::Exited(code)) => error!("The new master (pid:{new}) exited with code {code}."),
            Some(End::Killed(number)) => {
                error!("The new master (pid:{new}) was sent {}!", name_of(number));
            }
        }
        self.upgrade.stage = UpgradeStage::Alone;
    }

    /// Takes over name, pid file and service when the old master has gone.
    pub(super) fn promote_when_alone(&mut self) {
        if self.upgrade.promote(process::getppid()) {
            info!("Master has been promoted.");
            self.reports.service_manager.take_over();
            self.move_pid_file();
            self.open_control();
        }
    }

    /// Moves the pid file to where the settings want it now.
    pub(super) fn move_pid_file(&mut self) {
        let wanted =
            self.generations.serving.service.config.pidfile.as_deref().map(|path| self.upgrade.pid_file_name(path));
        self.identity.pid_file = moved_pid_file(self.identity.pid_file.take(), wanted, self.identity.pid);
    }
}

/// The pid file, where it is `wanted`. A failure is logged, and there is no file then.
pub(super) fn moved_pid_file(file: Option<PidFile>, wanted: Option<PathBuf>, pid: Pid) -> Option<PidFile> {
    let moved = match (file, wanted) {
        (Some(file), Some(path)) if std::path::absolute(&path).is_ok_and(|path| path == file.path()) => Ok(Some(file)),
        (Some(file), Some(path)) => file.rename(&path).map(Some),
        (None, Some(path)) => PidFile::create(&path, pid).map(Some),
        (Some(file), None) => {
            file.remove();
            Ok(None)
        }
        (None, None) => Ok(None),
    };
    moved.unwrap_or_else(|error| {
        error!("{error}");
        None
    })
}

/// Keeps the descriptors open through exec.
pub(super) fn keep_on_exec(estate: &Estate) -> std::io::Result<()> {
    estate.descriptors().try_for_each(process::keep_on_exec)
}

/// The purpose of a new process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To serve beside this master.
    Serve,
    /// To find out whether it would start.
    Check,
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Pid = Pid::from_raw(7);

    fn at(stage: UpgradeStage) -> Upgrade {
        Upgrade { stage, by_systemd: false, in_place: false, trial_note: None, board: None }
    }

    #[test]
    fn the_pid_file_has_a_second_name_while_the_old_master_lives() {
        let name = |stage| at(stage).pid_file_name(Path::new("/run/app.pid"));
        assert_eq!(name(UpgradeStage::Alone), Path::new("/run/app.pid"));
        assert_eq!(name(UpgradeStage::Old { new: OTHER }), Path::new("/run/app.pid"));
        assert_eq!(name(UpgradeStage::New { old: OTHER }), Path::new("/run/app.pid.2"));
    }

    #[test]
    fn there_is_one_upgrade_at_a_time() {
        assert_eq!(at(UpgradeStage::Alone).obstacle(), None);
        assert_eq!(at(UpgradeStage::Old { new: OTHER }).obstacle(), Some("Child exists."));
        assert_eq!(
            at(UpgradeStage::Checking(Check {
                child: OTHER,
                order: Order::Upgrade,
                hopeless_at: None,
                is_followed: false
            }))
            .obstacle(),
            Some("Child exists.")
        );
        assert_eq!(at(UpgradeStage::New { old: OTHER }).obstacle(), Some("Parent exists."));
    }

    #[test]
    fn a_new_master_is_promoted_once_when_its_parent_is_another_process() {
        let mut upgrade = at(UpgradeStage::New { old: OTHER });
        assert!(!upgrade.promote(OTHER));
        assert_eq!(upgrade.master_name(), "Master.2");
        assert!(upgrade.promote(Pid::from_raw(1)) && !upgrade.promote(Pid::from_raw(1)));
        assert_eq!((upgrade.master_name(), upgrade.is_under_way()), ("Master", false));
        assert!(!at(UpgradeStage::Old { new: OTHER }).promote(Pid::from_raw(1)), "the old master stays what it is");
    }
}
