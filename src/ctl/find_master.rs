//! Which server is meant: by its master's pid, by a pid file, or as the only one there is.

use std::fmt;
use std::fs;
use std::io::ErrorKind;

use crate::scoreboard::{OpenError, Scoreboard};
use crate::sys::process::Pid;

/// How a master's title begins.
const TITLE: &[u8] = b"monoceros: master";

/// Why there is no board to be looked at.
#[derive(Debug)]
pub(super) enum NotFound {
    /// No such server runs.
    NotRunning(String),
    /// More than one does: the pids of the masters.
    Several(Vec<Pid>),
    /// The server's board or the pid file cannot be read, or the pid file holds no pid.
    Unknown(String),
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotFound::NotRunning(reason) | NotFound::Unknown(reason) => f.write_str(reason),
            NotFound::Several(pids) => {
                let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
                write!(f, "several servers run here: name one of the masters, {}", pids.join(", "))
            }
        }
    }
}

/// The board of the server that `target` names.
pub(super) fn find(target: Option<&str>) -> Result<Scoreboard, NotFound> {
    let Some(target) = target else { return find_alone() };
    let pid = match target.parse() {
        Ok(pid) => pid,
        Err(_) => read_pid_file(target)?,
    };
    open(Pid::from_raw(pid))
}

fn read_pid_file(path: &str) -> Result<i32, NotFound> {
    let text = fs::read_to_string(path).map_err(|error| {
        let reason = format!("cannot read the pid file {path:?}: {error}");
        if error.kind() == ErrorKind::NotFound { NotFound::NotRunning(reason) } else { NotFound::Unknown(reason) }
    })?;
    text.trim().parse().map_err(|_| NotFound::Unknown(format!("{path:?} is no pid file: it holds {:?}", text.trim())))
}

fn open(pid: Pid) -> Result<Scoreboard, NotFound> {
    Scoreboard::open(pid).map_err(|error| {
        let reason = format!("no server with the master {pid} can be looked into: {error}");
        match error {
            OpenError::NoProcess | OpenError::NoBoard => NotFound::NotRunning(reason),
            OpenError::NotPermitted | OpenError::OtherVersion(_) | OpenError::Failed(_) => NotFound::Unknown(reason),
        }
    })
}

fn find_alone() -> Result<Scoreboard, NotFound> {
    let (mut found, mut closed) = (Vec::new(), None);
    for pid in masters() {
        match open(pid) {
            Ok(board) => found.push(board),
            // A child that the master has just forked: it still has the master's title.
            Err(NotFound::NotRunning(_)) => {}
            Err(other) => closed = Some(other),
        }
    }
    match (found.len(), closed) {
        (1, _) => Ok(found.remove(0)),
        (0, Some(closed)) => Err(closed),
        (0, None) => Err(NotFound::NotRunning("no monoceros server runs here".to_owned())),
        _ => Err(NotFound::Several(found.iter().map(Scoreboard::master).collect())),
    }
}

/// Processes that look like masters.
fn masters() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|title| title.starts_with(TITLE)))
        .map(Pid::from_raw)
        .collect()
}
