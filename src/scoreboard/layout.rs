//! The layout of the scoreboard: the words of the master's page and of a worker's row.
//!
//! Other processes read the board, perhaps of another version of this program. They tell layouts
//! apart by [`VERSION`], which goes up whenever a word moves. This module must not know who writes.

/// The first word of the board, by which a reader recognizes it.
pub const MAGIC: u64 = u64::from_le_bytes(*b"monoboar");

/// The second word: which layout this is.
pub const VERSION: u64 = 2;

/// Words of a page, the master's and each worker's: 8 KiB.
pub const WORDS: usize = 1024;

/// Requests of one worker that a row can record at once. Requests of further threads are counted,
/// but nobody watches their deadline.
pub const REQUESTS: usize = 64;

/// Requests of one worker whose text a row can hold: those that have run for a moment.
pub const TEXTS: usize = 16;

/// Words of one text: the request's start, then its first 120 bytes.
pub const TEXT_WORDS: usize = 16;

/// Pages of a board with this many rows. The master's page is the first; then come the rows, then a
/// page for each row, and one for the master, with the counts of earlier programs.
pub const fn pages_for(rows: usize) -> usize {
    2 * (rows + 1)
}

/// Most boards of earlier programs that one program reads beside its own: several have workers at
/// once if an upgrade comes before the last one is over. On a row's page of earlier programs'
/// counts, the words that hold a worker's state elsewhere say when the workers of the row on those
/// boards have ended (see `earlier`).
pub const MOST_EARLIER: usize = 4;

/// The words of the master's page.
#[derive(Debug, Clone, Copy)]
pub enum MasterWord {
    /// [`MAGIC`].
    Magic,
    /// [`VERSION`].
    Version,
    /// Worker rows behind this page.
    Rows,
    /// The master's pid.
    Pid,
    /// When it started, in milliseconds since the epoch.
    StartedAt,
    /// 1 once the server must stop.
    Stopping,
    /// 1 while health checks are to fail though the server serves.
    Drained,
    /// Workers that the serving generation should have.
    Wanted,
    /// One more than the highest row that was ever used.
    RowsUsed,
    /// The number of the generation that serves.
    Generation,
    /// Workers forked so far.
    Starts,
    /// Reloads that took over.
    ReloadsOk,
    /// Reloads that failed.
    ReloadsFailed,
    /// Times that the load has asked for more workers.
    ScaledUp,
    /// Times that the load has asked for fewer.
    ScaledDown,
    /// How the last reload ended: 0 there was none, 1 it took over, 2 it failed.
    LastReload,
    /// When it ended, in milliseconds since the epoch.
    LastReloadAt,
    /// Ends of workers, a word for each [`ExitCause`](super::ExitCause).
    Exits,
    /// The name of the application, in UTF-8, at most 64 bytes; after the words of the exits.
    Name = MasterWord::Exits as isize + EXIT_WORDS as isize,
    /// The path of the control socket, likewise, at most 256 bytes; empty without one.
    ControlPath = MasterWord::Name as isize + NAME_WORDS as isize,
    /// When a reload last took over, in milliseconds since the epoch; 0 if none has.
    LastReloadOkAt = MasterWord::ControlPath as isize + PATH_WORDS as isize,
    /// Lines of the master's logs that were dropped.
    LinesDropped,
    /// In the low byte the level that an operator has last asked for, as Python's `logging` numbers
    /// it; above it how often one was asked for. 0 before the first time.
    LogLevel,
    /// When the board was made, in nanoseconds of the monotonic clock: what tells the boards of a
    /// master apart, also where the wall clock was set back. 0 on a board of a program that did not
    /// know this word.
    MadeAt,
}

/// Words for the causes of workers' ends.
pub const EXIT_WORDS: usize = 16;

/// Words of the application's name.
pub const NAME_WORDS: usize = 8;

/// Words of the control socket's path.
pub const PATH_WORDS: usize = 32;

/// The words of a row that hold the state of the worker that has it: they are cleared for the next
/// one.
#[derive(Debug, Clone, Copy)]
pub enum State {
    /// Its phase.
    Phase,
    /// Its last heartbeat, in milliseconds of the monotonic clock.
    Heartbeat,
    /// Connections that it holds open.
    Connections,
    /// Threads that could serve a request now.
    IdleThreads,
    /// The socket it accepts from, plus 1 (see `WorkerInit::slot`).
    Listener,
    /// Its pid.
    Pid,
    /// Threads that run the application.
    Threads,
    /// When it was forked, in milliseconds of the monotonic clock.
    ForkedAt,
    /// Its generation.
    Generation,
    /// What [`Tally::Requests`] stood at when it was forked.
    RequestsAtBirth,
    /// 1 where its class accepts connections by itself.
    AcceptsByItself,
    /// 1 where its requests are greenlets of one thread: the thread may be idle while they run.
    HasGreenlets,
    /// Running requests that have found no place among [`State::Starts`].
    Unplaced,
    /// Starts of its requests, in nanoseconds of the monotonic clock; [`REQUESTS`] words.
    Starts = 16,
    /// The texts of some of those requests; [`TEXTS`] times [`TEXT_WORDS`] words.
    Texts = State::Starts as isize + REQUESTS as isize,
}

/// Words of a row that are cleared when its worker has ended.
pub const STATE_WORDS: usize = State::Texts as usize + TEXTS * TEXT_WORDS;

/// The words of a row that count. They are never cleared: the next worker in the row goes on
/// counting, so that no total falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tally {
    /// Nanoseconds for which threads were in the application, for each place of a running request;
    /// [`REQUESTS`] words.
    Busy = STATE_WORDS as isize,
    /// The same of requests without a place, and of a thread that runs greenlets.
    BusyRest = STATE_WORDS as isize + REQUESTS as isize,
    /// Requests that the application was called with.
    Requests,
    /// Requests whose clients left before they had the response.
    Aborted,
    /// Requests in which the application raised.
    AppErrors,
    /// Requests passed to a sibling.
    Passed,
    /// Connections accepted.
    Accepted,
    /// Bytes of request bodies and heads that were served.
    Received,
    /// Bytes of responses' bodies.
    Sent,
    /// Nanoseconds of processor time of the workers of this row that have ended.
    CpuOfDead,
    /// TLS handshakes that were completed in full.
    TlsFull,
    /// TLS sessions that were resumed.
    TlsResumed,
    /// TLS handshakes that failed.
    TlsFailed,
    /// Lines of the error log, [`LOG_LINES`] words: critical ones, errors, warnings, exceptions of
    /// the application's.
    LogLines,
    /// Nanoseconds for which threads that had a request waited for the interpreter.
    Attach = Tally::LogLines as isize + LOG_LINES as isize,
    /// Lines of the logs that were dropped.
    LinesDropped,
    /// Refused requests, a word for each [`RefusalCause`](super::RefusalCause).
    Refused = STATE_WORDS as isize + REQUESTS as isize + 32,
    /// How long requests took, [`HISTOGRAM_WORDS`] words; then the two other histograms.
    Duration = Tally::Refused as isize + 16,
    /// How long requests waited for a thread.
    Queue = Tally::Duration as isize + HISTOGRAM_WORDS as isize,
    /// How long requests were under way before they came, as a proxy says.
    UpstreamQueue = Tally::Queue as isize + HISTOGRAM_WORDS as isize,
    /// Responses by their status, a word for each from [`FIRST_CODE`] on.
    Codes = Tally::UpstreamQueue as isize + HISTOGRAM_WORDS as isize,
}

/// Kinds of lines that are counted.
pub const LOG_LINES: usize = 4;

/// The lowest status of a response.
pub const FIRST_CODE: u16 = 100;

/// How many statuses there are: 100 to 599.
pub const CODES: usize = 500;

/// The upper bounds of the histograms in nanoseconds; above the last there is one bucket more. They
/// are those that OpenTelemetry recommends for `http.server.request.duration`, with two more below
/// and two above: 5 ms as the lowest would hide all that a fast application does.
pub const BOUNDS_NS: [u64; 18] = [
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    75_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    750_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    7_500_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Words of a histogram: the buckets, the one above all bounds, and the sum in nanoseconds.
pub const HISTOGRAM_WORDS: usize = BOUNDS_NS.len() + 2;

const _: () =
    assert!(Tally::Codes as usize + CODES <= WORDS && (Tally::LinesDropped as usize) < Tally::Refused as usize);
const _: () = assert!((MasterWord::MadeAt as usize) < WORDS && (State::Unplaced as usize) < 16);
