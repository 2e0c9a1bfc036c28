//! What stands on a board at one moment, and what has happened between two moments.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::scoreboard::{ExitCause, Histogram, LastReload, Scoreboard, WorkerReading};
use crate::sys::clock::unix_time_ms;
use crate::sys::memory;
use crate::sys::process::Pid;

/// What counts as the memory of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// Every page that it has, shared ones too.
    Resident,
    /// Every page, but shared ones only in part. The kernel walks all pages to find this number.
    Proportional,
}

/// Numbers of one moment.
pub(super) struct Reading {
    pub at: Instant,
    pub memory: Memory,
    pub master: MasterReading,
    pub workers: Vec<WorkerReading>,
    /// Processor time and memory of each row's workers.
    pub usage: BTreeMap<usize, (Option<Duration>, Option<u64>)>,
    pub totals: Totals,
}

/// What the master says of the server.
pub(super) struct MasterReading {
    pub name: String,
    pub pid: Pid,
    pub up: Duration,
    pub generation: u64,
    /// Workers that there should be.
    pub wanted: u64,
    pub is_stopping: bool,
    pub last_reload: Option<LastReload>,
}

/// What has been counted since the server began.
pub(super) struct Totals {
    /// By status.
    pub responses: Vec<(u16, u64)>,
    pub durations: Histogram,
    pub queue_times: Histogram,
    /// Connections accepted.
    pub accepted: u64,
    /// Ends of workers.
    pub exits: Vec<(ExitCause, u64)>,
}

impl Reading {
    pub fn of(board: &Scoreboard, memory: Memory) -> Reading {
        let workers = board.read_workers();
        let memory_of = match memory {
            Memory::Resident => memory::resident,
            Memory::Proportional => memory::proportional,
        };
        let usage =
            |worker: &WorkerReading| (worker.number, (board.cpu_of(worker.number), worker.pid.and_then(memory_of)));
        Reading {
            at: Instant::now(),
            memory,
            master: MasterReading::of(board),
            usage: workers.iter().map(usage).collect(),
            workers,
            totals: Totals::of(board),
        }
    }

    /// The workers that live.
    pub fn living(&self) -> impl Iterator<Item = &WorkerReading> {
        self.workers.iter().filter(|worker| worker.pid.is_some())
    }

    /// The workers that answer requests.
    pub fn serving(&self) -> impl Iterator<Item = &WorkerReading> {
        self.living().filter(|worker| worker.is_serving())
    }

    /// Threads of serving workers, and how many of them are in the application.
    pub fn threads(&self) -> (u64, u64) {
        let all = self.serving().map(|worker| worker.threads).sum();
        (all, self.serving().map(|worker| worker.threads_busy()).sum())
    }

    /// Requests that the application was called with.
    pub fn requests(&self) -> u64 {
        self.workers.iter().map(|worker| worker.totals.requests).sum()
    }

    /// Responses of a class, 5 for 5xx; without 499.
    pub fn class(&self, class: u16) -> u64 {
        self.totals
            .responses
            .iter()
            .filter(|(code, _)| code / 100 == class && *code != 499)
            .map(|(_, count)| count)
            .sum()
    }

    /// Responses with one status.
    pub fn code(&self, wanted: u16) -> u64 {
        self.totals.responses.iter().filter(|(code, _)| *code == wanted).map(|(_, count)| count).sum()
    }

    /// Time that threads have been in the application.
    pub fn busy(&self) -> Duration {
        self.workers.iter().map(|worker| worker.totals.busy).sum()
    }
}

impl MasterReading {
    fn of(board: &Scoreboard) -> MasterReading {
        MasterReading {
            name: board.name(),
            pid: board.master(),
            up: Duration::from_millis(unix_time_ms().saturating_sub(board.started_at_ms())),
            generation: board.generation(),
            wanted: board.wanted(),
            is_stopping: board.is_stopping(),
            last_reload: board.last_reload(),
        }
    }
}

impl Totals {
    fn of(board: &Scoreboard) -> Totals {
        Totals {
            responses: board.responses(),
            durations: board.durations(),
            queue_times: board.queue_times(),
            accepted: board.accepted(),
            exits: ExitCause::ALL.map(|cause| (cause, board.exits(cause))).to_vec(),
        }
    }
}

/// The time between two readings, and what has happened in it.
pub(super) struct Between<'a> {
    pub now: &'a Reading,
    pub before: &'a Reading,
}

impl Between<'_> {
    pub fn seconds(&self) -> f64 {
        self.now.at.saturating_duration_since(self.before.at).as_secs_f64().max(1e-3)
    }

    /// By how much a count has risen per second.
    pub fn rate(&self, count: impl Fn(&Reading) -> u64) -> f64 {
        count(self.now).saturating_sub(count(self.before)) as f64 / self.seconds()
    }

    /// The share of the threads' time that was spent in the application.
    pub fn busy_share(&self) -> f64 {
        let (threads, _) = self.now.threads();
        let busy = self.now.busy().saturating_sub(self.before.busy()).as_secs_f64();
        share(busy, threads as f64 * self.seconds())
    }

    /// The row of this worker in the earlier reading.
    pub fn earlier(&self, worker: &WorkerReading) -> Option<&WorkerReading> {
        self.before.workers.iter().find(|earlier| earlier.number == worker.number)
    }
}

/// A part of a whole, from 0 to 1.
pub(super) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 }
}
