//! The requests that the threads are at: shown on the scoreboard and in the log, and answered in
//! the application's stead where the worker is past its deadline.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::ThreadPool;
use crate::base::unpoisoned::Unpoisoned;
use crate::logging::{RequestIds, within};
use crate::python::call::{InFlight, Look};
use crate::sys::clock::monotonic_ms;
use crate::worker::slow_requests::{SeenRequest, SlowRequests};

/// Most requests that are named when a worker is aborted. Under gevent there may be thousands.
const MOST_REPORTED: usize = 64;

/// How long an aborted application may take to end its request by itself; the master kills the
/// worker a second after aborting it.
pub const UNWINDING_TIME: Duration = Duration::from_millis(300);

/// What the threads of a worker are at.
pub(super) struct InFlightTable {
    /// What each thread is at, and each greenlet.
    callers: Mutex<Vec<InFlight>>,
    /// The slow requests that the log names already.
    slow: Mutex<SlowRequests>,
    /// The log says already what the worker was at when it was aborted.
    has_reported_abort: AtomicBool,
}

/// A request that a thread is at, for the log.
struct InFlightRequest {
    /// Its method, target and client.
    text: String,
    ids: RequestIds,
    /// How long it has run.
    seconds: f64,
}

impl InFlightTable {
    pub(super) fn new(slow: SlowRequests) -> Self {
        InFlightTable { callers: Mutex::default(), slow: Mutex::new(slow), has_reported_abort: AtomicBool::new(false) }
    }

    pub(super) fn add(&self, caller: InFlight) {
        self.callers.lock().unpoisoned().push(caller);
    }

    pub(super) fn remove(&self, caller: &InFlight) {
        self.callers.lock().unpoisoned().retain(|known| !known.is_of_the_same_caller(caller));
    }

    /// Sends what has waited for long enough; with `hurry`, also responses that wait for others.
    pub(super) fn flush_due(&self, now: Instant, hurry: bool) -> Look {
        // Nothing below waits, and a look comes often: the list is not copied.
        let callers = self.callers.lock().unpoisoned();
        callers.iter().map(|requests| requests.flush_due(now, hurry)).max().unwrap_or(Look::Nothing)
    }

    /// What all are at.
    fn described(&self) -> Vec<InFlightRequest> {
        let now = monotonic_ms();
        let of_caller = |requests: &InFlight| {
            let seconds = now.saturating_sub(requests.start() / 1_000_000) as f64 / 1000.0;
            requests.describe().into_iter().map(move |(text, ids)| InFlightRequest { text, ids, seconds })
        };
        self.callers().iter().flat_map(of_caller).collect()
    }

    /// A copy of the list: its user may log, or wait for a response.
    fn callers(&self) -> Vec<InFlight> {
        self.callers.lock().unpoisoned().clone()
    }
}

impl ThreadPool {
    /// The worker is past its deadline (ABRT): says in the log what it was at and, once the
    /// application has had its chance to unwind, answers the clients in its stead.
    pub fn give_up_requests(&self) {
        // The thread that holds the interpreter may be stuck: from here on no log record goes
        // through Python.
        crate::logging::redirect(None);
        self.report_abort();
        std::thread::sleep(UNWINDING_TIME);
        self.answer_in_place();
    }

    /// Answers the clients of all requests that the application is at in its stead.
    pub fn answer_in_place(&self) {
        crate::logging::redirect(None);
        self.report_abort();
        self.in_flight.callers().iter().for_each(InFlight::give_up);
    }

    /// Says once what the worker is at when it is aborted. Whoever hears of the abort first does
    /// so: the leader, or the main thread before it unwinds the application.
    pub fn report_abort(&self) {
        if self.in_flight.has_reported_abort.swap(true, Relaxed) {
            return;
        }
        let requests = self.in_flight.described();
        for InFlightRequest { text, ids, seconds } in requests.iter().take(MOST_REPORTED) {
            within(ids.clone().into(), || log::error!("Aborted while serving {text}, for {seconds:.3} s"));
        }
        if requests.len() > MOST_REPORTED {
            log::error!("Aborted while serving {} requests more", requests.len() - MOST_REPORTED);
        }
        if requests.is_empty() {
            log::error!("Aborted while no request was in the app");
        }
    }

    /// Says what the worker is at when it ends without waiting any longer.
    pub(super) fn report_late(&self) {
        for InFlightRequest { text, ids, seconds } in self.in_flight.described().into_iter().take(MOST_REPORTED) {
            within(ids.into(), || log::warn!("Not done at the end of graceful_timeout, after {seconds:.3} s: {text}"));
        }
    }

    /// Writes what the threads are at on the scoreboard, where it can be seen while they hang. Once
    /// a second, so that a request that is soon over costs nothing.
    pub fn describe_requests(&self) {
        if self.worker.row.request_started_at().is_none() {
            return;
        }
        let in_flight = self.in_flight.callers();
        let running = in_flight.iter().filter(|requests| requests.start() != 0);
        let described: Vec<SeenRequest> = running.flat_map(SeenRequest::all_of).collect();
        self.worker.row.describe_requests(described.iter().map(|seen| (seen.start, seen.text.as_str())));
        if let Some(limit) = self.worker.slow_request {
            self.in_flight.slow.lock().unpoisoned().tell(described, limit);
        }
    }
}
