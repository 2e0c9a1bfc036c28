//! USR2: a new program over the same sockets, beside the old one until one of the two is told to stop.
//!
//! The old master passes its sockets by descriptor number in the environment, under gunicorn's names, so that either program
//! can follow the other. The new one calls itself "Master.2" and writes a pid file of its own until the old one is gone.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use log::{error, info, warn};

use crate::bootstrap::ExecCommand;
use crate::python::hooks::ServerHook;
use crate::sys::fork::Forked;
use crate::sys::pidfile::PidFile;
use crate::sys::process::{self, End, Pid};
use crate::sys::signal;

use super::exit_reason::name_of;
use super::in_place::Adopted;
use super::service_manager::WATCHDOG_PID;
use super::{Master, fork, in_place, unblock};

/// The old master's pid.
const OLD_MASTER: &str = "GUNICORN_PID";
/// The descriptors of its sockets, separated by commas.
const SOCKETS: &str = "GUNICORN_FD";
/// From systemd: the process that gets descriptors, and how many it gets, from 3 on (sd_listen_fds(3)).
const SYSTEMD_PID: &str = "LISTEN_PID";
const SYSTEMD_COUNT: &str = "LISTEN_FDS";
const SYSTEMD_FIRST: RawFd = 3;
/// The most descriptors that are taken: more than systemd passes, and few enough to try them all.
const SYSTEMD_MOST: RawFd = 1024;

/// The exit status of the child when the new program cannot be executed, as a shell has it.
const NOT_EXECUTED: i32 = 127;

/// What an earlier program has left to this one in the environment. It gives power over other processes, so it counts only
/// if it names this process, and it is removed before foreign code could pass it on.
#[derive(Debug)]
pub struct Inheritance {
    pub(super) upgrade: Upgrade,
    pub(super) sockets: Inherited,
    pub(super) adopted: Adopted,
}

/// Where this master stands in an upgrade.
#[derive(Debug)]
pub(super) struct Upgrade {
    stage: UpgradeStage,
    /// systemd opened the sockets, so their files are its own.
    by_systemd: bool,
    /// This program was executed over an earlier one.
    in_place: bool,
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
    /// This child tries whether the new program would start (see `in_place`).
    Checking {
        child: Pid,
    },
}

/// Sockets that were open when the program started.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inherited {
    Nothing,
    FromSystemd(Vec<RawFd>),
    FromMaster(Vec<RawFd>),
}

impl Inheritance {
    /// Reads what the process was started with, and takes it out of the environment: neither the app nor a program that a
    /// config file starts may see it.
    pub fn from_environment() -> Inheritance {
        let old = process::take_environment_number(OLD_MASTER)
            .filter(|&pid: &i32| pid > 0)
            .map(Pid::from_raw)
            .filter(|&old| is_predecessor(old));
        let sockets = process::take_environment(SOCKETS);
        let adopted = Adopted::from_environment();
        let meant = process::take_environment_number(SYSTEMD_PID) == Some(process::getpid().as_raw());
        let count = process::take_environment_number(SYSTEMD_COUNT).filter(|&count: &i32| meant && count > 0);
        let stage = old.map_or(UpgradeStage::Alone, |old| UpgradeStage::New { old });
        let sockets = match (count, old.is_some() || adopted.is_some(), sockets) {
            (Some(count), ..) => {
                Inherited::FromSystemd((SYSTEMD_FIRST..).take(count.min(SYSTEMD_MOST) as usize).collect())
            }
            (None, true, Some(sockets)) => Inherited::FromMaster(descriptors(&sockets)),
            _ => Inherited::Nothing,
        };
        let by_systemd = matches!(sockets, Inherited::FromSystemd(_));
        let upgrade = Upgrade { stage, by_systemd, in_place: adopted.is_some() };
        Inheritance { upgrade, sockets, adopted: adopted.unwrap_or_default() }
    }
}

/// Whether `old` can be the master that started us: our parent, or a process that has just ended. An app's child may have
/// inherited the variable.
fn is_predecessor(old: Pid) -> bool {
    process::getppid() == old || !process::is_alive(old)
}

impl Upgrade {
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
            UpgradeStage::Alone | UpgradeStage::New { .. } | UpgradeStage::Checking { .. } => None,
        }
    }

    /// The child that tries the new program, if there is one.
    pub fn check(&self) -> Option<Pid> {
        match self.stage {
            UpgradeStage::Checking { child } => Some(child),
            UpgradeStage::Alone | UpgradeStage::New { .. } | UpgradeStage::Old { .. } => None,
        }
    }

    pub fn begin_check(&mut self, child: Pid) {
        self.stage = UpgradeStage::Checking { child };
    }

    pub fn end_check(&mut self) {
        self.stage = UpgradeStage::Alone;
    }

    /// Why no upgrade may begin now, if so: there is one at a time.
    fn obstacle(&self) -> Option<&'static str> {
        match self.stage {
            UpgradeStage::Old { .. } | UpgradeStage::Checking { .. } => Some("Child exists."),
            UpgradeStage::New { .. } => Some("Parent exists."),
            UpgradeStage::Alone => None,
        }
    }

    /// Becomes the only master if the old one is gone: our parent, `parent`, is then another process. True once.
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
        // The last new master may have failed just now, and its end may come after this signal.
        self.reap_new_master();
        if self.may_upgrade("USR2")
            && let Some(new) = self.start_program(Purpose::Serve)
        {
            self.upgrade.stage = UpgradeStage::Old { new };
        }
    }

    /// Whether an upgrade may begin; logs why not.
    pub(super) fn may_upgrade(&self, signal: &str) -> bool {
        let obstacle = self.upgrade.obstacle();
        if let Some(reason) = obstacle {
            warn!("{signal} signal ignored. {reason}");
        }
        obstacle.is_none()
    }

    /// Starts the program once more, as a child. `None` if the system has no room for another process.
    pub(super) fn start_program(&mut self, purpose: Purpose) -> Option<Pid> {
        // No signal may write to our pipe from the child, nor end the child before it is the new program.
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
        let (arguments, environment) = match purpose {
            Purpose::Serve => (command.arguments(None), self.environment_to_pass(&command, Successor::Beside)),
            Purpose::Check => (command.arguments(Some(in_place::CHECK_FLAG)), clean_environment(&command)),
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
            .and_then(|()| self.keep_sockets_on_exec())
            .and_then(|()| env::set_current_dir(&command.cwd))
            .and_then(|()| process::exec(&command.program, &arguments, &environment));
        let Err(error) = executed;
        error!("Can't execute {}: {error}", command.program.display());
        process::exit_now(NOT_EXECUTED)
    }

    pub(super) fn keep_sockets_on_exec(&self) -> std::io::Result<()> {
        let listeners = &self.generations.serving.service.listeners;
        listeners.iter().try_for_each(|listener| process::keep_on_exec(listener.as_raw_fd()))
    }

    /// The environment of our own start, and the sockets.
    pub(super) fn environment_to_pass(&self, command: &ExecCommand, successor: Successor) -> Vec<(OsString, OsString)> {
        let listeners = &self.generations.serving.service.listeners;
        let mut environment = clean_environment(command);
        let mut pass = |name: &str, value: String| environment.push((name.into(), value.into()));
        if successor == Successor::Beside {
            pass(OLD_MASTER, self.pid.to_string());
        }
        if command.environment.iter().any(|(name, _)| name == WATCHDOG_PID) {
            pass(WATCHDOG_PID, process::getpid().to_string());
        }
        if self.upgrade.by_systemd {
            // The descriptors have kept their numbers since systemd passed them.
            pass(SYSTEMD_PID, process::getpid().to_string());
            pass(SYSTEMD_COUNT, listeners.len().to_string());
        } else if !listeners.is_empty() {
            let fds: Vec<_> = listeners.iter().map(|listener| listener.as_raw_fd().to_string()).collect();
            pass(SOCKETS, fds.join(","));
        }
        environment
    }

    /// Reaps the newer master if it has ended. The upgrade has failed or was taken back, and this master is alone again.
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
            self.service_manager.take_over();
            self.move_pid_file();
        }
    }

    /// Moves the pid file to where the settings want it now.
    pub(super) fn move_pid_file(&mut self) {
        let wanted =
            self.generations.serving.service.config.pidfile.as_deref().map(|path| self.upgrade.pid_file_name(path));
        let moved = match (self.pid_file.take(), wanted) {
            (Some(file), Some(path)) if std::path::absolute(&path).is_ok_and(|path| path == file.path()) => {
                Ok(Some(file))
            }
            (Some(file), Some(path)) => file.rename(&path).map(Some),
            (None, Some(path)) => PidFile::create(&path, self.pid).map(Some),
            (Some(file), None) => {
                file.remove();
                Ok(None)
            }
            (None, None) => Ok(None),
        };
        self.pid_file = moved.unwrap_or_else(|error| {
            error!("{error}");
            None
        });
    }
}

/// The purpose of a new process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To serve beside this master.
    Serve,
    /// To find out whether it would start.
    Check,
}

/// The process that the next master runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Successor {
    /// A child of this one.
    Beside,
    /// This very process.
    InPlace,
}

/// The environment of our own start without the variables about sockets, masters and pids.
fn clean_environment(command: &ExecCommand) -> Vec<(OsString, OsString)> {
    let of_in_place = [in_place::MEANT_FOR, in_place::SERVING, in_place::ENDING];
    let ours = [&[OLD_MASTER, SOCKETS, SYSTEMD_PID, SYSTEMD_COUNT, WATCHDOG_PID], &of_in_place[..]].concat();
    let is_ours = |name: &OsStr| ours.iter().any(|&key| name == key);
    command.environment.iter().filter(|(name, _)| !is_ours(name)).cloned().collect()
}

/// Each descriptor once: two listeners with one descriptor would close it twice.
fn descriptors(list: &OsStr) -> Vec<RawFd> {
    let list = list.to_string_lossy();
    let numbers = list.split(',').filter_map(|text| text.trim().parse().ok());
    numbers.fold(Vec::new(), |mut known, number| {
        if !known.contains(&number) {
            known.push(number);
        }
        known
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_read_from_a_list() {
        for (list, fds) in
            [("", vec![]), ("5", vec![5]), ("3,4,17", vec![3, 4, 17]), ("3, x,", vec![3]), ("4,3,4", vec![4, 3])]
        {
            assert_eq!(descriptors(OsStr::new(list)), fds, "{list:?}");
        }
    }

    const OTHER: Pid = Pid::from_raw(7);

    fn at(stage: UpgradeStage) -> Upgrade {
        Upgrade { stage, by_systemd: false, in_place: false }
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
        assert_eq!(at(UpgradeStage::Checking { child: OTHER }).obstacle(), Some("Child exists."));
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
