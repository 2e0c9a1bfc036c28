//! A request from the call of the application to its line in the access log.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

use super::ThreadPool;
use crate::base::unpoisoned::Unpoisoned;
use crate::logging::AccessLog;
use crate::python::call::{Caller, Finished};
use crate::python::panics::caught;
use crate::python::response_writer::Disposition;
use crate::python::{Python, loggers};
use crate::scoreboard::RequestRun;
use crate::worker::access::ServedRequest;
use crate::worker::connection::{Connection, GivenBack, LoggedRequest, Request, Step};
use crate::worker::counting;

/// How often a thread looks whether the access log is free.
const LOG_PAUSE: Duration = Duration::from_micros(200);

impl ThreadPool {
    /// Runs the application. Returns the connection, and when the application was done.
    pub(super) fn serve(
        &self,
        py: Python<'_>,
        caller: &mut Caller,
        request: Box<Request>,
        started: Instant,
    ) -> (GivenBack, Instant) {
        let running = self.worker.row.start_request(started);
        caller.note_start(running.start(), started);
        let finished = caller.call(py, request);
        let run = self.worker.row.end_request(running, Instant::now);
        (self.settle(py, finished, run), run.ended)
    }

    /// What comes after the application, which has answered a request in `run`: the counts, the
    /// access log, and how the connection goes on.
    pub(super) fn settle(&self, py: Python<'_>, mut finished: Finished, run: RequestRun) -> GivenBack {
        let is_sent = finished.is_logged || self.access_log.is_none() || finished.exchange.unsent() == 0;
        if is_sent && let Some(log) = &self.access_log {
            let logged = caught(|| self.log_access(py, log, &mut finished, run));
            logged.unwrap_or_else(|panic| log::error!("Cannot log a request: a fault of the server: {panic}"));
        }
        if !finished.is_worker_wanted {
            self.is_dismissed.store(true, Relaxed);
        }
        let Finished { exchange, ending, summary, environ_values, .. } = finished;
        let request = exchange.into_request().expect("every exchange here is a request: the caller was given one");
        let (ready_at, received) = request.ready();
        let queue = run.began.saturating_duration_since(ready_at);
        counting::served(&self.worker.row, (queue, run.time), received, &summary);
        if self.worker.limits.measures {
            request.upstream_wait().iter().for_each(|waited| self.worker.row.count_upstream_queue(*waited));
        }
        let late_log = (!is_sent).then(|| request.late_log(summary, environ_values, run.began));
        let given_back = request.give_back(|connection| {
            late_log.into_iter().for_each(|log| connection.log_when_sent(log));
            caught(|| go_on(connection, ending, run.ended)).unwrap_or_else(|panic| {
                log::error!("Cannot go on with a connection: a fault of the server: {panic}");
                Step::Close
            })
        });
        self.worker.row.beat();
        self.note_duration(run.time);
        given_back
    }

    /// Keeps the moving average: the newest request counts for an eighth.
    fn note_duration(&self, duration: Duration) {
        let newest = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 8);
        let average = self.request_ns.load(Relaxed);
        // Threads may overwrite each other's update; an average forgives that.
        self.request_ns.store(average - average / 8 + newest / 8, Relaxed);
    }

    fn log_access(&self, py: Python<'_>, log: &Mutex<AccessLog>, finished: &mut Finished, run: RequestRun) {
        // Where Python's logging writes the line, it got the request while the response was at hand
        // (python::request_hooks).
        if finished.is_logged {
            return;
        }
        let mut log = loop {
            match log.try_lock() {
                Ok(log) => break log,
                Err(TryLockError::Poisoned(log)) => break log.into_inner(),
                // The leader is writing, perhaps to a slow pipe: neither the client nor other
                // Python threads need wait for it.
                Err(TryLockError::WouldBlock) => {
                    // An error is met again when the connection goes on.
                    let _ = finished.exchange.flush();
                    py.detach(|| std::thread::sleep(LOG_PAUSE));
                }
            }
        };
        // Nothing was sent: the application ended the request by itself (a WebSocket), or the
        // client had gone.
        if finished.summary.status == 0 {
            return;
        }
        let request = finished.exchange.request();
        log.record(&ServedRequest {
            request,
            summary: &finished.summary,
            environ_values: &finished.environ_values,
            response_headers: &self.logged_headers,
            duration: run.time,
            queue: Some(run.began.saturating_duration_since(request.ready_at)),
        });
    }

    /// Adds the line of each request that the event loop has to log.
    pub fn log_requests(&self, requests: &[LoggedRequest]) {
        if requests.is_empty() {
            return;
        }
        let Some(log) = &self.access_log else { return };
        let mut log = log.lock().unpoisoned();
        if let Some(queue) = loggers::queue() {
            log.hand_to(|| Box::new(|line| queue.access_line(line)));
        }
        for request in requests {
            log.record(&ServedRequest {
                request: request.request(),
                summary: &request.summary,
                environ_values: &request.environ_values,
                response_headers: &self.logged_headers,
                duration: request.duration,
                queue: request.queue,
            });
        }
    }

    /// Writes out what has been logged.
    pub fn flush_access_log(&self) {
        if let Some(log) = &self.access_log {
            log.lock().unpoisoned().flush();
        }
    }

    /// Opens both logs anew (USR1).
    pub fn reopen_logs(&self) {
        if let Err(error) = crate::logging::reopen() {
            log::error!("Cannot reopen the error log: {error}");
        }
        loggers::reopen_later();
        if let Some(log) = &self.access_log
            && let Err(error) = log.lock().unpoisoned().reopen()
        {
            log::error!("Cannot reopen the access log: {error}");
        }
    }
}

/// What becomes of a connection whose request has come to its `ending`.
fn go_on(connection: &mut Connection, ending: Disposition, now: Instant) -> Step {
    match ending {
        Disposition::KeepAlive => connection.finish(true, now),
        Disposition::Close => connection.finish(false, now),
        Disposition::EndBody => {
            connection.note_end_of_body();
            connection.finish(false, now)
        }
        Disposition::Broken => {
            connection.break_off();
            connection.finish(false, now)
        }
        Disposition::CutShort => {
            connection.cut_short();
            connection.finish(false, now)
        }
        Disposition::Gone => Step::Close,
    }
}
