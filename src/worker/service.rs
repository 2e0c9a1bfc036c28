//! Serving: turn by turn, the event loop's ready requests go through the application, until it is time to stop.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::access::Served;
use super::connection::{Connection, Step};
use super::event_loop::EventLoop;
use super::rules::Rules;
use super::watch::Watch;
use crate::exchange::Exchange;
use crate::logging::AccessLog;
use crate::python::Python;
use crate::python::call::{Caller, Finished};
use crate::python::signals::{Interruption, interruption};
use crate::python::transmission::{Ending, Summary};
use crate::scoreboard::State;
use crate::seat::Seat;
use crate::sys::process;
use crate::sys::signal::Signal;

/// How long a stopping worker waits for kept-alive clients to send one more request, which is answered with `Connection: close`.
const KEEPALIVE_LINGER: Duration = Duration::from_secs(2);

/// A worker at work.
pub struct Service<App> {
    /// What it was given.
    pub seat: Seat<App>,
    /// Its connections.
    pub event_loop: EventLoop,
    /// Their rules.
    pub rules: Arc<Rules>,
    /// The application.
    pub caller: Caller,
    /// Where served requests are logged, if they are.
    pub access_log: Option<AccessLog>,
    /// Response headers that the access log names.
    pub logged_headers: Vec<String>,
    /// What `--reload` looks at, if it is on.
    pub watch: Option<Watch>,
    /// Whether it goes on.
    pub stage: Stage,
}

/// How long a worker will go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Until it is told otherwise.
    Serving,
    /// Until a replacement is ready, which the master sees to.
    Retiring,
    /// Until its connections are done, or this moment.
    Draining(Instant),
}

impl<App: Send> Service<App> {
    /// Serves until the worker is to end.
    ///
    /// # Errors
    /// The poll failed.
    pub fn run(&mut self, py: Python<'_>) -> std::io::Result<()> {
        loop {
            self.seat.row.beat();
            let Service { event_loop, .. } = self;
            let turn = py.detach(|| event_loop.turn())?;
            if interruption(py).is_some() {
                break;
            }
            if turn.signals {
                self.handle_signals();
            }
            if turn.tick {
                self.on_tick();
            }
            if self.serve_ready(py).is_some() {
                break;
            }
            self.log_unserved();
            self.flush_access_log(py);
            if self.is_done() {
                break;
            }
        }
        self.flush_access_log(py);
        Ok(())
    }

    /// Takes each request that is ready through the application.
    fn serve_ready(&mut self, py: Python<'_>) -> Option<Interruption> {
        while let Some((key, connection)) = self.event_loop.next_ready() {
            self.seat.row.start_request();
            let (connection, step) = self.serve(py, connection);
            self.event_loop.put_back(key, connection, step);
            self.seat.row.finish_request();
            self.retire_when_due();
            if let Some(interruption) = interruption(py) {
                return Some(interruption);
            }
            self.seat.row.beat();
        }
        None
    }

    fn serve(&mut self, py: Python<'_>, connection: Box<Connection>) -> (Box<Connection>, Step) {
        let started = Instant::now();
        let finished = self.caller.call(py, connection);
        if self.access_log.is_some() {
            self.log_access(&finished, started.elapsed());
        }
        let Finished { exchange, ending, summary, .. } = finished;
        let mut connection =
            exchange.into_connection().expect("every exchange here is a connection: serve() made it one");
        self.caller.recycle(connection.request().site, summary);
        let step = match ending {
            Ending::KeepAlive => connection.finish(true, self.event_loop.now()),
            Ending::Close | Ending::Broken => connection.finish(false, self.event_loop.now()),
            Ending::Gone => Step::Close,
        };
        (connection, step)
    }

    fn log_access(&mut self, finished: &Finished, duration: Duration) {
        let Some(log) = &mut self.access_log else { return };
        // Nothing was sent: the application ended the request by itself (a WebSocket), or the client had gone.
        if finished.summary.status == 0 {
            return;
        }
        log.record(&Served {
            request: finished.exchange.request(),
            summary: &finished.summary,
            environ_values: &finished.environ_values,
            response_headers: &self.logged_headers,
            duration,
        });
    }

    /// Requests that were refused, or whose clients did not wait.
    fn log_unserved(&mut self) {
        let unserved = self.event_loop.take_unserved();
        let Some(log) = &mut self.access_log else { return };
        for request in &unserved {
            log.record(&Served {
                request: request.request(),
                summary: &Summary { status: request.status, sent: 0, headers: Vec::new() },
                environ_values: &[],
                response_headers: &self.logged_headers,
                duration: Duration::ZERO,
            });
        }
    }

    fn flush_access_log(&mut self, py: Python<'_>) {
        if let Some(log) = &mut self.access_log {
            py.detach(|| log.flush());
        }
    }

    fn handle_signals(&mut self) {
        while let Some(signal) = self.seat.signals.next() {
            match signal {
                Signal::Term => self.drain(),
                Signal::Usr1 => self.reopen_logs(),
                // INT, QUIT and ABRT are Python's to see, so that they reach a running application too; the rest is the master's.
                _ => {}
            }
        }
    }

    fn reopen_logs(&mut self) {
        if let Err(error) = crate::logging::reopen() {
            log::error!("Cannot reopen the error log: {error}");
        }
        if let Some(Err(error)) = self.access_log.as_mut().map(AccessLog::reopen) {
            log::error!("Cannot reopen the access log: {error}");
        }
    }

    /// Once a second.
    fn on_tick(&mut self) {
        self.seat.row.set_connections(self.event_loop.len() as u64);
        if process::getppid() != self.seat.ppid {
            log::info!("Parent changed, shutting down: <Worker {}>", std::process::id());
            self.drain();
        }
        if self.stage == Stage::Serving
            && let Some(path) = self.watch.as_mut().and_then(Watch::changed)
        {
            self.reload(&path);
        }
    }

    fn reload(&mut self, path: &Path) {
        log::info!("Worker reloading: {} modified", path.display());
        self.retire();
    }

    fn retire_when_due(&mut self) {
        let limit = self.seat.max_requests;
        if limit > 0 && self.stage == Stage::Serving && self.seat.row.served() >= limit {
            log::info!("Autorestarting worker after current request.");
            self.retire();
        }
    }

    /// Asks the master for a replacement; until there is one, serving goes on.
    fn retire(&mut self) {
        self.stage = Stage::Retiring;
        self.announce(State::Retiring);
    }

    /// Accepts no more, and lets what has begun end.
    fn drain(&mut self) {
        if matches!(self.stage, Stage::Draining(_)) {
            return;
        }
        let now = Instant::now();
        let graceful = Duration::from_secs(self.seat.config.graceful_timeout);
        self.stage = Stage::Draining(now + graceful);
        self.rules.stop_keeping_alive();
        self.event_loop.stop_accepting();
        self.event_loop.close_idle_by(now + KEEPALIVE_LINGER.min(graceful));
        self.announce(State::Draining);
    }

    fn announce(&self, state: State) {
        self.seat.row.set_state(state);
        self.seat.wakeup.wake();
    }

    fn is_done(&self) -> bool {
        match self.stage {
            Stage::Draining(end) => self.event_loop.len() == 0 || self.event_loop.now() >= end,
            Stage::Serving | Stage::Retiring => false,
        }
    }
}
