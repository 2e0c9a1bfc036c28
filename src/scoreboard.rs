//! One page of truth about the workers: a row of counters each, in memory that master and workers
//! share.
//!
//! A worker writes its own row, and can write to no other: each has a page of its own, and the
//! worker gives up the rest at the fork ([`Row::give_up_others`]). The master reads them all. One
//! row more is the master's own word, for all to read. No locks, no messages: every field is an
//! atomic that stands for itself. It must not know what the master concludes from it.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::sys::clock::monotonic_ms;
use crate::sys::shared::{Counters, SharedPages};

/// Rows on the scoreboard: the most workers that can exist at once, the old and the new ones of a
/// reload together.
pub const MAX_WORKERS: NonZeroUsize = NonZeroUsize::new(2048).unwrap();

/// What a worker says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerPhase {
    /// Forked, loading the app. Also what an unused row shows.
    Booting,
    /// Serving.
    Ready,
    /// Serving, and asks to be replaced (max_requests).
    Retiring,
    /// Taking no more connections, finishing what it has.
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

/// What a row holds, each in a counter of its own.
#[derive(Debug, Clone, Copy)]
enum Field {
    WorkerPhase,
    Heartbeat,
    Served,
    Connections,
    IdleThreads,
    Listener,
}

/// An idle worker beats once a second; one that has been silent for longer is not counted on.
const SILENCE_MS: u64 = 2500;

/// How `WorkerPhase::Ready` is written in a row.
const READY: u64 = 1;
/// And `WorkerPhase::Retiring`.
const RETIRING: u64 = 2;

/// What the master's row shows once the server is to stop.
const STOPPING: u64 = 1;

/// Requests of one worker that the board can watch at once, each in a counter behind the fields.
/// Those of more threads than that go unwatched.
const REQUESTS: usize = 64;

const FIRST_REQUEST: usize = Field::Listener as usize + 1;
const FIELDS: usize = FIRST_REQUEST + REQUESTS;

/// A request that a worker is busy with, to be given back to [`Row::finish_request`].
#[derive(Debug)]
#[must_use = "the request seems to go on until it is given back"]
pub struct Running(Option<usize>);

impl Scoreboard {
    /// Maps a board of `rows` empty rows, and the master's.
    pub fn new(rows: NonZeroUsize) -> io::Result<Scoreboard> {
        Ok(Scoreboard(Arc::new(SharedPages::new(c"monoceros-scoreboard", rows.saturating_add(1))?)))
    }

    /// The row with this number; the caller knows how many there are.
    pub fn row(&self, number: usize) -> Row {
        assert!(number < workers_rows(&self.0), "row {number} of {}", workers_rows(&self.0));
        Row { board: Arc::clone(&self.0), number }
    }

    /// The master's word to all workers: the server is to stop.
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
    /// From now on this process, which is the row's worker, writes to no other row. For the child
    /// right after the fork: no other thread may look meanwhile.
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

    /// The worker's state.
    pub fn state(&self) -> WorkerPhase {
        match self.field(Field::WorkerPhase).load(Relaxed) {
            READY => WorkerPhase::Ready,
            RETIRING => WorkerPhase::Retiring,
            3 => WorkerPhase::Draining,
            _ => WorkerPhase::Booting,
        }
    }

    /// Changes the state, which only goes forward: one thread of a worker may be told to end before
    /// another has said that it serves. The worker then wakes the master.
    pub fn set_state(&self, state: WorkerPhase) {
        let number = match state {
            WorkerPhase::Booting => 0,
            WorkerPhase::Ready => READY,
            WorkerPhase::Retiring => RETIRING,
            WorkerPhase::Draining => 3,
        };
        self.field(Field::WorkerPhase).fetch_max(number, Relaxed);
    }

    /// When the worker last gave a sign of life, in milliseconds of the monotonic clock; None
    /// before the first one.
    pub fn heartbeat(&self) -> Option<u64> {
        Some(self.field(Field::Heartbeat).load(Relaxed)).filter(|&at| at != 0)
    }

    /// The worker is alive now.
    pub fn beat(&self) {
        self.field(Field::Heartbeat).store(monotonic_ms(), Relaxed);
    }

    /// Requests the worker has answered.
    pub fn served(&self) -> u64 {
        self.field(Field::Served).load(Relaxed)
    }

    /// When the oldest request that the worker is busy with began (milliseconds of the monotonic
    /// clock); None while idle.
    pub fn request_started_at(&self) -> Option<u64> {
        self.requests().iter().map(|request| request.load(Relaxed)).filter(|&at| at != 0).min()
    }

    /// A thread of the worker enters the app with a request.
    pub fn start_request(&self) -> Running {
        let now = monotonic_ms();
        let is_taken = |request: &AtomicU64| request.compare_exchange(0, now, Relaxed, Relaxed).is_ok();
        Running(self.requests().iter().position(is_taken))
    }

    /// The thread has answered it.
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

    /// Threads of the worker that could serve a request now.
    pub fn idle_threads(&self) -> u64 {
        self.field(Field::IdleThreads).load(Relaxed)
    }

    /// Writes the number of threads that could serve a request now.
    pub fn set_idle_threads(&self, count: u64) {
        self.field(Field::IdleThreads).store(count, Relaxed);
    }

    /// Writes at which of the sockets of a port the worker stands (see `WorkerInit::slot`); `None`
    /// when it is about to leave it.
    pub fn set_listener_number(&self, door: Option<usize>) {
        self.field(Field::Listener).store(door.map_or(0, |door| door as u64 + 1), Relaxed);
    }

    /// Whether a sibling serves, among the first `rows` of the board, that stands at a door for
    /// which `is_it` holds.
    pub fn has_sibling_on_listener(&self, rows: usize, is_it: impl Fn(usize) -> bool) -> bool {
        self.living_siblings(rows).any(|row| {
            let (state, door) =
                (row[Field::WorkerPhase as usize].load(Relaxed), row[Field::Listener as usize].load(Relaxed));
            matches!(state, READY | RETIRING) && door > 0 && is_it(door as usize - 1)
        })
    }

    /// Whether the master has said that the server is to stop.
    pub fn server_stops(&self) -> bool {
        masters_row(&self.board)[Field::WorkerPhase as usize].load(Relaxed) == STOPPING
    }

    /// How many connections each of the siblings holds that serve and have a thread free, among the
    /// first `rows` of the board.
    pub fn connections_of_idle_siblings(&self, rows: usize) -> impl Iterator<Item = u64> {
        let field = |row: &Counters<FIELDS>, field: Field| row[field as usize].load(Relaxed);
        self.living_siblings(rows)
            .filter(move |row| field(row, Field::IdleThreads) > 0 && field(row, Field::WorkerPhase) == READY)
            .map(move |row| field(row, Field::Connections))
    }

    /// The other rows, among the first `rows` of the board, whose workers have lately given a sign
    /// of life.
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
    fn a_door_is_somebodys_while_a_living_worker_serves_there() {
        let board = Scoreboard::new(MAX_WORKERS).unwrap();
        let (ours, theirs) = (board.row(0), board.row(1));
        let is_at = |door| ours.has_sibling_on_listener(2, |theirs| theirs == door);
        theirs.set_listener_number(Some(4));
        theirs.beat();
        assert!(!is_at(4), "it has not loaded the app");
        theirs.set_state(WorkerPhase::Ready);
        assert!(is_at(4) && !is_at(0) && !ours.has_sibling_on_listener(1, |_| true));
        theirs.set_listener_number(None);
        assert!(!is_at(4));
    }

    #[test]
    fn the_master_s_word_reaches_every_row_and_is_none_of_them() {
        let board = Scoreboard::new(MAX_WORKERS).unwrap();
        let last = board.row(MAX_WORKERS.get() - 1);
        assert!(!last.server_stops());
        board.announce_stop();
        assert!(last.server_stops() && board.row(0).server_stops());
        assert_eq!(last.state(), WorkerPhase::Booting);
    }

    #[test]
    fn the_oldest_request_counts_whoever_ends_first() {
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
    fn every_state_survives_the_way_through_shared_memory() {
        let row = Scoreboard::new(MAX_WORKERS).unwrap().row(0);
        for state in [WorkerPhase::Booting, WorkerPhase::Ready, WorkerPhase::Retiring, WorkerPhase::Draining] {
            row.set_state(state);
            assert_eq!(row.state(), state);
        }
        row.set_state(WorkerPhase::Ready);
        assert_eq!(row.state(), WorkerPhase::Draining, "it goes forward only");
    }
}
