//! The board as a reader sees it: a worker that tells metrics, or another process of the same user.
//!
//! A reader writes nothing and waits for nobody, so it can look while everything hangs.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;
use std::time::Duration;

use super::boards::{Board, LOOKS, Pages, masters_page, starts};
use super::layout::{
    CODES, FIRST_CODE, HISTOGRAM_WORDS, LOG_LINES, MAGIC, MasterWord, State, TEXT_WORDS, TEXTS, Tally, VERSION, WORDS,
};
use super::tallies::{BEING_COUNTED, read_text};
use super::{FILE_NAME, Histogram, RefusalCause, Scoreboard, WorkerPhase, phase_of};
use crate::sys::clock::{monotonic_ms, monotonic_ns};
use crate::sys::process::{Pid, Usage, usage};
use crate::sys::shared::Counters;

/// A row as it was read.
#[derive(Debug, Clone)]
pub struct WorkerReading {
    /// The number of the row.
    pub number: usize,
    /// The worker that has the row; `None` if the last one has ended.
    pub pid: Option<Pid>,
    /// Its phase.
    pub phase: WorkerPhase,
    /// Its generation.
    pub generation: u64,
    /// How long it has lived.
    pub age: Duration,
    /// How long ago its last heartbeat was, if there was one.
    pub silence: Option<Duration>,
    /// Requests that it has answered.
    pub served: u64,
    /// Threads that run the application.
    pub threads: u64,
    /// Connections that it holds open.
    pub connections: u64,
    /// Its requests that are in the application.
    pub in_flight: u64,
    /// How long they have been there, the longest first; without those that found no place in the
    /// row.
    pub running: Vec<Duration>,
    /// What its row has counted.
    pub totals: RowTotals,
}

/// The tallies of a row, those of workers that have ended included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowTotals {
    /// Requests.
    pub requests: u64,
    /// Time that threads were in the application.
    pub busy: Duration,
    /// The responses of the class 5xx.
    pub server_errors: u64,
    /// The sum of the durations of the requests.
    pub duration: Duration,
}

/// What the workers of a row use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowUsage {
    /// Processor time, that of workers that have ended included.
    pub cpu: Duration,
    /// Memory of the living worker in bytes, shared pages included.
    pub resident: Option<u64>,
}

/// A request that has been running for a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// The number of its worker's row.
    pub row: usize,
    /// For how long.
    pub age: Duration,
    /// What it is.
    pub text: String,
}

/// Why a process's board cannot be read.
#[derive(Debug)]
pub enum OpenError {
    /// There is no such process.
    NoProcess,
    /// It belongs to somebody else.
    NotPermitted,
    /// It has no board: it is no master of this server.
    NoBoard,
    /// Its board has another layout: it runs another version.
    OtherVersion(u64),
    /// Anything else.
    Failed(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NoProcess => f.write_str("there is no such process"),
            OpenError::NotPermitted => {
                f.write_str("it belongs to another user; only that user and root may look into it")
            }
            OpenError::NoBoard => f.write_str("it is not the master of a monoceros server"),
            OpenError::OtherVersion(version) => {
                write!(f, "it runs another version of monoceros, whose board has layout {version}, not {VERSION}")
            }
            OpenError::Failed(error) => error.fmt(f),
        }
    }
}

impl WorkerReading {
    /// Whether it answers requests, and will do so until it is told to end.
    pub fn is_serving(&self) -> bool {
        self.pid.is_some() && matches!(self.phase, WorkerPhase::Ready | WorkerPhase::Retiring)
    }

    /// How many of its threads are in the application. A thread that runs greenlets may be at many
    /// requests.
    pub fn threads_busy(&self) -> u64 {
        self.threads.min(self.in_flight)
    }
}

impl Scoreboard {
    /// The board of another master, by its pid.
    pub fn open(master: Pid) -> Result<Scoreboard, OpenError> {
        let folder = fs::read_dir(format!("/proc/{master}/fd")).map_err(because)?;
        let name = format!("/memfd:{}", FILE_NAME.to_string_lossy());
        // The name has " (deleted)" behind it.
        let is_board = |path: &std::path::PathBuf| {
            fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with(&name))
        };
        let paths = folder.flatten().map(|entry| entry.path()).filter(is_board);
        let files: Result<Vec<File>, _> = paths.map(File::open).collect();
        let boards = files.map_err(because)?.into_iter().map(|file| Pages::of_file(file.into()));
        let boards: Vec<Pages> =
            boards.filter_map(|pages| pages.transpose()).collect::<Result<_, _>>().map_err(OpenError::Failed)?;
        choose(boards, master)
    }

    /// Every row that was ever used.
    pub fn read_workers(&self) -> Vec<WorkerReading> {
        (0..self.0.rows_used()).map(|number| self.read_worker(number)).collect()
    }

    /// What workers of all rows have counted in the word of this tally.
    fn total(&self, tally: Tally) -> u64 {
        self.total_of_word(tally as usize)
    }

    fn total_of_word(&self, word: usize) -> u64 {
        self.rows().map(|words| words[word].load(Relaxed)).sum()
    }

    /// Responses by status, for each status that was seen.
    pub fn responses(&self) -> Vec<(u16, u64)> {
        let mut counts = [0; CODES];
        for words in self.rows() {
            counts
                .iter_mut()
                .zip(&words[Tally::Codes as usize..])
                .for_each(|(count, word)| *count += word.load(Relaxed));
        }
        (FIRST_CODE..).zip(counts).filter(|&(_, count)| count > 0).collect()
    }

    /// How long requests took.
    pub fn durations(&self) -> Histogram {
        self.histogram(Tally::Duration)
    }

    /// How long requests waited for a thread.
    pub fn queue_times(&self) -> Histogram {
        self.histogram(Tally::Queue)
    }

    /// How long requests were under way before they came, as a proxy says.
    pub fn upstream_queue_times(&self) -> Histogram {
        self.histogram(Tally::UpstreamQueue)
    }

    /// Requests refused for this reason.
    pub fn refused(&self, refusal: RefusalCause) -> u64 {
        self.total_of_word(Tally::Refused as usize + refusal as usize)
    }

    /// Lines of the workers' error logs: critical ones, errors, warnings, exceptions of the
    /// application's.
    pub fn log_lines(&self) -> [u64; LOG_LINES] {
        std::array::from_fn(|kind| self.total_of_word(Tally::LogLines as usize + kind))
    }

    /// Lines of all logs that were dropped, the master's included.
    pub fn lines_dropped(&self) -> u64 {
        self.total_of(MasterWord::LinesDropped) + self.total(Tally::LinesDropped)
    }

    /// How long threads that had a request waited for the interpreter, together.
    pub fn attach_time(&self) -> Duration {
        Duration::from_nanos(self.total(Tally::Attach))
    }

    /// Requests whose clients left.
    pub fn aborted(&self) -> u64 {
        self.total(Tally::Aborted)
    }

    /// Requests in which the application raised.
    pub fn app_errors(&self) -> u64 {
        self.total(Tally::AppErrors)
    }

    /// Requests passed to siblings.
    pub fn passed(&self) -> u64 {
        self.total(Tally::Passed)
    }

    /// Connections accepted.
    pub fn accepted(&self) -> u64 {
        self.total(Tally::Accepted)
    }

    /// Bytes that came, and bytes that went.
    pub fn bytes(&self) -> (u64, u64) {
        (self.total(Tally::Received), self.total(Tally::Sent))
    }

    /// TLS handshakes: in full, resumed, failed.
    pub fn handshakes(&self) -> [u64; 3] {
        [Tally::TlsFull, Tally::TlsResumed, Tally::TlsFailed].map(|tally| self.total(tally))
    }

    /// Processor time of the workers of a row, the dead and the living one; `None` at the moment in
    /// which one dies.
    pub fn cpu_of(&self, number: usize) -> Option<Duration> {
        self.usage_of(number).map(|usage| usage.cpu)
    }

    /// As [`Scoreboard::cpu_of`], with the memory of the living worker.
    pub fn usage_of(&self, number: usize) -> Option<RowUsage> {
        let read = || {
            let dead = self.0.tallies_of(number).map(|words| words[Tally::CpuOfDead as usize].load(Acquire));
            (dead.sum::<u64>(), self.0.pids_of(number).collect::<Vec<_>>())
        };
        for _ in 0..LOOKS {
            let (dead, pids) = read();
            let living: Option<Vec<Usage>> = pids.iter().map(|&pid| usage(pid)).collect();
            if let Some(living) = living.filter(|_| read() == (dead, pids)) {
                let cpu = living.iter().map(|usage| usage.cpu).sum::<Duration>() + Duration::from_nanos(dead);
                return Some(RowUsage { cpu, resident: living.first().map(|usage| usage.resident) });
            }
            std::hint::spin_loop();
        }
        None
    }

    /// The requests that have been running for a moment, the oldest first.
    pub fn read_requests(&self) -> Vec<ReadRequest> {
        let now = monotonic_ns();
        let mut found = Vec::new();
        for row in 0..self.0.rows_used() {
            let words = self.0.state_of(row);
            let running: Vec<u64> = starts(words).iter().map(|start| start.load(Relaxed)).collect();
            for text in words[State::Texts as usize..][..TEXTS * TEXT_WORDS].chunks(TEXT_WORDS) {
                let began = text[0].load(Acquire);
                // The request may have ended since it was described.
                if began == 0 || !running.contains(&began) {
                    continue;
                }
                let said = read_text(&text[1..]);
                fence(Acquire);
                if text[0].load(Relaxed) == began {
                    let age = Duration::from_nanos(now.saturating_sub(began));
                    found.push(ReadRequest { row, age, text: said });
                }
            }
        }
        found.sort_by_key(|request| std::cmp::Reverse(request.age));
        found
    }

    fn read_worker(&self, number: usize) -> WorkerReading {
        let words = self.0.state_of(number);
        let get = |word: State| words[word as usize].load(Relaxed);
        let (now, now_ms) = (monotonic_ns(), monotonic_ms());
        let pid = Some(get(State::Pid)).filter(|&pid| pid != 0).map(|pid| Pid::from_raw(pid as i32));
        let mut running: Vec<Duration> = starts(words)
            .iter()
            .map(|start| start.load(Relaxed))
            .filter(|&began| began > BEING_COUNTED)
            .map(|began| Duration::from_nanos(now.saturating_sub(began)))
            .collect();
        running.sort_unstable_by(|one, other| other.cmp(one));
        let heartbeat = Some(get(State::Heartbeat)).filter(|&at| at != 0);
        let counted = words[Tally::Requests as usize].load(Relaxed);
        WorkerReading {
            number,
            pid,
            phase: phase_of(get(State::Phase)),
            generation: get(State::Generation),
            age: Duration::from_millis(now_ms.saturating_sub(get(State::ForkedAt))),
            silence: heartbeat.map(|at| Duration::from_millis(now_ms.saturating_sub(at))),
            served: counted.saturating_sub(get(State::RequestsAtBirth)),
            threads: get(State::Threads),
            connections: get(State::Connections),
            in_flight: running.len() as u64 + get(State::Unplaced),
            running,
            totals: self.read_totals(number, now),
        }
    }

    fn read_totals(&self, number: usize, now: u64) -> RowTotals {
        let total = |word: usize| self.0.tallies_of(number).map(|words| words[word].load(Relaxed)).sum::<u64>();
        let fives = Tally::Codes as usize + usize::from(500 - FIRST_CODE);
        RowTotals {
            requests: total(Tally::Requests as usize),
            busy: Duration::from_nanos(self.0.busy_of(number, now)),
            server_errors: (fives..fives + 100).map(total).sum(),
            duration: Duration::from_nanos(total(Tally::Duration as usize + HISTOGRAM_WORDS - 1)),
        }
    }

    fn histogram(&self, which: Tally) -> Histogram {
        let mut histogram = Histogram::default();
        self.rows().for_each(|words| histogram.add_words(&words[which as usize..][..HISTOGRAM_WORDS]));
        histogram
    }

    fn rows(&self) -> impl Iterator<Item = &Counters<WORDS>> {
        (0..self.0.rows_used()).flat_map(|number| self.0.tallies_of(number))
    }
}

/// Finds the board of this master, and those of the programs before it, among the boards that the
/// process holds.
fn choose(mut boards: Vec<Pages>, master: Pid) -> Result<Scoreboard, OpenError> {
    let says = |pages: &Pages, word: MasterWord| masters_page(pages)[word as usize].load(Acquire);
    boards.retain(|pages| says(pages, MasterWord::Magic) == MAGIC);
    // A master holds the boards of the programs before it open, a worker none. A child that the
    // master has forked holds the master's until it executes another program.
    boards.sort_by_key(|pages| (says(pages, MasterWord::MadeAt), says(pages, MasterWord::StartedAt)));
    let is_own = |pages: &Pages| says(pages, MasterWord::Pid) == master.as_raw() as u64;
    let own = boards.iter().rposition(is_own).ok_or(OpenError::NoBoard)?;
    boards.truncate(own + 1);
    let Some(pages) = boards.pop() else { return Err(OpenError::NoBoard) };
    let version = says(&pages, MasterWord::Version);
    if version != VERSION {
        return Err(OpenError::OtherVersion(version));
    }
    boards.retain(|earlier| says(earlier, MasterWord::Version) == VERSION && earlier.count() == pages.count());
    let earlier = boards.into_iter().map(Arc::new).collect();
    Ok(Scoreboard(Arc::new(Board { pages: Arc::new(pages), earlier })))
}

fn because(error: io::Error) -> OpenError {
    match error.kind() {
        ErrorKind::NotFound => OpenError::NoProcess,
        ErrorKind::PermissionDenied => OpenError::NotPermitted,
        _ => OpenError::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::{Count, ExitCause, MAX_WORKERS, Row, ServedCounts};
    use super::*;
    use crate::sys::process::getpid;

    /// A board with a worker in row 0, which has served a request of a second with status 200.
    fn board() -> (Scoreboard, Row) {
        let board = Scoreboard::new(MAX_WORKERS).unwrap();
        let row = board.row(0);
        board.count_start(0);
        row.clear();
        row.assign(getpid(), 1, 2);
        let began = Instant::now();
        let running = row.start_request(began);
        row.end_request(running, || began + Duration::from_secs(1));
        row.count_served(&ServedCounts { status: 200, duration: Duration::from_secs(1), ..Default::default() });
        (board, row)
    }

    #[test]
    fn what_was_counted_outlives_the_worker() {
        let (board, row) = board();
        row.count(Count::Refused(RefusalCause::Header));
        row.set_connections(3);
        board.count_exit(ExitCause::Crash);
        row.count_cpu_of_dead(Duration::from_secs(2));
        row.clear();
        let worker = &board.read_workers()[0];
        assert_eq!((worker.pid, worker.served, worker.connections), (None, 0, 0));
        assert_eq!(
            (worker.totals.requests, worker.totals.busy, worker.totals.duration),
            (1, Duration::from_secs(1), Duration::from_secs(1))
        );
        assert_eq!((board.responses(), board.refused(RefusalCause::Header)), (vec![(200, 1)], 1));
        assert_eq!((board.durations().count(), board.exits(ExitCause::Crash)), (1, 1));
        assert_eq!(board.cpu_of(0), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_running_request_counts_as_busy_and_goes_on_counting_when_its_worker_dies() {
        let (board, row) = board();
        let running = row.start_request(Instant::now() - Duration::from_secs(10));
        let before = board.read_workers()[0].totals.busy;
        assert!(before >= Duration::from_secs(11), "{before:?}");
        row.clear();
        let after = board.read_workers()[0].totals.busy;
        assert!(after >= before && after < before + Duration::from_secs(5), "{after:?}");
        drop(running);
    }

    #[test]
    fn time_never_falls_for_a_reader_beside_a_writer() {
        let (board, row) = board();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..50_000 {
                    let running = row.start_request(Instant::now());
                    row.end_request(running, Instant::now);
                }
            });
            let mut told = Duration::ZERO;
            while !writer.is_finished() {
                let busy = board.read_workers()[0].totals.busy;
                assert!(busy >= told, "{busy:?} after {told:?}");
                told = busy;
            }
        });
    }

    #[test]
    fn a_request_is_shown_with_its_text_while_it_runs() {
        let (board, row) = board();
        let began = Instant::now() - Duration::from_secs(3);
        let running = row.start_request(began);
        row.describe_requests([(running.start(), "GET /slow")].into_iter());
        let shown = board.read_requests();
        assert_eq!((shown.len(), shown[0].text.as_str(), shown[0].age.as_secs()), (1, "GET /slow", 3));
        row.end_request(running, Instant::now);
        assert_eq!(board.read_requests(), []);
    }

    #[test]
    fn the_board_of_a_process_is_found_by_its_pid() {
        let (board, _) = board();
        board.set_service(7, 2, "mysite.wsgi");
        // Other tests of this process have boards as well, one of which is found.
        let found = Scoreboard::open(getpid()).unwrap();
        assert_eq!(found.master(), getpid());
        assert_eq!((board.name().as_str(), board.generation(), board.wanted()), ("mysite.wsgi", 7, 2));
        assert!(matches!(Scoreboard::open(Pid::from_raw(i32::MAX)), Err(OpenError::NoProcess)));
    }

    /// The pages of a board as another process has them.
    fn opened(board: &Scoreboard) -> Pages {
        let file = File::open(format!("/proc/self/fd/{}", board.descriptors()[0])).unwrap();
        Pages::of_file(file.into()).unwrap().unwrap()
    }

    #[test]
    fn the_newest_board_of_a_master_is_chosen_also_after_the_clock_was_set_back() {
        let boards = [1, 2, 3].map(|generation| {
            let board = Scoreboard::new(MAX_WORKERS).unwrap();
            board.set_service(generation, 1, "app");
            board
        });
        let write = |board: &Scoreboard, word: MasterWord, value: u64| {
            masters_page(&board.0)[word as usize].store(value, Relaxed);
        };
        // The first is of a program that does not know when its board was made.
        write(&boards[0], MasterWord::MadeAt, 0);
        for (board, started_at) in boards.iter().zip([5000, 9000, 1000]) {
            write(board, MasterWord::StartedAt, started_at);
        }
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let pages = order.map(|at| opened(&boards[at])).into();
            assert_eq!(choose(pages, getpid()).unwrap().generation(), 3);
        }
    }
}
