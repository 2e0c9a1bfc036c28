//! The first page of the board: what identifies the board, and what the master says and counts.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::boards::{masters_page, workers_rows};
use super::layout::{MAGIC, MasterWord, NAME_WORDS, PATH_WORDS, VERSION};
use super::tallies::{read_text, write_text};
use super::{ExitCause, Scoreboard};
use crate::sys::clock::{monotonic_ns, unix_time_ms};
use crate::sys::process::{Pid, getpid};

/// How the last reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastReload {
    /// Whether the new generation took over.
    pub is_ok: bool,
    /// When it ended, in milliseconds since the epoch.
    pub at_ms: u64,
}

impl Scoreboard {
    pub(super) fn open_page(&self) {
        self.set(MasterWord::Version, VERSION);
        self.set(MasterWord::Rows, workers_rows(&self.0) as u64);
        self.set(MasterWord::StartedAt, unix_time_ms());
        self.set(MasterWord::MadeAt, monotonic_ns());
        self.set(MasterWord::Pid, getpid().as_raw() as u64);
        // Written last: a reader that finds it finds the rest.
        self.word(MasterWord::Magic).store(MAGIC, Release);
    }

    /// Sets the stop flag: tells all workers that the server must stop.
    pub fn announce_stop(&self) {
        self.set(MasterWord::Stopping, 1);
    }

    /// Makes health checks fail while the server serves on, or succeed again.
    pub fn set_drained(&self, is_drained: bool) {
        self.set(MasterWord::Drained, is_drained.into());
    }

    /// Writes which generation serves, of how many workers, and with which application.
    pub fn set_service(&self, generation: u64, wanted: usize, name: &str) {
        self.set(MasterWord::Generation, generation);
        self.set(MasterWord::Wanted, wanted as u64);
        write_text(&self.words()[MasterWord::Name as usize..][..NAME_WORDS], name);
    }

    /// Writes where the control socket is; empty for nowhere.
    pub fn set_control_path(&self, path: &str) {
        write_text(&self.words()[MasterWord::ControlPath as usize..][..PATH_WORDS], path);
    }

    /// Where the control socket is; empty without one.
    pub fn control_path(&self) -> String {
        read_text(&self.words()[MasterWord::ControlPath as usize..][..PATH_WORDS])
    }

    /// Tells all workers the level that the error log is to have, as Python's `logging` numbers it.
    pub fn ask_for_log_level(&self, number: u8) {
        let times = (self.get(MasterWord::LogLevel) >> 8) + 1;
        self.set(MasterWord::LogLevel, times << 8 | u64::from(number));
    }

    /// Counts a worker that was forked, for this row.
    pub fn count_start(&self, row: usize) {
        self.word(MasterWord::Starts).fetch_add(1, Relaxed);
        self.note_row(row);
    }

    /// Counts a worker that has ended.
    pub fn count_exit(&self, cause: ExitCause) {
        self.words()[MasterWord::Exits as usize + cause as usize].fetch_add(1, Relaxed);
    }

    /// Counts a reload, and notes how it ended.
    pub fn count_reload(&self, is_ok: bool) {
        let now = unix_time_ms();
        self.set(MasterWord::LastReloadAt, now);
        if is_ok {
            self.set(MasterWord::LastReloadOkAt, now);
        }
        self.set(MasterWord::LastReload, if is_ok { 1 } else { 2 });
        self.word(if is_ok { MasterWord::ReloadsOk } else { MasterWord::ReloadsFailed }).fetch_add(1, Relaxed);
    }

    /// Counts a change of the number of workers that the load has asked for.
    pub fn count_scaling(&self, is_up: bool) {
        self.word(if is_up { MasterWord::ScaledUp } else { MasterWord::ScaledDown }).fetch_add(1, Relaxed);
    }

    /// How often the load has asked for more workers, and for fewer.
    pub fn scalings(&self) -> (u64, u64) {
        (self.total_of(MasterWord::ScaledUp), self.total_of(MasterWord::ScaledDown))
    }

    /// Whether the server is stopping.
    pub fn is_stopping(&self) -> bool {
        self.get(MasterWord::Stopping) == 1
    }

    /// Whether health checks are to say that the server serves.
    pub fn passes_checks(&self) -> bool {
        !self.is_stopping() && self.get(MasterWord::Drained) == 0
    }

    /// The master's pid.
    pub fn master(&self) -> Pid {
        Pid::from_raw(self.get(MasterWord::Pid) as i32)
    }

    /// When the master started, in milliseconds since the epoch.
    pub fn started_at_ms(&self) -> u64 {
        self.get(MasterWord::StartedAt)
    }

    /// Workers that the serving generation should have.
    pub fn wanted(&self) -> u64 {
        self.get(MasterWord::Wanted)
    }

    /// The number of the generation that serves.
    pub fn generation(&self) -> u64 {
        self.get(MasterWord::Generation)
    }

    /// The name of the application.
    pub fn name(&self) -> String {
        read_text(&self.words()[MasterWord::Name as usize..][..NAME_WORDS])
    }

    /// Workers forked so far.
    pub fn starts(&self) -> u64 {
        self.total_of(MasterWord::Starts)
    }

    /// Workers that have ended for this cause.
    pub fn exits(&self, cause: ExitCause) -> u64 {
        self.0.masters_total(MasterWord::Exits as usize + cause as usize)
    }

    /// Reloads so far: those that took over, and those that failed.
    pub fn reloads(&self) -> (u64, u64) {
        (self.total_of(MasterWord::ReloadsOk), self.total_of(MasterWord::ReloadsFailed))
    }

    /// How the last reload ended, if there was one.
    pub fn last_reload(&self) -> Option<LastReload> {
        let outcome = self.get(MasterWord::LastReload);
        (outcome > 0).then(|| LastReload { is_ok: outcome == 1, at_ms: self.get(MasterWord::LastReloadAt) })
    }

    /// When a reload last took over, in milliseconds since the epoch, if one has.
    pub fn last_reload_ok_at_ms(&self) -> Option<u64> {
        Some(self.get(MasterWord::LastReloadOkAt)).filter(|&at| at > 0)
    }

    /// Counts lines of the master's own logs that were dropped.
    pub fn count_lines_dropped(&self, lines: u64) {
        if lines > 0 {
            self.word(MasterWord::LinesDropped).fetch_add(lines, Relaxed);
        }
    }

    /// Notes that a worker of this program, or of an earlier one, has this row.
    pub fn note_row(&self, row: usize) {
        self.word(MasterWord::RowsUsed).fetch_max(row as u64 + 1, Relaxed);
    }

    /// What this master and those of earlier programs have counted in this word.
    pub(super) fn total_of(&self, word: MasterWord) -> u64 {
        self.0.masters_total(word as usize)
    }

    fn set(&self, word: MasterWord, value: u64) {
        self.word(word).store(value, Relaxed);
    }

    pub(super) fn get(&self, word: MasterWord) -> u64 {
        self.word(word).load(Relaxed)
    }

    fn word(&self, word: MasterWord) -> &AtomicU64 {
        &self.words()[word as usize]
    }

    fn words(&self) -> &[AtomicU64] {
        &masters_page(&self.0)[..]
    }
}
