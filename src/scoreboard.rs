//! The state of the workers: a row of counters for each, in memory that master and workers share.
//!
//! A worker writes its own row, and can write to no other: each row has a page of its own, and
//! after the fork the worker gives up the rest ([`Row::give_up_others`]). The master reads all
//! rows. One more row holds the master's stop flag, which all workers read. There are no locks and
//! no messages: every field is an atomic, independent of the others. The scoreboard must not know
//! what the master concludes from it.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::sys::clock::monotonic_ms;
use crate::sys::shared::{Counters, SharedPages};

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
#[derive(Debug)]
pub struct Scoreboard(Arc<Board>);

/// One worker's row. Clones are the same row.
#[derive(Debug, Clone)]
pub struct Row {
    board: Arc<Board>,
    number: usize,
}

/// The fields of a row, each a counter of its own.
#[derive(Debug, Clone, Copy)]
enum Field {
    WorkerPhase,
    Heartbeat,
    Served,
    Connections,
    IdleThreads,
    Listener,
}

/// An idle worker sends a heartbeat once a second. A worker that has been silent for longer than
/// this is not relied on.
const SILENCE_MS: u64 = 2500;

/// `WorkerPhase::Ready` in a row.
const READY: u64 = 1;
/// `WorkerPhase::Retiring` in a row.
const RETIRING: u64 = 2;

/// The stop flag in the master's row, once the server must stop.
const STOPPING: u64 = 1;

/// Requests of one worker that a row can record at once, each in a counter behind the fields.
/// Requests of further threads are not recorded.
const REQUESTS: usize = 64;

const FIRST_REQUEST: usize = Field::Listener as usize + 1;
const FIELDS: usize = FIRST_REQUEST + REQUESTS;

/// A request that a worker is running, to be passed to [`Row::finish_request`].
#[derive(Debug)]
#[must_use = "the request seems to run until it is passed to finish_request"]
pub struct Running(Option<usize>);

impl Scoreboard {
    /// Maps a scoreboard of `rows` empty rows, and the master's.
    pub fn new(rows: NonZeroUsize) -> io::Result<Scoreboard> {
        Ok(Scoreboard(Arc::new(SharedPages::new(c"monoceros-scoreboard", rows.saturating_add(1))?)))
    }

    /// The row with this number; the caller knows how many there are.
    pub fn row(&self, number: usize) -> Row {
        assert!(number < workers_rows(&self.0), "row {number} of {}", workers_rows(&self.0));
        Row { board: Arc::clone(&self.0), number }
    }

    /// Sets the stop flag: tells all workers that the server must stop.
    pub fn announce_stop(&self) {
        masters_row(&self.0)[Field::WorkerPhase as usize].store(STOPPING, Relaxed);
    }
}

type Board = SharedPages<Counters<FIELDS>>;

fn workers_rows(board: &Board) -> usize {
    board.count() - 1
}

fn masters_row(board: &Board) -> &Counters<FIELDS> {
    board.at(board.count() - 1)
}

impl Row {
    /// From now on this process, which is the row's worker, can write to no other row. For the
    /// child right after the fork: no other thread may use the scoreboard meanwhile.
    ///
    /// # Errors
    /// The kernel has no room for two mappings more.
    pub fn give_up_others(&self) -> io::Result<()> {
        self.board.keep_writable(self.number)
    }

    /// Empties the row for the next worker. The master calls it before the fork.
    pub fn clear(&self) {
        self.board.at(self.number).iter().for_each(|counter| counter.store(0, Relaxed));
    }

    /// The worker's phase.
    pub fn state(&self) -> WorkerPhase {
        match self.field(Field::WorkerPhase).load(Relaxed) {
            READY => WorkerPhase::Ready,
            RETIRING => WorkerPhase::Retiring,
            3 => WorkerPhase::Draining,
            _ => WorkerPhase::Booting,
        }
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
        self.field(Field::WorkerPhase).fetch_max(number, Relaxed);
    }

    /// The worker's last heartbeat, in milliseconds of the monotonic clock; None before the first
    /// one.
    pub fn heartbeat(&self) -> Option<u64> {
        Some(self.field(Field::Heartbeat).load(Relaxed)).filter(|&at| at != 0)
    }

    /// Records a heartbeat.
    pub fn beat(&self) {
        self.field(Field::Heartbeat).store(monotonic_ms(), Relaxed);
    }

    /// Requests the worker has answered.
    pub fn served(&self) -> u64 {
        self.field(Field::Served).load(Relaxed)
    }

    /// When the oldest running request of the worker began, in milliseconds of the monotonic clock;
    /// None while it is idle.
    pub fn request_started_at(&self) -> Option<u64> {
        self.requests().iter().map(|request| request.load(Relaxed)).filter(|&at| at != 0).min()
    }

    /// Records that a thread of the worker calls the app with a request.
    pub fn start_request(&self) -> Running {
        let now = monotonic_ms();
        let is_taken = |request: &AtomicU64| request.compare_exchange(0, now, Relaxed, Relaxed).is_ok();
        Running(self.requests().iter().position(is_taken))
    }

    /// Records that the request was answered.
    pub fn finish_request(&self, request: Running) {
        self.field(Field::Served).fetch_add(1, Relaxed);
        if let Running(Some(place)) = request {
            self.requests()[place].store(0, Relaxed);
        }
    }

    /// Open connections of the worker.
    pub fn connections(&self) -> u64 {
        self.field(Field::Connections).load(Relaxed)
    }

    /// Writes the number of open connections.
    pub fn set_connections(&self, count: u64) {
        self.field(Field::Connections).store(count, Relaxed);
    }

    /// Writes the number of threads that could serve a request now.
    pub fn set_idle_threads(&self, count: u64) {
        self.field(Field::IdleThreads).store(count, Relaxed);
    }

    /// Records which of the sockets of a port the worker accepts from (see `WorkerInit::slot`);
    /// `None` when it is about to stop.
    pub fn set_listener_number(&self, number: Option<usize>) {
        self.field(Field::Listener).store(number.map_or(0, |number| number as u64 + 1), Relaxed);
    }

    /// Whether a sibling, among the first `rows` of the scoreboard, serves on a listener number for
    /// which `is_it` holds.
    pub fn has_sibling_on_listener(&self, rows: usize, is_it: impl Fn(usize) -> bool) -> bool {
        self.living_siblings(rows).any(|row| {
            let (state, number) =
                (row[Field::WorkerPhase as usize].load(Relaxed), row[Field::Listener as usize].load(Relaxed));
            matches!(state, READY | RETIRING) && number > 0 && is_it(number as usize - 1)
        })
    }

    /// Whether the stop flag is set.
    pub fn server_stops(&self) -> bool {
        masters_row(&self.board)[Field::WorkerPhase as usize].load(Relaxed) == STOPPING
    }

    /// The number of connections of each serving sibling with an idle thread, among the first
    /// `rows` of the scoreboard.
    pub fn connections_of_idle_siblings(&self, rows: usize) -> impl Iterator<Item = u64> {
        let field = |row: &Counters<FIELDS>, field: Field| row[field as usize].load(Relaxed);
        self.living_siblings(rows)
            .filter(move |row| field(row, Field::IdleThreads) > 0 && field(row, Field::WorkerPhase) == READY)
            .map(move |row| field(row, Field::Connections))
    }

    /// The other rows, among the first `rows` of the scoreboard, whose workers have sent a
    /// heartbeat lately.
    fn living_siblings(&self, rows: usize) -> impl Iterator<Item = &Counters<FIELDS>> {
        let alive_since = monotonic_ms().saturating_sub(SILENCE_MS);
        let siblings = (0..rows.min(workers_rows(&self.board))).filter(|&number| number != self.number);
        siblings
            .map(|number| self.board.at(number))
            .filter(move |row| row[Field::Heartbeat as usize].load(Relaxed) >= alive_since)
    }

    fn requests(&self) -> &[AtomicU64] {
        &self.board.at(self.number)[FIRST_REQUEST..]
    }

    fn field(&self, field: Field) -> &AtomicU64 {
        &self.board.at(self.number)[field as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_starts_empty_and_returns_to_it() {
        let row = Scoreboard::new(MAX_WORKERS).unwrap().row(3);
        row.set_state(WorkerPhase::Retiring);
        row.beat();
        let request = row.start_request();
        assert!(row.request_started_at().is_some());
        row.finish_request(request);
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
        let oldest = row.start_request();
        let since = row.request_started_at();
        std::thread::sleep(std::time::Duration::from_millis(3));
        let others: Vec<Running> = (0..REQUESTS + 2).map(|_| row.start_request()).collect();
        let count = others.len() as u64;
        others.into_iter().for_each(|request| row.finish_request(request));
        assert_eq!((row.request_started_at(), row.served()), (since, count));
        row.finish_request(oldest);
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
