//! The state of the workers, and what they have counted: a row for each, in memory that master and
//! workers share, and that other processes of the same user may read.
//!
//! A worker writes its own row, and can write to no other: each row has pages of its own, and after
//! the fork the worker gives up the rest ([`Row::give_up_others`]). The master reads all rows. One
//! page more, the first, holds what the master says. There are no locks and no messages: every
//! field is an atomic, independent of the others. The state of a worker is cleared when the worker
//! has ended. Its tallies never are, so no total falls when a worker dies. The scoreboard must not
//! know what the master concludes from it.

mod asked_level;
mod boards;
mod causes;
mod earlier;
mod histogram;
mod layout;
mod masters_page;
mod reading;
mod tallies;
mod turn;

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use self::boards::{Board, masters_page, words_of, workers_rows};
use self::layout::{MasterWord, REQUESTS, STATE_WORDS, State, Tally, WORDS};
use crate::sys::clock::{SharedScale, monotonic_ms};
use crate::sys::process::Pid;
use crate::sys::shared::Counters;
use crate::sys::signal::Signal;

pub use self::asked_level::AskedLevel;
pub use self::causes::{ExitCause, RefusalCause};
pub use self::earlier::{InheritedBoards, SuccessorBoard};
pub use self::histogram::Histogram;
pub use self::layout::BOUNDS_NS;
pub use self::masters_page::LastReload;
pub use self::reading::{OpenError, ReadRequest, RowTotals, RowUsage, WorkerReading};
pub use self::tallies::{Count, RequestRun, Running, ServedCounts};
pub use self::turn::MetricsTurn;

/// Rows on the scoreboard: the most workers that can exist at once, during a reload the old and the
/// new ones together.
pub const MAX_WORKERS: NonZeroUsize = NonZeroUsize::new(2048).unwrap();

/// The phases of a worker's life, as it reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerPhase {
    /// Forked, loading the app. Also what an unused row shows.
    Booting,
    /// Serving.
    Ready,
    /// Serving, and asking to be replaced (max_requests).
    Retiring,
    /// Accepting no more connections, finishing its requests.
    Draining,
}

/// The rows of all workers. Made before the first fork.
#[derive(Debug, Clone)]
pub struct Scoreboard(Arc<Board>);

/// One worker's row. Clones are the same row.
#[derive(Debug, Clone)]
pub struct Row {
    board: Arc<Board>,
    number: usize,
    scale: SharedScale,
}

/// An idle worker sends a heartbeat once a second. A worker that has been silent for longer than
/// this is not relied on.
const SILENCE_MS: u64 = 2500;

/// `WorkerPhase::Ready` in a row.
const READY: u64 = 1;
/// `WorkerPhase::Retiring` in a row.
const RETIRING: u64 = 2;

/// The name that the scoreboard has in /proc.
const FILE_NAME: &std::ffi::CStr = c"monoceros-scoreboard";

impl Scoreboard {
    /// Maps a scoreboard of `rows` empty rows, and the page of the master, which is this process.
    pub fn new(rows: NonZeroUsize) -> io::Result<Scoreboard> {
        Scoreboard::after(rows, InheritedBoards::default())
    }

    /// The row with this number; the caller knows how many there are.
    pub fn row(&self, number: usize) -> Row {
        assert!(number < workers_rows(&self.0), "row {number} of {}", workers_rows(&self.0));
        Row { board: Arc::clone(&self.0), number, scale: SharedScale::new() }
    }
}

/// The phase that stands in a row as this number.
fn phase_of(number: u64) -> WorkerPhase {
    match number {
        READY => WorkerPhase::Ready,
        RETIRING => WorkerPhase::Retiring,
        3 => WorkerPhase::Draining,
        _ => WorkerPhase::Booting,
    }
}

impl Row {
    /// From now on this process, which is the row's worker, can write to no other row. For the
    /// child right after the fork: no other thread may use the scoreboard meanwhile.
    ///
    /// # Errors
    /// The kernel has no room for two mappings more.
    pub fn give_up_others(&self) -> io::Result<()> {
        self.board.earlier.iter().for_each(|pages| pages.close_file());
        self.board.keep_writable(self.number + 1)
    }

    /// The whole scoreboard, to be read.
    pub fn scoreboard(&self) -> Scoreboard {
        Scoreboard(Arc::clone(&self.board))
    }

    /// The number of the row.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Empties the state in the row for the next worker. The requests that the last one was at
    /// count as busy time up to now. The master calls it when a worker has ended and before each
    /// fork.
    pub fn clear(&self) {
        self.end_requests_of_dead();
        let words = self.words();
        words[..STATE_WORDS].iter().for_each(|word| word.store(0, Relaxed));
        let counted = self.tally(Tally::Requests).load(Relaxed);
        self.field(State::RequestsAtBirth).store(counted, Relaxed);
    }

    /// Notes which worker has the row from now on. The master calls it after the fork.
    pub fn assign(&self, pid: Pid, generation: u64, threads: usize) {
        self.field(State::Generation).store(generation, Relaxed);
        self.field(State::Threads).store(threads as u64, Relaxed);
        self.field(State::ForkedAt).store(monotonic_ms(), Relaxed);
        self.field(State::Pid).store(pid.as_raw() as u64, Relaxed);
    }

    /// The worker's phase.
    pub fn state(&self) -> WorkerPhase {
        phase_of(self.field(State::Phase).load(Relaxed))
    }

    /// Changes the phase, which only goes forward: one thread of a worker may be told to end before
    /// another reports that the worker serves. The caller then wakes the master.
    pub fn set_state(&self, state: WorkerPhase) {
        let number = match state {
            WorkerPhase::Booting => 0,
            WorkerPhase::Ready => READY,
            WorkerPhase::Retiring => RETIRING,
            WorkerPhase::Draining => 3,
        };
        self.field(State::Phase).fetch_max(number, Relaxed);
    }

    /// Notes that the worker's class accepts connections by itself, and that SIGRTMIN stops that.
    pub fn set_accepts_by_itself(&self) {
        self.field(State::AcceptsByItself).store(1, Relaxed);
    }

    /// The signal that tells the worker to finish: TERM, or RTMIN where its class accepts
    /// connections by itself. A worker of an earlier program has said so on the board of that.
    pub fn stop_signal(&self) -> Signal {
        match self.board.state_of(self.number)[State::AcceptsByItself as usize].load(Relaxed) {
            0 => Signal::Term,
            _ => Signal::Rtmin,
        }
    }

    /// The worker's last heartbeat, in milliseconds of the monotonic clock; None before the first
    /// one.
    pub fn heartbeat(&self) -> Option<u64> {
        Some(self.field(State::Heartbeat).load(Relaxed)).filter(|&at| at != 0)
    }

    /// Records a heartbeat.
    pub fn beat(&self) {
        self.field(State::Heartbeat).store(monotonic_ms(), Relaxed);
    }

    /// Requests the worker has answered.
    pub fn served(&self) -> u64 {
        let counted = self.tally(Tally::Requests).load(Relaxed);
        counted.saturating_sub(self.field(State::RequestsAtBirth).load(Relaxed))
    }

    /// Writes how many requests the worker has answered, for a worker that counts them itself.
    pub fn set_served(&self, count: u64) {
        let at_birth = self.field(State::RequestsAtBirth).load(Relaxed);
        // Tallies never fall.
        self.tally(Tally::Requests).fetch_max(at_birth.saturating_add(count), Relaxed);
    }

    /// When the oldest running request of the worker began, in milliseconds of the monotonic clock;
    /// None while it is idle.
    pub fn request_started_at(&self) -> Option<u64> {
        let starts = self.starts().iter().map(|start| start.load(Relaxed));
        starts.filter(|&at| at > tallies::BEING_COUNTED).min().map(|at| at / 1_000_000)
    }

    /// How many requests the worker is running.
    pub fn running(&self) -> u64 {
        let starts = self.starts().iter().map(|start| start.load(Relaxed));
        starts.filter(|&at| at > tallies::BEING_COUNTED).count() as u64 + self.field(State::Unplaced).load(Relaxed)
    }

    /// Notes that the worker runs its requests in greenlets of one thread.
    pub fn set_has_greenlets(&self) {
        self.field(State::HasGreenlets).store(1, Relaxed);
    }

    fn has_greenlets(&self) -> bool {
        self.field(State::HasGreenlets).load(Relaxed) != 0
    }

    /// Open connections of the worker.
    pub fn connections(&self) -> u64 {
        self.field(State::Connections).load(Relaxed)
    }

    /// Writes the number of open connections.
    pub fn set_connections(&self, count: u64) {
        self.field(State::Connections).store(count, Relaxed);
    }

    /// Writes the number of threads that could serve a request now.
    pub fn set_idle_threads(&self, count: u64) {
        self.field(State::IdleThreads).store(count, Relaxed);
    }

    /// Records which of the sockets of a port the worker accepts from (see `WorkerInit::slot`);
    /// `None` when it is about to stop.
    pub fn set_listener_number(&self, number: Option<usize>) {
        self.field(State::Listener).store(number.map_or(0, |number| number as u64 + 1), Relaxed);
    }

    /// Whether a sibling, among the first `rows` of the scoreboard, serves on a listener number for
    /// which `is_it` holds.
    pub fn has_sibling_on_listener(&self, rows: usize, is_it: impl Fn(usize) -> bool) -> bool {
        self.living_siblings(rows).any(|row| {
            let (state, number) =
                (row[State::Phase as usize].load(Relaxed), row[State::Listener as usize].load(Relaxed));
            matches!(state, READY | RETIRING) && number > 0 && is_it(number as usize - 1)
        })
    }

    /// Whether a sibling, among the first `rows` of the scoreboard, serves and is not about to end.
    pub fn has_serving_sibling(&self, rows: usize) -> bool {
        self.living_siblings(rows).any(|row| row[State::Phase as usize].load(Relaxed) == READY)
    }

    /// Whether the stop flag is set.
    pub fn server_stops(&self) -> bool {
        masters_page(&self.board)[MasterWord::Stopping as usize].load(Relaxed) == 1
    }

    /// Whether health checks are to say that the server serves.
    pub fn passes_checks(&self) -> bool {
        !self.server_stops() && masters_page(&self.board)[MasterWord::Drained as usize].load(Relaxed) == 0
    }

    /// The number of connections of each serving sibling with an idle thread, among the first
    /// `rows` of the scoreboard.
    pub fn connections_of_idle_siblings(&self, rows: usize) -> impl Iterator<Item = u64> {
        let field = |row: &Counters<WORDS>, field: State| row[field as usize].load(Relaxed);
        self.living_siblings(rows)
            .filter(move |row| field(row, State::IdleThreads) > 0 && field(row, State::Phase) == READY)
            .map(move |row| field(row, State::Connections))
    }

    /// The other rows, among the first `rows` of the scoreboard, whose workers have sent a
    /// heartbeat lately.
    fn living_siblings(&self, rows: usize) -> impl Iterator<Item = &Counters<WORDS>> {
        let alive_since = monotonic_ms().saturating_sub(SILENCE_MS);
        let siblings = (0..rows.min(workers_rows(&self.board))).filter(|&number| number != self.number);
        siblings
            .map(|number| words_of(&self.board, number))
            .filter(move |row| row[State::Heartbeat as usize].load(Relaxed) >= alive_since)
    }

    fn starts(&self) -> &[AtomicU64] {
        &self.words()[State::Starts as usize..][..REQUESTS]
    }

    fn field(&self, field: State) -> &AtomicU64 {
        &self.words()[field as usize]
    }

    fn tally(&self, tally: Tally) -> &AtomicU64 {
        &self.words()[tally as usize]
    }

    fn words(&self) -> &Counters<WORDS> {
        words_of(&self.board, self.number)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A request is served.
    fn finish(row: &Row, running: Running) {
        row.end_request(running, Instant::now);
        row.count_served(&ServedCounts::default());
    }

    #[test]
    fn a_row_starts_empty_and_returns_to_it() {
        let row = Scoreboard::new(MAX_WORKERS).unwrap().row(3);
        row.set_state(WorkerPhase::Retiring);
        row.beat();
        let request = row.start_request(Instant::now());
        assert!(row.request_started_at().is_some());
        finish(&row, request);
        row.set_connections(5);
        assert_eq!((row.state(), row.served(), row.connections()), (WorkerPhase::Retiring, 1, 5));
        assert!(row.heartbeat().is_some());
        row.clear();
        assert_eq!((row.state(), row.served(), row.connections()), (WorkerPhase::Booting, 0, 0));
        assert_eq!((row.heartbeat(), row.request_started_at()), (None, None));
    }

    #[test]
    fn a_listener_has_a_worker_while_a_living_one_serves_on_it() {
        let board = Scoreboard::new(MAX_WORKERS).unwrap();
        let (ours, theirs) = (board.row(0), board.row(1));
        let is_at = |number| ours.has_sibling_on_listener(2, |theirs| theirs == number);
        theirs.set_listener_number(Some(4));
        theirs.beat();
        assert!(!is_at(4), "it has not loaded the app");
        theirs.set_state(WorkerPhase::Ready);
        assert!(is_at(4) && !is_at(0) && !ours.has_sibling_on_listener(1, |_| true));
        theirs.set_listener_number(None);
        assert!(!is_at(4));
    }

    #[test]
    fn the_stop_flag_is_seen_from_every_row_and_is_in_none_of_them() {
        let board = Scoreboard::new(MAX_WORKERS).unwrap();
        let last = board.row(MAX_WORKERS.get() - 1);
        assert!(!last.server_stops());
        board.announce_stop();
        assert!(last.server_stops() && board.row(0).server_stops());
        assert_eq!(last.state(), WorkerPhase::Booting);
    }

    #[test]
    fn the_oldest_running_request_counts_whichever_ends_first() {
        let row = Scoreboard::new(MAX_WORKERS).unwrap().row(0);
        let oldest = row.start_request(Instant::now());
        let since = row.request_started_at();
        std::thread::sleep(std::time::Duration::from_millis(3));
        let others: Vec<Running> = (0..REQUESTS + 2).map(|_| row.start_request(Instant::now())).collect();
        let count = others.len() as u64;
        others.into_iter().for_each(|request| finish(&row, request));
        assert_eq!((row.request_started_at(), row.served()), (since, count));
        finish(&row, oldest);
        assert_eq!((row.request_started_at(), row.served()), (None, count + 1));
    }

    #[test]
    fn every_phase_is_read_back_from_shared_memory() {
        let row = Scoreboard::new(MAX_WORKERS).unwrap().row(0);
        for state in [WorkerPhase::Booting, WorkerPhase::Ready, WorkerPhase::Retiring, WorkerPhase::Draining] {
            row.set_state(state);
            assert_eq!(row.state(), state);
        }
        row.set_state(WorkerPhase::Ready);
        assert_eq!(row.state(), WorkerPhase::Draining, "it goes forward only");
    }
}
