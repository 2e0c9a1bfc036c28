//! Why a worker ended: what its exit status says, and what the kernel's counters say about a
//! SIGKILL.

use log::{error, info, warn};

use crate::scoreboard::ExitCause;
use crate::sys::cgroup;
use crate::sys::process::{End, signal_name};

use super::overdue::Overdue;
use super::standing::Fate;
use super::worker::Worker;

/// A failure to boot that ends a master whose application has never worked. The numbers are
/// gunicorn's exit statuses, of a worker and of its master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BootFailure {
    Worker,
    App,
}

impl BootFailure {
    pub fn status(self) -> i32 {
        match self {
            BootFailure::Worker => 3,
            BootFailure::App => 4,
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            BootFailure::Worker => "Worker failed to boot.",
            BootFailure::App => "App failed to load.",
        }
    }

    pub fn from_end(end: End) -> Option<BootFailure> {
        [BootFailure::Worker, BootFailure::App].into_iter().find(|failure| end == End::Exited(failure.status()))
    }
}

/// The kernel's counters of processes that it has killed because memory ran out, at the last look.
pub(super) struct OomWatch {
    group: Option<u64>,
    system: Option<u64>,
}

/// The possible senders of a SIGKILL that the master has not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Killer {
    /// The kernel, at the limit of our cgroup.
    OutOfMemory,
    /// The kernel has killed some process because memory ran out since the last look: perhaps this
    /// one.
    Perhaps,
    /// Another process, as far as the kernel's counters say.
    OtherProcess,
    /// The kernel has no counters.
    Unknown,
}

impl OomWatch {
    pub fn new() -> OomWatch {
        OomWatch { group: cgroup::oom_kills(), system: cgroup::system_oom_kills() }
    }

    fn killer(&mut self) -> Killer {
        let now = OomWatch::new();
        let before = std::mem::replace(self, now);
        match (more(before.group, self.group), more(before.system, self.system)) {
            (Some(true), _) => Killer::OutOfMemory,
            (_, Some(true)) => Killer::Perhaps,
            (None, None) => Killer::Unknown,
            _ => Killer::OtherProcess,
        }
    }

    /// Who may have sent the SIGKILL that has ended a worker; `None` if the master did, or if the
    /// worker has ended in another way.
    pub fn look(&mut self, worker: &Worker, end: End) -> Option<Killer> {
        let is_killed = matches!(end, End::Killed(number) if name_of(number) == "SIGKILL");
        (is_killed && !matches!(worker.fate, Fate::Killed | Fate::Discarded)).then(|| self.killer())
    }
}

/// Logs an end in gunicorn's words, with the reason where gunicorn guesses.
pub(super) fn log_end(worker: &Worker, end: End, killer: Option<Killer>) {
    let pid = worker.pid;
    match end {
        End::Exited(0) => {}
        End::Exited(code) => error!("Worker (pid:{pid}) exited with code {code}."),
        End::Killed(number) => match (name_of(number).as_str(), killer) {
            ("SIGKILL", Some(killer)) => error!("Worker (pid:{pid}) was sent SIGKILL! {}", killer.says()),
            ("SIGKILL", None) => error!("Worker (pid:{pid}) was sent SIGKILL! It had not ended in time."),
            ("SIGTERM", _) => info!("Worker (pid:{pid}) was sent SIGTERM!"),
            (name, _) => warn!("Worker (pid:{pid}) was sent {name}!"),
        },
    }
}

/// How a worker ended, as a part of a sentence.
pub(super) fn said(worker: &Worker, end: End) -> String {
    match end {
        _ if worker.overdue.is_some() => "took too long and was ended".to_owned(),
        End::Exited(code) => format!("exited with code {code}"),
        End::Killed(number) => format!("was sent {}", name_of(number)),
    }
}

/// The cause under which an end is counted.
pub(super) fn cause(worker: &Worker, end: End, killer: Option<Killer>, is_stopping: bool) -> ExitCause {
    match (worker.overdue, killer) {
        (Some(Overdue::Boot), _) => return ExitCause::BootFailed,
        (Some(Overdue::Request), _) => return ExitCause::RequestTimeout,
        (Some(Overdue::Silent), _) => return ExitCause::Timeout,
        (None, Some(Killer::OutOfMemory | Killer::Perhaps)) => return ExitCause::OutOfMemory,
        (None, Some(Killer::OtherProcess | Killer::Unknown)) => return ExitCause::Killed,
        (None, None) => {}
    }
    if is_stopping {
        return ExitCause::Stop;
    }
    if worker.failed_to_boot() {
        return ExitCause::BootFailed;
    }
    match (end, worker.leaves_for) {
        (End::Exited(0), Some(cause)) => cause,
        // The master has not told the worker to end: somebody has sent it TERM.
        (End::Exited(0), None) => ExitCause::Killed,
        // The worker did not end in time after it was told to.
        (End::Killed(_), Some(cause)) if matches!(worker.fate, Fate::Killed | Fate::Discarded) => cause,
        (End::Killed(_), None) if worker.fate == Fate::Discarded => ExitCause::Reload,
        _ => ExitCause::Crash,
    }
}

impl Killer {
    fn says(self) -> &'static str {
        match self {
            Killer::OutOfMemory => "Out of memory: the kernel has killed it at the limit of its cgroup.",
            Killer::Perhaps => "Perhaps out of memory? The kernel has just killed a process for that.",
            Killer::OtherProcess => "Not by this server, nor by the kernel for want of memory.",
            Killer::Unknown => "Perhaps out of memory?",
        }
    }
}

fn more(before: Option<u64>, now: Option<u64>) -> Option<bool> {
    Some(now? > before?)
}

/// A signal's name as Python has it ("SIGKILL").
pub(super) fn name_of(number: i32) -> String {
    signal_name(number).map_or_else(|| format!("signal {number}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_has_not_moved_clears_the_kernel() {
        let mut watch = OomWatch::new();
        let killer = watch.killer();
        assert!(killer != Killer::OutOfMemory, "nothing was killed here: {killer:?}");
        watch.group = watch.group.map(|count| count.wrapping_sub(1));
        if watch.group.is_some_and(|count| count < u64::MAX) {
            assert_eq!(watch.killer(), Killer::OutOfMemory);
        }
    }
}
