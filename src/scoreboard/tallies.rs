//! What a worker counts, in words that are never cleared.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::fence;
use std::time::{Duration, Instant};

use super::histogram::record;
use super::layout::{CODES, FIRST_CODE, HISTOGRAM_WORDS, LOG_LINES, REQUESTS, State, TEXT_WORDS, TEXTS, Tally, WORDS};
use super::{RefusalCause, Row};
use crate::sys::clock::monotonic_ns;
use crate::sys::shared::Counters;

/// Stands in the place of a request's start while its time is being added: a reader then looks
/// again.
pub(super) const BEING_COUNTED: u64 = 1;

/// A request that a worker is running, to be passed to [`Row::end_request`].
#[derive(Debug)]
#[must_use = "the request seems to run until it is passed to end_request"]
pub struct Running {
    /// Its place in the row, if one was free.
    place: Option<usize>,
    began: Instant,
    start: u64,
}

impl Running {
    /// When it began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The same moment as the row has it, in nanoseconds of the monotonic clock.
    pub fn start(&self) -> u64 {
        self.start
    }
}

/// A request that has run.
#[derive(Debug, Clone, Copy)]
pub struct RequestRun {
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// The time in between.
    pub time: Duration,
}

impl RequestRun {
    /// A request that has run between these two moments.
    pub fn new(began: Instant, ended: Instant) -> RequestRun {
        RequestRun { began, ended, time: ended - began }
    }
}

/// What is counted of a request that the application has answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServedCounts {
    /// The status of the response; 0 where nothing was sent.
    pub status: u16,
    /// From the complete request to the end of the application, everything together.
    pub duration: Duration,
    /// The part of it before the application was called, in the kernel and in the worker.
    pub queue: Duration,
    /// The bytes that came.
    pub received: u64,
    /// The bytes of the response's body.
    pub sent: u64,
}

/// What a worker counts one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// A request whose client left before it had the response.
    Aborted,
    /// A request in which the application raised.
    AppError,
    /// A request that went to a sibling.
    Passed,
    /// A connection that was accepted.
    Accepted,
    /// A TLS handshake that was completed in full.
    TlsFull,
    /// A TLS session that was resumed.
    TlsResumed,
    /// A TLS handshake that failed.
    TlsFailed,
    /// A request that was refused.
    Refused(RefusalCause),
}

impl Count {
    fn word(self) -> usize {
        match self {
            Count::Aborted => Tally::Aborted as usize,
            Count::AppError => Tally::AppErrors as usize,
            Count::Passed => Tally::Passed as usize,
            Count::Accepted => Tally::Accepted as usize,
            Count::TlsFull => Tally::TlsFull as usize,
            Count::TlsResumed => Tally::TlsResumed as usize,
            Count::TlsFailed => Tally::TlsFailed as usize,
            Count::Refused(refusal) => Tally::Refused as usize + refusal as usize,
        }
    }
}

impl Row {
    /// Records that a thread of the worker calls the app with a request, at this moment.
    pub fn start_request(&self, began: Instant) -> Running {
        let start = self.scale.nanoseconds(began).max(BEING_COUNTED + 1);
        let is_taken =
            |place: &AtomicU64| place.load(Relaxed) == 0 && place.compare_exchange(0, start, Relaxed, Relaxed).is_ok();
        let place = self.starts().iter().position(is_taken);
        if place.is_none() {
            self.field(State::Unplaced).fetch_add(1, Relaxed);
        }
        Running { place, began, start }
    }

    /// Records that the request no longer runs, and adds its time. `clock` is read in here: if it
    /// were read before, a reader could meanwhile tell a longer time than is added.
    pub fn end_request(&self, request: Running, clock: impl FnOnce() -> Instant) -> RequestRun {
        let Running { place, began, .. } = request;
        let Some(place) = place else {
            let run = RequestRun::new(began, clock());
            self.count_busy(run.time);
            self.field(State::Unplaced).fetch_sub(1, Relaxed);
            return run;
        };
        let words = self.words();
        let start = &words[State::Starts as usize + place];
        start.store(BEING_COUNTED, Relaxed);
        fence(Release);
        let run = RequestRun::new(began, clock());
        // Only the thread whose request has the place writes this word.
        let busy = &words[Tally::Busy as usize + place];
        busy.store(busy.load(Relaxed) + run.time.as_nanos() as u64, Relaxed);
        start.store(0, Release);
        run
    }

    /// Records that a request in a greenlet no longer runs. It adds no time: [`Row::count_busy`]
    /// does.
    pub fn end_greenlets_request(&self, request: Running) {
        match request.place {
            Some(place) => self.starts()[place].store(0, Release),
            None => drop(self.field(State::Unplaced).fetch_sub(1, Relaxed)),
        }
    }

    /// Adds time that a thread was in the application for a request without a place, or for
    /// greenlets.
    pub fn count_busy(&self, time: Duration) {
        self.tally(Tally::BusyRest).fetch_add(time.as_nanos() as u64, Relaxed);
    }

    /// Counts a request that the application has answered.
    pub fn count_served(&self, served: &ServedCounts) {
        let words = self.words();
        words[Tally::Requests as usize].fetch_add(1, Relaxed);
        count_status(words, served.status);
        record(histogram(words, Tally::Duration), served.duration.as_nanos() as u64);
        record(histogram(words, Tally::Queue), served.queue.as_nanos() as u64);
        if served.received > 0 {
            words[Tally::Received as usize].fetch_add(served.received, Relaxed);
        }
        if served.sent > 0 {
            words[Tally::Sent as usize].fetch_add(served.sent, Relaxed);
        }
    }

    /// Counts a response, the server's own ones too.
    pub fn count_response(&self, status: u16) {
        count_status(self.words(), status);
    }

    /// Counts an event.
    pub fn count(&self, what: Count) {
        self.words()[what.word()].fetch_add(1, Relaxed);
    }

    /// Counts lines of the error log, by their kinds.
    pub fn count_log_lines(&self, lines: [u64; LOG_LINES]) {
        for (kind, more) in lines.into_iter().enumerate().filter(|(_, more)| *more > 0) {
            self.words()[Tally::LogLines as usize + kind].fetch_add(more, Relaxed);
        }
    }

    /// Counts lines of the worker's logs that were dropped.
    pub fn count_lines_dropped(&self, lines: u64) {
        if lines > 0 {
            self.tally(Tally::LinesDropped).fetch_add(lines, Relaxed);
        }
    }

    /// Counts how long a thread that had a request waited for the interpreter.
    pub fn count_attach(&self, waited: Duration) {
        self.tally(Tally::Attach).fetch_add(waited.as_nanos() as u64, Relaxed);
    }

    /// Counts how long a request was under way before it came, as a proxy says.
    pub fn count_upstream_queue(&self, waited: Duration) {
        record(histogram(self.words(), Tally::UpstreamQueue), waited.as_nanos() as u64);
    }

    /// Writes the requests that have run for a moment: [when each began](Running::start), and its
    /// text. They replace those of the last call. Only one thread may call it at a time.
    pub fn describe_requests<'a>(&self, requests: impl Iterator<Item = (u64, &'a str)>) {
        let all = &self.words()[State::Texts as usize..][..TEXTS * TEXT_WORDS];
        let mut places = all.chunks(TEXT_WORDS);
        for ((start, text), words) in requests.zip(places.by_ref()) {
            // A reader takes a text only if its start is the same before and after.
            words[0].store(0, Relaxed);
            fence(Release);
            write_text(&words[1..], text);
            words[0].store(start, Release);
        }
        places.for_each(|words| words[0].store(0, Relaxed));
    }

    /// Counts the processor time of the worker, which has ended and been reaped.
    pub fn count_cpu_of_dead(&self, used: Duration) {
        self.tally(Tally::CpuOfDead).fetch_add(used.as_nanos() as u64, Relaxed);
        self.field(State::Pid).store(0, Relaxed);
    }

    /// Counts the requests that a dead worker was at up to now. One at whose end the worker was
    /// killed may go uncounted.
    pub(super) fn end_requests_of_dead(&self) {
        let has_greenlets = self.has_greenlets();
        for (place, start) in self.starts().iter().enumerate() {
            let began = start.swap(BEING_COUNTED, Relaxed);
            fence(Release);
            if began > BEING_COUNTED && !has_greenlets {
                let busy = self.busy(place);
                busy.store(busy.load(Relaxed) + monotonic_ns().saturating_sub(began), Relaxed);
            }
            start.store(0, Release);
        }
    }

    fn busy(&self, place: usize) -> &AtomicU64 {
        debug_assert!(place < REQUESTS);
        &self.words()[Tally::Busy as usize + place]
    }
}

fn count_status(words: &Counters<WORDS>, status: u16) {
    let place = usize::from(status.wrapping_sub(FIRST_CODE));
    if place < CODES {
        words[Tally::Codes as usize + place].fetch_add(1, Relaxed);
    }
}

fn histogram(words: &Counters<WORDS>, which: Tally) -> &[AtomicU64] {
    &words[which as usize..][..HISTOGRAM_WORDS]
}

/// Writes as much of the text as the words hold, and zeroes behind it.
pub(super) fn write_text(words: &[AtomicU64], text: &str) {
    let mut bytes = text.as_bytes();
    for word in words {
        let (now, rest) = bytes.split_at(bytes.len().min(8));
        let mut padded = [0; 8];
        padded[..now.len()].copy_from_slice(now);
        word.store(u64::from_le_bytes(padded), Relaxed);
        bytes = rest;
    }
}

/// What [`write_text`] has written. A character that did not fit whole is shown as U+FFFD.
pub(super) fn read_text(words: &[AtomicU64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
