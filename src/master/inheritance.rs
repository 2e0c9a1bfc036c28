//! What one master leaves to the next in the environment: pids, and sockets by descriptor number.
//!
//! The names are gunicorn's and systemd's where those have names, so that gunicorn and this server
//! can follow each other. The module must not know when or how a master is replaced.

use std::ffi::{OsStr, OsString};
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

use crate::bootstrap::ExecCommand;
use crate::scoreboard;
use crate::sys::failure_note::FailureNote;
use crate::sys::process::{self, Pid};

use super::service_manager::WATCHDOG_PID;

/// The old master's pid.
const OLD_MASTER: &str = "GUNICORN_PID";
/// The descriptors of its sockets, separated by commas.
const SOCKETS: &str = "GUNICORN_FD";

/// From systemd: the process that gets descriptors, and how many it gets, from 3 on
/// (sd_listen_fds(3)).
const SYSTEMD_PID: &str = "LISTEN_PID";
const SYSTEMD_COUNT: &str = "LISTEN_FDS";
const SYSTEMD_FIRST: RawFd = 3;
/// The most descriptors that the master takes: more than systemd passes, and few enough to try them
/// all.
const SYSTEMD_MOST: RawFd = 1024;

/// The pid of the process that the variables of workers and dirty arbiters are for, like systemd's
/// LISTEN_PID: other processes may inherit them.
const IN_PLACE: &str = "MONOCEROS_IN_PLACE";
/// The pids of the workers that serve, separated by commas.
const SERVING: &str = "MONOCEROS_WORKERS";
/// The pid of a process that tries whether the program would start, and the descriptor of the note
/// for its reason if it would not, separated by a comma.
const NOTE: &str = "MONOCEROS_FAILURE_NOTE";
/// The pids of the workers that have been told to end, separated by commas.
const ENDING: &str = "MONOCEROS_ENDING_WORKERS";
/// The pid file that the earlier program has written.
const PID_FILE: &str = "MONOCEROS_PID_FILE";
/// The dirty arbiters: a line each, with pid, colon and folder.
const DIRTY: &str = "MONOCEROS_DIRTY_ARBITERS";

/// The descriptors of the boards that the earlier program has read and of its own, separated by
/// commas.
const BOARDS: &str = "MONOCEROS_BOARDS";
/// The descriptor of a board that the earlier program has made for this one.
const FRESH_BOARD: &str = "MONOCEROS_BOARD";
/// The descriptors of the socket of `metrics_bind` and of the memory that says which program
/// answers there, and this program's number in that memory.
const METRICS: &str = "MONOCEROS_METRICS";

/// What an earlier program has left to this one. The variables give power over other processes. So
/// they count only if they are meant for this process, and they are removed from the environment
/// before foreign code could pass them on.
#[derive(Debug)]
pub struct Inheritance {
    /// The master that started this one.
    pub(super) old_master: Option<Pid>,
    pub(super) sockets: Inherited,
    /// `Some` if this program was executed over an earlier one.
    pub(super) adopted: Option<Adopted>,
    /// Where this program says why it would not start, if a master tries whether it would.
    pub failure_note: Option<FailureNote>,
    /// The scoreboards that earlier programs have left.
    pub(super) boards: scoreboard::InheritedBoards,
    pub(super) metrics: Option<PassedMetrics>,
}

/// The socket of `metrics_bind`, as it is passed on: by descriptors, and the number of the program
/// that gets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PassedMetrics {
    pub socket: RawFd,
    pub turn: RawFd,
    pub number: u64,
}

/// Sockets that were open when the program started.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inherited {
    Nothing,
    FromSystemd(Vec<RawFd>),
    FromMaster(Vec<RawFd>),
}

/// The workers that an earlier program in this process has left.
#[derive(Debug)]
pub(super) struct Adopted {
    pub serving: Vec<Pid>,
    /// The workers that have been told to end.
    pub ending: Vec<Pid>,
    pub dirty: Vec<AdoptedPool>,
    pub pid_file: Option<PathBuf>,
}

/// A dirty arbiter, and the folder of its sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AdoptedPool {
    pub pid: Pid,
    pub folder: PathBuf,
}

impl AdoptedPool {
    fn parse(line: &str) -> Option<AdoptedPool> {
        let (pid, folder) = line.split_once(':')?;
        Some(AdoptedPool { pid: pid.parse().ok().map(Pid::from_raw)?, folder: folder.into() })
    }

    fn line(&self) -> String {
        format!("{}:{}", self.pid, self.folder.display())
    }
}

impl Inheritance {
    /// Reads what the process was started with, and takes it out of the environment: neither the
    /// app nor a program that a config file starts may see it.
    pub fn from_environment() -> Inheritance {
        let old_master = process::take_environment_number(OLD_MASTER)
            .filter(|&pid: &i32| pid > 0)
            .map(Pid::from_raw)
            .filter(|&old| is_predecessor(old));
        let passed = process::take_environment(SOCKETS);
        let adopted = Adopted::from_environment();
        let meant = process::take_environment_number(SYSTEMD_PID) == Some(process::getpid().as_raw());
        let count = process::take_environment_number(SYSTEMD_COUNT).filter(|&count: &i32| meant && count > 0);
        let has_predecessor = old_master.is_some() || adopted.is_some();
        let sockets = match (count, passed.filter(|_| has_predecessor)) {
            (Some(count), _) => {
                Inherited::FromSystemd((SYSTEMD_FIRST..).take(count.min(SYSTEMD_MOST) as usize).collect())
            }
            (None, Some(passed)) => Inherited::FromMaster(descriptors(&passed)),
            (None, None) => Inherited::Nothing,
        };
        let [boards, fresh, metrics] = [BOARDS, FRESH_BOARD, METRICS].map(|name| {
            let list = process::take_environment(name).filter(|_| has_predecessor);
            list.unwrap_or_default()
        });
        let boards = scoreboard::InheritedBoards { earlier: open_files(&boards), fresh: open_files(&fresh).pop() };
        let (failure_note, metrics) = (take_note(), PassedMetrics::parse(&metrics));
        Inheritance { old_master, sockets, adopted, failure_note, boards, metrics }
    }
}

impl PassedMetrics {
    fn parse(text: &OsStr) -> Option<PassedMetrics> {
        let text = text.to_string_lossy();
        let mut numbers = text.split(',');
        let (socket, turn) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        Some(PassedMetrics { socket, turn, number: numbers.next()?.parse().ok()? })
    }
}

/// The files of these descriptors, as far as they are open.
fn open_files(list: &OsStr) -> Vec<OwnedFd> {
    descriptors(list).into_iter().filter_map(|fd| process::inherited_descriptor(fd).ok()).collect()
}

impl Adopted {
    /// Reads and removes the variables of an upgrade in place. Only children of this process count
    /// as workers.
    fn from_environment() -> Option<Adopted> {
        let is_meant = take_pids(IN_PLACE) == [process::getpid()];
        let [serving, ending] = [SERVING, ENDING].map(take_pids);
        let dirty = process::take_environment(DIRTY).unwrap_or_default().to_string_lossy().into_owned();
        let dirty = dirty.lines().filter_map(AdoptedPool::parse).filter(|it| process::is_child(it.pid)).collect();
        let pid_file = process::take_environment(PID_FILE).map(PathBuf::from);
        is_meant.then(|| Adopted { serving: children(serving), ending: children(ending), dirty, pid_file })
    }
}

/// Whether `old` can be the master that started us: our parent, or a process that has just ended.
/// An app's child may have inherited the variable.
fn is_predecessor(old: Pid) -> bool {
    process::getppid() == old || !process::is_alive(old)
}

/// Those of `pids` that are children. Another process may have such a pid by now, and the master is
/// going to signal its workers.
fn children(pids: Vec<Pid>) -> Vec<Pid> {
    pids.into_iter().filter(|&pid| process::is_child(pid)).collect()
}

fn take_note() -> Option<FailureNote> {
    let passed = process::take_environment(NOTE)?;
    let (pid, descriptor) = passed.to_str()?.split_once(',')?;
    let is_meant = pid.parse() == Ok(process::getpid().as_raw());
    FailureNote::inherited(descriptor.parse().ok().filter(|_| is_meant)?)
}

fn take_pids(name: &str) -> Vec<Pid> {
    let list = process::take_environment(name).unwrap_or_default();
    let numbers = list.to_string_lossy().into_owned();
    numbers.split(',').filter_map(|text| text.parse().ok()).filter(|&pid| pid > 0).map(Pid::from_raw).collect()
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

/// The next master.
#[derive(Debug)]
pub(super) enum Successor {
    /// A child of this master.
    Beside { master: Pid },
    /// The new program in this process, with these workers, dirty arbiters and pid file.
    InPlace { serving: Vec<Pid>, ending: Vec<Pid>, dirty: Vec<AdoptedPool>, pid_file: Option<PathBuf> },
}

/// The descriptors that the next master gets.
#[derive(Debug, Default)]
pub(super) struct Estate {
    pub sockets: Vec<RawFd>,
    /// systemd opened the sockets.
    pub by_systemd: bool,
    pub boards: Vec<RawFd>,
    pub fresh_board: Option<RawFd>,
    pub metrics: Option<PassedMetrics>,
}

impl Estate {
    /// All of them.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let metrics = self.metrics.iter().flat_map(|metrics| [metrics.socket, metrics.turn]);
        self.sockets.iter().chain(&self.boards).chain(&self.fresh_board).copied().chain(metrics)
    }
}

/// The environment of the successor: that of our own start, with the variables for the successor.
/// To be called in the process that executes the program, because systemd's variables name that
/// process.
pub(super) fn environment_for(
    successor: &Successor,
    command: &ExecCommand,
    estate: &Estate,
) -> Vec<(OsString, OsString)> {
    let own_pid = process::getpid();
    let mut environment = clean_environment(command);
    let mut pass = |name: &str, value: String| environment.push((name.into(), value.into()));
    match successor {
        Successor::Beside { master } => pass(OLD_MASTER, master.to_string()),
        Successor::InPlace { serving, ending, dirty, pid_file } => {
            pass(IN_PLACE, own_pid.to_string());
            pass(SERVING, list(serving));
            pass(ENDING, list(ending));
            if !dirty.is_empty() {
                pass(DIRTY, dirty.iter().map(AdoptedPool::line).collect::<Vec<_>>().join("\n"));
            }
            environment.extend(pid_file.iter().map(|path| (PID_FILE.into(), path.into())));
        }
    }
    let mut pass = |name: &str, value: String| environment.push((name.into(), value.into()));
    if command.environment.iter().any(|(name, _)| name == WATCHDOG_PID) {
        pass(WATCHDOG_PID, own_pid.to_string());
    }
    if estate.by_systemd {
        // The descriptors have kept their numbers since systemd passed them.
        pass(SYSTEMD_PID, own_pid.to_string());
        pass(SYSTEMD_COUNT, estate.sockets.len().to_string());
    } else if !estate.sockets.is_empty() {
        pass(SOCKETS, list(&estate.sockets));
    }
    if !estate.boards.is_empty() {
        pass(BOARDS, list(&estate.boards));
    }
    if let Some(board) = estate.fresh_board {
        pass(FRESH_BOARD, board.to_string());
    }
    if let Some(PassedMetrics { socket, turn, number }) = estate.metrics {
        pass(METRICS, format!("{socket},{turn},{number}"));
    }
    environment
}

/// The environment of a program that is only tried, and leaves the reason of its failure in `note`.
/// To be called in the process that executes the program.
pub(super) fn trial_environment(command: &ExecCommand, note: Option<RawFd>) -> Vec<(OsString, OsString)> {
    let mut environment = clean_environment(command);
    if let Some(note) = note {
        environment.push((NOTE.into(), format!("{},{note}", process::getpid()).into()));
    }
    environment
}

/// The environment of our own start without the variables about sockets, masters and pids.
fn clean_environment(command: &ExecCommand) -> Vec<(OsString, OsString)> {
    let ours = [
        OLD_MASTER,
        SOCKETS,
        SYSTEMD_PID,
        SYSTEMD_COUNT,
        WATCHDOG_PID,
        IN_PLACE,
        SERVING,
        ENDING,
        PID_FILE,
        DIRTY,
        NOTE,
        BOARDS,
        FRESH_BOARD,
        METRICS,
    ];
    let is_ours = |name: &OsStr| ours.iter().any(|&key| name == key);
    command.environment.iter().filter(|(name, _)| !is_ours(name)).cloned().collect()
}

fn list(numbers: &[impl ToString]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
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

    /// What is passed on to a successor of a program that was started with `environment`; `own`
    /// stands for our pid.
    fn passed(successor: &Successor, environment: &[&str], sockets: &[RawFd], by_systemd: bool) -> String {
        passed_of(successor, environment, Estate { sockets: sockets.to_vec(), by_systemd, ..Estate::default() })
    }

    fn passed_of(successor: &Successor, environment: &[&str], estate: Estate) -> String {
        let (environment, cwd) = (environment.iter().map(|&name| (name.into(), "1".into())).collect(), "/".into());
        let command = ExecCommand { program: "x".into(), command: Vec::new(), argv: Vec::new(), cwd, environment };
        let own = process::getpid().to_string();
        let passed = environment_for(successor, &command, &estate);
        let words = passed.iter().map(|(name, value)| {
            let value = value.to_string_lossy();
            format!("{}={}", name.display(), if value == own { "own" } else { &value })
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_new_master_gets_the_sockets_and_nothing_of_an_earlier_upgrade() {
        let beside = Successor::Beside { master: Pid::from_raw(7) };
        assert_eq!(
            passed(&beside, &["PATH", "GUNICORN_PID", "MONOCEROS_WORKERS"], &[5, 6], false),
            "PATH=1 GUNICORN_PID=7 GUNICORN_FD=5,6"
        );
        assert_eq!(
            passed(&beside, &["LISTEN_FDS", "LISTEN_PID"], &[3, 4], true),
            "GUNICORN_PID=7 LISTEN_PID=own LISTEN_FDS=2"
        );
        assert_eq!(passed(&beside, &["WATCHDOG_PID"], &[], false), "GUNICORN_PID=7 WATCHDOG_PID=own");
    }

    #[test]
    fn a_program_in_place_gets_the_workers_too() {
        let workers = [vec![Pid::from_raw(8), Pid::from_raw(9)], Vec::new()];
        let [serving, ending] = workers;
        let in_place = |dirty| {
            let pid_file = Some("/run/x y.pid".into());
            Successor::InPlace { serving: serving.clone(), ending: ending.clone(), dirty, pid_file }
        };
        assert_eq!(
            passed(&in_place(Vec::new()), &["GUNICORN_PID"], &[5], false),
            "MONOCEROS_IN_PLACE=own MONOCEROS_WORKERS=8,9 MONOCEROS_ENDING_WORKERS= MONOCEROS_PID_FILE=/run/x y.pid GUNICORN_FD=5"
        );
        let line = "10:/tmp/gunicorn-dirty-x: y";
        let pool = AdoptedPool::parse(line).unwrap();
        assert_eq!((pool.pid, pool.line().as_str()), (Pid::from_raw(10), line));
        let all = passed(&in_place(vec![pool.clone(), pool]), &["MONOCEROS_DIRTY_ARBITERS"], &[], false);
        assert!(all.contains(&format!("MONOCEROS_DIRTY_ARBITERS={line}\n{line} ")), "{all}");
    }

    #[test]
    fn what_was_counted_is_passed_on_and_where_metrics_are_answered() {
        let beside = Successor::Beside { master: Pid::from_raw(7) };
        let metrics = Some(PassedMetrics { socket: 10, turn: 11, number: 2 });
        let estate = Estate { boards: vec![8, 9], fresh_board: Some(12), metrics, ..Estate::default() };
        assert_eq!(estate.descriptors().collect::<Vec<_>>(), [8, 9, 12, 10, 11]);
        assert_eq!(
            passed_of(&beside, &["MONOCEROS_METRICS"], estate),
            "GUNICORN_PID=7 MONOCEROS_BOARDS=8,9 MONOCEROS_BOARD=12 MONOCEROS_METRICS=10,11,2"
        );
        assert_eq!(PassedMetrics::parse(OsStr::new("10,11,2")), metrics);
        assert_eq!(PassedMetrics::parse(OsStr::new("10,11")), None);
    }
}
