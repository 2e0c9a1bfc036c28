//! What the leader does: it runs the event loop, and the worker's duties besides requests (signals,
//! the parent, code that has changed, the end). One thread at a time leads, see `thread_pool`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection_limits::KEEPALIVE_LINGER;
use super::event_loop::{EventLoop, TICK};
use super::file_watcher::FileWatcher;
use super::thread_pool::{ThreadPool, UNWINDING_TIME};
use crate::logging::Level;
use crate::python::hooks::{Hooks, WorkerMethod};
use crate::python::loggers;
use crate::python::signals::Nudge;
use crate::scoreboard::{AskedLevel, WorkerPhase};
use crate::sys::process::{self, Pid};
use crate::sys::signal::{Signal, SignalQueue};
use crate::tls::Tls;

/// How long a worker that gives up a listener of its own goes on accepting there: siblings look
/// once per [`TICK`] which listeners are served.
const HAND_OVER: Duration = TICK.saturating_add(Duration::from_millis(500));

/// The lead: what a thread needs to lead. It lies in the pool while nobody leads.
pub struct LeaderState {
    /// The poll and the connections.
    pub event_loop: EventLoop,
    /// Signals of this process.
    pub signals: SignalQueue,
    /// Tells that signal handlers of the application are due.
    pub nudge: Nudge,
    /// The master's pid.
    pub parent: Pid,
    /// The operator's hooks and the methods of the worker's class.
    pub hooks: Hooks,
    /// The files that `--reload` watches, if it is on.
    pub watch: Option<FileWatcher>,
    /// The TLS of new connections, and where new certificates are found.
    pub tls: Option<Tls>,
    /// The level that the error log is to have, if an operator changes it.
    pub asked_level: Arc<AskedLevel>,
    /// How long the worker will go on.
    pub stage: WorkerStage,
}

/// How long a worker will go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerStage {
    /// Until it is told otherwise.
    Serving,
    /// Until a replacement is ready, which the master sees to.
    Retiring,
    /// Until its connections are done, or `end`. It accepts on until siblings have seen that it
    /// gives up its listener.
    HandingOver {
        /// The siblings have seen it by then, and the worker drains.
        until: Instant,
        /// As in `Draining`.
        end: Instant,
    },
    /// Until the greenlet that hogs the application's thread, told to end at this moment, has let
    /// go; then the worker drains. Only a worker with greenlets has this stage.
    Aborted(Instant),
    /// Until its connections are done, or this moment.
    Draining(Instant),
    /// At once.
    Over,
}

impl LeaderState {
    /// One turn of the event loop, which waits for `most` at most, and the other duties that are
    /// due.
    ///
    /// # Errors
    /// The poll failed.
    pub fn turn(&mut self, pool: &ThreadPool, most: Duration) -> std::io::Result<()> {
        // The clients first: the log may be slow.
        self.event_loop.send_finished();
        pool.flush_access_log();
        let turn = self.event_loop.turn(most)?;
        if turn.signals {
            self.handle_signals(pool);
        }
        if turn.handlers {
            self.nudge.drain();
            pool.call_main_thread();
        }
        if turn.tick {
            self.on_tick(pool);
        }
        if self.watch.as_ref().is_some_and(FileWatcher::has_changes) {
            self.reload_if_changed(pool);
        }
        self.retire_when_due(pool);
        self.end_hand_over(pool);
        self.end_abort(pool);
        self.wait_for_drain();
        pool.log_requests(&self.event_loop.take_logged());
        Ok(())
    }

    /// The end of draining is noticed in time: late requests must unwind before the master kills
    /// the worker.
    fn wait_for_drain(&mut self) {
        if let WorkerStage::Draining(end) = self.stage {
            self.event_loop.tick_by(end);
        }
    }

    /// Whether the worker has nothing more to do.
    pub fn is_done(&self) -> bool {
        match self.stage {
            WorkerStage::Draining(end) => self.event_loop.is_empty() || self.event_loop.now() >= end,
            WorkerStage::HandingOver { end, .. } => self.event_loop.now() >= end,
            WorkerStage::Serving | WorkerStage::Retiring | WorkerStage::Aborted(_) => false,
            WorkerStage::Over => true,
        }
    }

    /// Whether something that the worker has waited for is still not done at its end.
    pub fn is_late(&self) -> bool {
        matches!(self.stage, WorkerStage::Draining(_)) && self.is_done() && !self.event_loop.is_empty()
    }

    fn handle_signals(&mut self, pool: &ThreadPool) {
        while let Some(signal) = self.signals.next() {
            match signal {
                Signal::Term => {
                    pool.tell_class(&self.hooks, WorkerMethod::HandleExit);
                    self.drain(pool);
                }
                Signal::Usr1 => {
                    pool.tell_class(&self.hooks, WorkerMethod::HandleUsr1);
                    pool.reopen_logs();
                }
                // Python gets INT and QUIT too, to unwind an application that runs in the main
                // thread.
                Signal::Int | Signal::Quit => {
                    pool.note_sudden_end();
                    self.stage = WorkerStage::Over;
                }
                Signal::Abrt if pool.has_greenlets() => {
                    pool.note_abort();
                    if !self.is_told_to_end() {
                        self.stage = WorkerStage::Aborted(Instant::now());
                    }
                }
                Signal::Abrt => {
                    self.stage = WorkerStage::Over;
                    pool.give_up_requests();
                }
                // Other signals concern only the master.
                _ => {}
            }
        }
    }

    /// Once a second.
    fn on_tick(&mut self, pool: &ThreadPool) {
        if self.event_loop.serves() {
            // A heartbeat says that a thread can serve. While the standby thread leads, none can.
            pool.beat();
        }
        pool.describe_requests();
        pool.count_log_lines();
        if let Some(level) = self.asked_level.take() {
            loggers::set_level_later(Level::from_python(level));
        }
        if !self.is_told_to_end() && self.has_lost_its_parent() {
            self.finish(pool, Instant::now() + pool.time_to_drain());
        }
        self.reload_if_changed(pool);
    }

    /// Whether the master is gone, which is said in the log.
    fn has_lost_its_parent(&self) -> bool {
        let is_lost = process::getppid() != self.parent;
        if is_lost {
            log::info!("Parent changed, shutting down: <Worker {}>", std::process::id());
        }
        is_lost
    }

    fn reload_if_changed(&mut self, pool: &ThreadPool) {
        if self.stage == WorkerStage::Serving
            && let Some(path) = self.watch.as_mut().and_then(FileWatcher::changed)
        {
            log::info!("Worker reloading: {} modified", path.display());
            pool.tell_of_changed_code(&self.hooks);
            self.retire(pool);
        }
        self.catch_up_with_certificates();
    }

    /// Takes the certificates that the master has read anew (`tls_watch`), for the connections to
    /// come.
    fn catch_up_with_certificates(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        match tls.catch_up() {
            Ok(true) => self.event_loop.accept_under_tls(tls),
            Ok(false) => {}
            Err(error) => log::error!("Certificates changed, but cannot be used; the old ones stay: {error}"),
        }
    }

    fn retire_when_due(&mut self, pool: &ThreadPool) {
        if self.stage == WorkerStage::Serving && pool.has_served_its_requests() {
            log::info!("Autorestarting worker after current request.");
            self.retire(pool);
        }
    }

    /// Asks the master for a replacement; until there is one, serving goes on.
    fn retire(&mut self, pool: &ThreadPool) {
        self.stage = WorkerStage::Retiring;
        pool.announce(WorkerPhase::Retiring);
    }

    fn is_told_to_end(&self) -> bool {
        !matches!(self.stage, WorkerStage::Serving | WorkerStage::Retiring)
    }

    /// TERM: the worker ends. Where it alone accepts at a socket, it first waits for siblings to do
    /// so.
    fn drain(&mut self, pool: &ThreadPool) {
        if self.is_told_to_end() {
            return;
        }
        let now = Instant::now();
        let end = now + pool.time_to_drain();
        // The kernel also sends TERM when the master dies (prctl(2)): then nobody replaces the
        // worker.
        if self.has_lost_its_parent() || pool.server_stops() || !self.event_loop.is_last_on_its_socket() {
            return self.finish(pool, end);
        }
        pool.stop_keeping_alive();
        pool.give_up_socket();
        let until = end.min(now + HAND_OVER);
        self.event_loop.tick_by(until);
        self.stage = WorkerStage::HandingOver { until, end };
    }

    fn end_hand_over(&mut self, pool: &ThreadPool) {
        if let WorkerStage::HandingOver { until, end } = self.stage {
            match self.event_loop.now() >= until || pool.server_stops() {
                true => self.finish(pool, end),
                false => self.event_loop.tick_by(until),
            }
        }
    }

    /// After an abort: once the request that hogged the thread has let go, the others are finished.
    /// If it does not let go in time, the leader answers all their clients in the application's
    /// stead.
    fn end_abort(&mut self, pool: &ThreadPool) {
        let WorkerStage::Aborted(since) = self.stage else { return };
        let now = Instant::now();
        if self.event_loop.serves() {
            self.finish(pool, now + pool.time_to_drain());
        } else if now >= since + UNWINDING_TIME {
            self.stage = WorkerStage::Over;
            pool.answer_in_place();
        } else {
            self.event_loop.tick_by(since + UNWINDING_TIME);
        }
    }

    /// Accepts no more, and lets what has begun end.
    fn finish(&mut self, pool: &ThreadPool, end: Instant) {
        self.stage = WorkerStage::Draining(end);
        pool.stop_keeping_alive();
        self.event_loop.stop_accepting();
        self.event_loop.close_idle_by(end.min(Instant::now() + KEEPALIVE_LINGER));
        // Last: when all say so, the master closes the listeners, and their queues are lost.
        pool.announce(WorkerPhase::Draining);
    }
}
