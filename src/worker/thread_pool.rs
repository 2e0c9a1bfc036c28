//! The threads of a worker: leader and followers.
//!
//! One thread leads: it polls, and does the connections' input and output. When a request is ready,
//! the leader leaves the lead in the slot and runs the application itself, so that nothing is handed
//! from thread to thread. A thread that is free takes the lead from the slot: usually the same one, a
//! moment later. A follower is woken for it only when requests have lately taken long.
//!
//! One standby thread never runs the application. It sends what has waited for long enough while the
//! application runs. It takes the lead when every other thread has been busy for a few milliseconds:
//! then slow responses go on, waits end in time, and ready requests find a sibling that is free.
//!
//! No thread waits for the interpreter while it leads: threads lead detached, and run the application
//! attached.

mod greenlets;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use mio::Waker;

use greenlets::HubState;

use super::access::ServedRequest;
use super::batching::{LONGEST_WAIT, SHORT_REQUEST_NS};
use super::connection::{Connection, GivenBack, LoggedRequest, Request, Step, lock};
use super::connection_limits::ConnectionLimits;
use super::counting;
use super::leader::{LeaderState, WorkerStage};
use super::siblings::Siblings;
use super::slow_requests::{SeenRequest, SlowRequests};
use super::standby::{Attention, BUSY_LOOK};
use crate::base::unpoisoned::Unpoisoned;
use crate::logging::{AccessLog, RequestIds, within};
use crate::python::call::{Caller, Finished, InFlight, Look};
use crate::python::idle::GreenletWait;
use crate::python::panics::caught;
use crate::python::response_writer::Disposition;
use crate::python::signals::{self, was_interrupted};
use crate::python::{Python, loggers};
use crate::scoreboard::{Count, Row, WorkerPhase};
use crate::sys::clock::monotonic_ms;
use crate::sys::thread;
use crate::sys::wakeup::Wakeup;

/// After this long without a request the standby thread sleeps until there is one.
const STANDBY_PATIENCE: Duration = Duration::from_millis(25);

/// After so many looks in vain it is no longer attentive to bytes that wait: calling it costs the application more than a few of those.
const QUIET_LOOKS: u32 = 8;

/// Requests that have lately taken longer than this are worth waking a thread to lead meanwhile; for shorter ones the waking would cost
/// more than the wait.
const LONG_REQUEST_NS: u64 = 500_000;

/// How long an aborted application may take to end its request by itself; the master kills the worker a second after aborting it.
pub const UNWINDING_TIME: Duration = Duration::from_millis(300);

/// Most requests that are named when a worker is aborted. Of greenlets there may be thousands at one.
const MOST_REPORTED: usize = 64;

/// How often a thread looks whether the access log is free.
const LOG_PAUSE: Duration = Duration::from_micros(200);

/// Between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How many requests a thread serves between two turns of the event loop, so that those in hand do not keep others waiting.
const REQUESTS_PER_TURN: usize = 64;

/// What the threads of a worker share.
pub struct ThreadPool {
    slot: Mutex<PoolState>,
    /// Threads that wait to lead.
    followers: Condvar,
    /// Ends the leader's poll.
    waker: Waker,
    /// What requests have lately taken, in nanoseconds: a moving average.
    request_ns: AtomicU64,
    worker: WorkerContext,
    /// Whether there are connections in the slot's `returned`.
    has_returned: AtomicBool,
    access_log: Option<Mutex<AccessLog>>,
    /// Response headers that the access log names.
    logged_headers: Vec<String>,
    /// What each thread is at.
    in_flight: Mutex<Vec<InFlight>>,
    /// A hook has set `worker.alive` to False.
    is_dismissed: AtomicBool,
    /// The main thread is to run handlers that the application has installed in Python.
    handlers_due: AtomicBool,
    /// Those that the log names already.
    slow_requests: Mutex<SlowRequests>,
    /// The log says already what the worker was at when it was aborted.
    has_reported_abort: AtomicBool,
    /// Where requests run in greenlets: what their hub and the other threads share.
    hub: Option<HubState>,
}

/// Which of the threads that run the application this is.
pub enum Role {
    /// The interpreter's main thread: the one in which Python runs handlers of signals.
    Main {
        /// How it waits where the application's own threads are greenlets.
        greenlets: Option<GreenletWait>,
    },
    /// Another.
    Other,
}

/// What a thread is to do next.
enum Task {
    /// A request is ready.
    Serve(Box<Request>),
    /// Handlers of signals are due.
    RunHandlers,
    /// The worker ends.
    End,
}

/// What the pool needs to know of the worker it belongs to.
pub struct WorkerContext {
    /// The worker's row on the scoreboard.
    pub row: Row,
    /// To be rung when the row's state changes.
    pub wakeup: Wakeup,
    /// The number of the socket on which the worker accepts under `reuse_port`.
    pub listener_number: usize,
    /// The other workers.
    pub siblings: Arc<Siblings>,
    /// What holds for all connections.
    pub limits: Arc<ConnectionLimits>,
    /// Threads that run the application.
    pub threads: usize,
    /// Requests after which the worker asks for a replacement; 0 for no limit.
    pub max_requests: u64,
    /// How long a worker may take to end.
    pub graceful_timeout: Duration,
    /// How long a request may run before the log names it.
    pub slow_request: Option<Duration>,
    /// Whether that shows where in the application it is.
    pub slow_request_stack: bool,
}

/// The lead while nobody leads, and who waits for it.
struct PoolState {
    lead: Option<Box<LeaderState>>,
    leader: LeaderThread,
    /// Connections whose requests are served, by their keys, while somebody else leads; and how they go on.
    returned: Vec<(usize, Step)>,
    /// Threads that wait to lead.
    waiting: usize,
    /// Threads that run the application.
    busy: usize,
    /// Counts every time the application was entered or left: standing still means that everybody is at it.
    moves: u64,
    is_over: bool,
}

impl PoolState {
    fn put_back_lead(&mut self, mut lead: Box<LeaderState>) {
        if self.is_over {
            // Nobody will take it up again.
            lead.event_loop.send_finished();
            lead.event_loop.end_connections();
        }
        (self.lead, self.leader) = (Some(lead), LeaderThread::Nobody);
        self.moves += 1;
    }

    fn send_finished(&mut self) {
        if let Some(lead) = &mut self.lead {
            lead.event_loop.send_finished();
        }
    }

    fn end_connections(&mut self) {
        self.send_finished();
        if let Some(lead) = &mut self.lead {
            lead.event_loop.end_connections();
        }
    }
}

/// What the standby thread saw when it last looked at the threads.
struct BusyLook {
    moves: u64,
    since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LeaderThread {
    Nobody,
    Worker,
    Standby,
}

impl ThreadPool {
    /// A pool that waits for its lead ([`ThreadPool::begin`]).
    pub fn new(
        waker: Waker,
        worker: WorkerContext,
        access_log: Option<AccessLog>,
        logged_headers: Vec<String>,
    ) -> ThreadPool {
        let slow_requests = SlowRequests::new(worker.slow_request_stack);
        ThreadPool {
            slot: Mutex::new(PoolState {
                lead: None,
                leader: LeaderThread::Nobody,
                returned: Vec::new(),
                waiting: 0,
                busy: 0,
                moves: 0,
                is_over: false,
            }),
            followers: Condvar::new(),
            waker,
            request_ns: AtomicU64::new(0),
            worker,
            has_returned: AtomicBool::new(false),
            access_log: access_log.map(Mutex::new),
            logged_headers,
            in_flight: Mutex::default(),
            is_dismissed: AtomicBool::new(false),
            handlers_due: AtomicBool::new(false),
            slow_requests: Mutex::new(slow_requests),
            has_reported_abort: AtomicBool::new(false),
            hub: None,
        }
    }

    /// A pool whose one thread runs the application in greenlets, and is called by `call`.
    pub fn of_greenlets(self, call: Arc<Wakeup>) -> ThreadPool {
        let mut pool = ThreadPool { hub: Some(HubState::new(call)), ..self };
        pool.worker.row.set_has_greenlets();
        // Late greenlets are to unwind before the master's patience ends.
        let graceful_timeout = &mut pool.worker.graceful_timeout;
        *graceful_timeout -= UNWINDING_TIME.min(*graceful_timeout / 2);
        pool
    }

    /// The worker is alive, and has a thread that can serve.
    pub fn beat(&self) {
        self.worker.row.beat();
    }

    /// How many threads run the application.
    pub fn threads(&self) -> usize {
        self.worker.threads
    }

    /// Whether all workers are to end with this one.
    pub fn server_stops(&self) -> bool {
        self.worker.siblings.server_stops()
    }

    /// Tells the siblings that somebody else has to accept where this worker did.
    pub fn give_up_socket(&self) {
        self.worker.row.set_listener_number(None);
    }

    /// From now on the worker serves. All its threads are there: until now none could take the lead.
    pub fn begin(&self, lead: LeaderState) {
        self.tell_idle_threads(0);
        self.worker.row.set_listener_number(Some(self.worker.listener_number));
        self.worker.row.beat();
        self.announce(WorkerPhase::Ready);
        self.lock().put_back_lead(Box::new(lead));
        self.followers.notify_one();
    }

    /// With several threads, one of them at a long request says nothing about the worker: it then beats as long as the interpreter
    /// can be had (with a single thread it beats with each request).
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn start_heartbeat(self: &Arc<Self>) -> std::io::Result<()> {
        let pool = self.clone();
        let beat = move || {
            while !pool.lock().is_over {
                Python::attach(|_| pool.worker.row.beat());
                std::thread::sleep(HEARTBEAT);
            }
        };
        thread::spawn("heartbeat", beat)
    }

    /// Leads and serves until the worker is to end. Each thread that runs the application lives here.
    pub fn work(&self, py: Python<'_>, caller: &mut Caller, role: &Role) {
        let in_flight = caller.in_flight();
        in_flight.note_thread();
        self.in_flight.lock().unpoisoned().push(in_flight);
        loop {
            let (task, attaches_at) = py.detach(|| (self.next_task(role), self.clock_if_measured()));
            let goes_on = match task {
                Task::Serve(request) => self.serve_on(py, caller, request, attaches_at),
                Task::RunHandlers => self.run_handlers(py),
                Task::End => return,
            };
            if !goes_on {
                self.end();
                return;
            }
        }
    }

    /// The time, where waits are measured.
    fn clock_if_measured(&self) -> Option<Instant> {
        self.worker.limits.measures.then(Instant::now)
    }

    /// Serves a request, and those behind it that are ready, up to [`REQUESTS_PER_TURN`]. The thread has waited for the
    /// interpreter since `attaches_at`, where that is measured. Says whether the worker goes on.
    fn serve_on(
        &self,
        py: Python<'_>,
        caller: &mut Caller,
        mut request: Box<Request>,
        attaches_at: Option<Instant>,
    ) -> bool {
        let mut now = Instant::now();
        attaches_at.iter().for_each(|since| self.worker.row.count_attach(now - *since));
        for served in 1.. {
            let (served_request, ended) = self.serve(py, caller, request, now);
            let next = self.done(served_request, ended, served < REQUESTS_PER_TURN);
            if was_interrupted(py) {
                return false;
            }
            let Some(next) = next else { break };
            request = next;
            // It begins where this one has ended, but for who logs, which may take its time.
            now = if self.access_log.is_none() { ended } else { Instant::now() };
        }
        true
    }

    /// Runs handlers of signals while nothing of the application runs here. Says whether the worker goes on.
    fn run_handlers(&self, py: Python<'_>) -> bool {
        signals::run_due_handlers(py);
        let mut slot = self.lock();
        slot.moves += 1;
        slot.busy -= 1;
        self.tell_idle_threads(slot.busy);
        drop(slot);
        !was_interrupted(py)
    }

    /// A thread has panicked away from any request. It may have had the lead in its hands, which nobody finds then: the worker ends, and is
    /// replaced, rather than live on deaf.
    pub fn fall(&self, panic: &str) {
        log::error!("The worker cannot go on: a fault of the server: {panic}");
        self.end();
    }

    /// The standby thread's life: it sends what has waited for long enough while the application runs, and leads when every other thread
    /// has been busy for a few milliseconds.
    pub fn run_standby(&self) {
        let standby = &self.worker.limits.standby;
        let mut busy = BusyLook { moves: 0, since: Instant::now() };
        let (mut quiet_looks, mut hurried) = (0, Instant::now());
        loop {
            let Some(is_idle) = self.look_after_threads(&mut busy) else { return };
            let attention = match (quiet_looks < QUIET_LOOKS, is_idle) {
                (true, _) => Attention::ToBytes,
                (false, false) => Attention::ToThreads,
                (false, true) => Attention::Asleep,
            };
            standby.set_attention(attention);
            // Whoever came before that saw it attentive: it looks once more.
            let must_wait_on = attention == Attention::Asleep && !self.is_idle();
            let found = self.flush_due(Instant::now(), false);
            if must_wait_on || found != Look::Nothing && attention != Attention::ToBytes {
                quiet_looks = QUIET_LOOKS - 1;
                continue;
            }
            standby.wait(attention);
            let now = Instant::now();
            let hurry = now >= hurried + BUSY_LOOK;
            if hurry {
                hurried = now;
            }
            quiet_looks = if self.flush_due(now, hurry) == Look::Waits { 0 } else { quiet_looks + 1 };
        }
    }

    /// Sends what has waited for long enough; with `hurry`, also responses that wait for others.
    fn flush_due(&self, now: Instant, hurry: bool) -> Look {
        let standby = &self.worker.limits.standby;
        // Of greenlets there may be hundreds at a request: they are looked at only where there is something to find.
        if self.has_greenlets() && !standby.take_bytes() {
            return Look::Nothing;
        }
        // Nothing below waits, and a look comes often: the list is not copied.
        let looks = self.in_flight.lock().unpoisoned();
        let found = looks.iter().map(|requests| requests.flush_due(now, hurry)).max().unwrap_or(Look::Nothing);
        drop(looks);
        if self.has_greenlets() && found != Look::Nothing {
            standby.call_for(Attention::ToBytes);
        }
        found
    }

    /// Leads, if every thread is busy, until one wants to. Says whether none has had a request for a while; `None` when the worker is over.
    fn look_after_threads(&self, look: &mut BusyLook) -> Option<bool> {
        let mut slot = self.lock();
        if slot.is_over {
            return None;
        }
        if slot.moves != look.moves {
            *look = BusyLook { moves: slot.moves, since: Instant::now() };
        } else if slot.lead.is_some() && slot.busy > 0 && look.since.elapsed() >= BUSY_LOOK {
            slot = self.take_over(slot);
        }
        Some(slot.busy == 0 && look.since.elapsed() > STANDBY_PATIENCE)
    }

    fn is_idle(&self) -> bool {
        self.lock().busy == 0
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

    /// The worker is past its time (ABRT): says in the log what it was at and, once the application has had its chance to unwind, answers
    /// the clients in its stead.
    pub fn give_up_requests(&self) {
        // Whoever holds the interpreter may be what is stuck: from here on no record goes by way of it.
        crate::logging::redirect(None);
        self.report_abort();
        std::thread::sleep(UNWINDING_TIME);
        self.answer_in_place();
    }

    /// Answers the clients of all requests that the application is at in its stead.
    pub fn answer_in_place(&self) {
        crate::logging::redirect(None);
        self.report_abort();
        let in_flight = self.in_flight.lock().unpoisoned().clone();
        in_flight.iter().for_each(InFlight::give_up);
    }

    /// Says once what the worker is at when it is aborted. Whoever hears of the abort first does so: the leader, or the main thread before
    /// it unwinds the application.
    pub fn report_abort(&self) {
        if self.has_reported_abort.swap(true, Relaxed) {
            return;
        }
        let in_flight = self.in_flight.lock().unpoisoned().clone();
        let now = monotonic_ms();
        let ages = in_flight.iter().map(|requests| now.saturating_sub(requests.start() / 1_000_000));
        let described = ages.zip(&in_flight).flat_map(|(age, of)| of.describe().into_iter().map(move |one| (age, one)));
        let requests: Vec<(u64, (String, RequestIds))> = described.collect();
        for (age, (request, ids)) in requests.iter().take(MOST_REPORTED) {
            let (seconds, rest) = (age / 1000, age % 1000);
            within(ids.clone().into(), || log::error!("Aborted while serving {request}, for {seconds}.{rest:03} s"));
        }
        if requests.len() > MOST_REPORTED {
            log::error!("Aborted while serving {} requests more", requests.len() - MOST_REPORTED);
        }
        if requests.is_empty() {
            log::error!("Aborted while no request was in the app");
        }
    }

    /// Writes what the threads are at on the scoreboard, where it can be seen while they hang. Once a second, so that a request that is
    /// soon over costs nothing.
    pub fn describe_requests(&self) {
        // Requests of greenlets have no place in the row, and greenlets without one no start.
        if self.worker.row.request_started_at().is_none() && !self.has_greenlets() {
            return;
        }
        let in_flight: Vec<InFlight> =
            self.in_flight.lock().unpoisoned().iter().filter(|requests| requests.start() != 0).cloned().collect();
        let described: Vec<SeenRequest> = in_flight.iter().flat_map(SeenRequest::all_of).collect();
        self.worker.row.describe_requests(described.iter().map(|seen| (seen.start, seen.text.as_str())));
        if let Some(limit) = self.worker.slow_request {
            self.slow_requests.lock().unpoisoned().tell(described, limit);
        }
    }

    /// Counts on the scoreboard what has been logged since the last second.
    pub fn count_log_lines(&self) {
        super::count_lines(&self.worker.row);
    }

    /// Whether the worker has served as many requests as it should, or a hook wants no more of it.
    pub fn has_served_its_requests(&self) -> bool {
        self.is_dismissed.load(Relaxed)
            || self.worker.max_requests > 0 && self.worker.row.served() >= self.worker.max_requests
    }

    /// Changes the worker's state, and lets the master know.
    pub fn announce(&self, state: WorkerPhase) {
        self.worker.row.set_state(state);
        self.worker.wakeup.wake();
    }

    /// How long the worker may take to end.
    pub fn graceful_timeout(&self) -> Duration {
        self.worker.graceful_timeout
    }

    /// From now on every response closes its connection.
    pub fn stop_keeping_alive(&self) {
        self.worker.limits.stop_keeping_alive();
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.slot.lock().unpoisoned()
    }

    fn tell_idle_threads(&self, busy: usize) {
        self.worker.row.set_idle_threads(self.worker.threads.saturating_sub(busy) as u64);
    }

    /// Waits for the lead, leads until there is something to do in Python, and leaves the lead in the slot.
    fn next_task(&self, role: &Role) -> Task {
        let mut lead = match self.take_lead(role) {
            Ok(lead) => lead,
            Err(task) => return task,
        };
        loop {
            self.take_returned_connections(&mut lead);
            if let Some(request) = lead.event_loop.next_ready(self.requests_are_short()) {
                self.leave_lead(lead, true);
                return Task::Serve(request);
            }
            self.lead_a_turn(&mut lead, role);
            if lead.is_done() {
                self.leave_lead(lead, false);
                self.end();
                return Task::End;
            }
            if self.must_run_handlers(role) {
                self.leave_lead(lead, true);
                return Task::RunHandlers;
            }
        }
    }

    fn lead_a_turn(&self, lead: &mut LeaderState, role: &Role) {
        let mut most = Duration::MAX;
        if let Role::Main { greenlets: Some(greenlets) } = role {
            // The one thread that runs the application waits where its greenlets run meanwhile. Nobody else wants to lead then.
            lead.event_loop.send_finished();
            greenlets.wait(lead.event_loop.descriptor(), lead.event_loop.time_to_wait());
            most = Duration::ZERO;
        }
        if let Err(error) = lead.turn(self, most) {
            log::error!("The worker cannot go on: {error}");
            lead.stage = WorkerStage::Over;
        }
    }

    fn must_run_handlers(&self, role: &Role) -> bool {
        matches!(role, Role::Main { .. }) && self.handlers_due.swap(false, Relaxed)
    }

    /// Handlers that the application has installed in Python are due: the main thread runs them, unless it runs the application, where
    /// Python does so itself.
    pub fn call_main_thread(&self) {
        self.handlers_due.store(true, Relaxed);
        // Whoever has not seen it yet holds the slot's lock until it waits.
        let waiting = self.lock().waiting;
        if waiting > 0 {
            self.followers.notify_all();
        }
    }

    /// The lead, or what is to be done without it.
    fn take_lead(&self, role: &Role) -> Result<Box<LeaderState>, Task> {
        let mut slot = self.lock();
        let mut has_waited = false;
        loop {
            if slot.is_over {
                return Err(Task::End);
            }
            if self.must_run_handlers(role) {
                slot.busy += 1;
                self.tell_idle_threads(slot.busy);
                return Err(Task::RunHandlers);
            }
            if let Some(mut lead) = slot.lead.take() {
                slot.leader = LeaderThread::Worker;
                lead.event_loop.lead_as(true);
                if has_waited {
                    lead.event_loop.catch_up(Instant::now());
                }
                return Ok(lead);
            }
            has_waited = true;
            slot.waiting += 1;
            if slot.leader == LeaderThread::Standby {
                self.wake_leader();
            }
            slot = self.followers.wait(slot).unpoisoned();
            slot.waiting -= 1;
        }
    }

    /// Puts the lead into the slot, with or without going off to serve a request, and calls others to it where that pays.
    fn leave_lead(&self, lead: Box<LeaderState>, to_serve: bool) {
        let mut slot = self.lock();
        slot.put_back_lead(lead);
        if to_serve {
            slot.busy += 1;
            self.tell_idle_threads(slot.busy);
        }
        self.wake_a_follower(&slot);
    }

    fn wake_a_follower(&self, slot: &PoolState) {
        if slot.waiting > 0 && self.request_ns.load(Relaxed) > LONG_REQUEST_NS {
            self.followers.notify_one();
        }
        self.worker.limits.standby.call_for(Attention::ToThreads);
    }

    /// Gives a connection back after its request, `now`. The next one that is ready, if the lead still lies in the slot and `more` is
    /// wanted.
    fn done(&self, served: GivenBack, now: Instant, more: bool) -> Option<Box<Request>> {
        let GivenBack { connection, key, step } = served;
        let mut slot = self.lock();
        slot.moves += 1;
        let more = more && !slot.is_over;
        if let Some(lead) = &mut slot.lead {
            let event_loop = &mut lead.event_loop;
            // Should it be closed now, it is this that closes it.
            drop(connection);
            event_loop.catch_up(now);
            event_loop.put_back(key, step);
            if !more {
                event_loop.send_finished();
            } else if let Some(next) = event_loop.next_ready(self.requests_are_short()) {
                self.wake_a_follower(&slot);
                return Some(next);
            }
        } else {
            // Whoever leads may be at something else first.
            let step = if step == Step::Send { lock(&connection).on_writable(now) } else { step };
            slot.returned.push((key, step));
            self.has_returned.store(true, Relaxed);
            self.wake_leader();
        }
        slot.busy -= 1;
        self.tell_idle_threads(slot.busy);
        None
    }

    /// Whether a response may wait for those to requests that are ready behind it: it will not be long.
    fn requests_are_short(&self) -> bool {
        self.request_ns.load(Relaxed) <= SHORT_REQUEST_NS
    }

    fn take_returned_connections(&self, lead: &mut LeaderState) {
        // What is overlooked here, because it comes back at this moment, ends the next poll.
        if self.has_returned.load(Relaxed) {
            for (key, step) in self.empty_returned() {
                lead.event_loop.put_back(key, step);
            }
        }
    }

    fn empty_returned(&self) -> Vec<(usize, Step)> {
        let mut slot = self.lock();
        self.has_returned.store(false, Relaxed);
        std::mem::take(&mut slot.returned)
    }

    /// Ends the wait of whoever leads.
    pub fn wake_leader(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("Cannot wake the leading thread: {error}");
        }
    }

    /// Everybody has been busy for too long: a follower leads if there is one after all, else this thread does.
    fn take_over<'a>(&'a self, mut slot: MutexGuard<'a, PoolState>) -> MutexGuard<'a, PoolState> {
        slot.moves += 1;
        if slot.waiting > 0 {
            self.followers.notify_one();
            return slot;
        }
        let Some(lead) = slot.lead.take() else { return slot };
        slot.leader = LeaderThread::Standby;
        self.call_hub();
        drop(slot);
        self.lead_io_only(lead);
        self.lock()
    }

    /// Does everything but run the application, until a thread that can wants the lead.
    fn lead_io_only(&self, mut lead: Box<LeaderState>) {
        lead.event_loop.lead_as(false);
        lead.event_loop.catch_up(Instant::now());
        loop {
            self.take_returned_connections(&mut lead);
            let mut slot = self.lock();
            if slot.waiting > 0 || slot.is_over || lead.is_done() {
                let over = lead.is_done();
                slot.put_back_lead(lead);
                self.followers.notify_one();
                drop(slot);
                if over {
                    self.end();
                }
                return;
            }
            drop(slot);
            self.hand_off_ready(&mut lead);
            // Nobody else sends what waits for more to come.
            let waits = self.flush_due(Instant::now(), true) == Look::Waits;
            let most = if waits { LONGEST_WAIT } else { BUSY_LOOK };
            if let Err(error) = lead.turn(self, most) {
                log::error!("The worker cannot go on: {error}");
                lead.stage = WorkerStage::Over;
            }
        }
    }

    /// Requests that nobody here can serve now go, with their connections, to siblings that can.
    fn hand_off_ready(&self, lead: &mut LeaderState) {
        let mut kept = Vec::new();
        while self.worker.siblings.has_idle()
            && let Some(request) = lead.event_loop.next_ready(false)
        {
            lead.event_loop.unregister(request.key());
            let mut has_gone = false;
            let GivenBack { key, .. } = request.give_back(|connection| {
                has_gone = self.worker.siblings.hand_off(connection);
                Step::Call
            });
            if has_gone {
                self.worker.row.count(Count::Passed);
            }
            if has_gone { lead.event_loop.forget(key) } else { kept.push(key) }
        }
        for key in kept.into_iter().rev() {
            lead.event_loop.keep_ready(key);
        }
    }

    /// Ends the work of all threads.
    fn end(&self) {
        self.lock().send_finished();
        self.flush_access_log();
        let mut slot = self.lock();
        slot.is_over = true;
        slot.end_connections();
        let logged = slot.lead.as_mut().map(|lead| lead.event_loop.take_logged());
        drop(slot);
        self.log_requests(&logged.unwrap_or_default());
        self.flush_access_log();
        self.followers.notify_all();
        self.worker.limits.standby.call();
        self.wake_leader();
        self.call_hub();
    }

    /// Runs the application. Returns the connection, and when the application was done.
    fn serve(
        &self,
        py: Python<'_>,
        caller: &mut Caller,
        request: Box<Request>,
        started: Instant,
    ) -> (GivenBack, Instant) {
        let running = self.worker.row.start_request(started);
        caller.note_start(running.start(), started);
        let finished = caller.call(py, request);
        let ended = self.worker.row.end_request(running, Instant::now);
        self.settle(py, finished, started, ended)
    }

    /// What comes after the application, which was called when the request `started` and was done when it `ended`: the
    /// counts, the access log, and how the connection goes on.
    fn settle(&self, py: Python<'_>, mut finished: Finished, started: Instant, ended: Instant) -> (GivenBack, Instant) {
        let duration = ended - started;
        let is_sent = finished.is_logged || self.access_log.is_none() || finished.exchange.unsent() == 0;
        if is_sent && let Err(panic) = caught(|| self.log_access(py, &mut finished, started, duration)) {
            log::error!("Cannot log a request: a fault of the server: {panic}");
        }
        if !finished.is_worker_wanted {
            self.is_dismissed.store(true, Relaxed);
        }
        let Finished { exchange, ending, summary, environ_values, .. } = finished;
        let request = exchange.into_request().expect("every exchange here is a request: the caller was given one");
        let (ready_at, received) = request.ready();
        let queue = started.saturating_duration_since(ready_at);
        counting::served(&self.worker.row, (queue, duration), received, &summary);
        if self.worker.limits.measures {
            request.upstream_wait().iter().for_each(|waited| self.worker.row.count_upstream_queue(*waited));
        }
        let late_log = (!is_sent).then(|| request.late_log(summary, environ_values, started));
        let served = request.give_back(|connection| {
            late_log.into_iter().for_each(|log| connection.log_when_sent(log));
            caught(|| go_on(connection, ending, ended)).unwrap_or_else(|panic| {
                log::error!("Cannot go on with a connection: a fault of the server: {panic}");
                Step::Close
            })
        });
        self.worker.row.beat();
        self.note_duration(duration);
        (served, ended)
    }

    /// Keeps the moving average: the newest request counts for an eighth.
    fn note_duration(&self, duration: Duration) {
        let newest = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 8);
        let average = self.request_ns.load(Relaxed);
        // Threads may overwrite each other's update; an average forgives that.
        self.request_ns.store(average - average / 8 + newest / 8, Relaxed);
    }

    fn log_access(&self, py: Python<'_>, finished: &mut Finished, started: Instant, duration: Duration) {
        // What Python's logging writes it was given while the response was at hand (python::observer).
        let Some(log) = self.access_log.as_ref().filter(|_| !finished.is_logged) else { return };
        let mut log = loop {
            match log.try_lock() {
                Ok(log) => break log,
                Err(TryLockError::Poisoned(log)) => break log.into_inner(),
                // The leader is writing, perhaps to a slow pipe: neither the client nor other Python threads need wait for it.
                Err(TryLockError::WouldBlock) => {
                    // An error comes again when the connection is done with.
                    let _ = finished.exchange.flush();
                    py.detach(|| std::thread::sleep(LOG_PAUSE));
                }
            }
        };
        // Nothing was sent: the application ended the request by itself (a WebSocket), or the client had gone.
        if finished.summary.status == 0 {
            return;
        }
        let request = finished.exchange.request();
        log.record(&ServedRequest {
            request,
            summary: &finished.summary,
            environ_values: &finished.environ_values,
            response_headers: &self.logged_headers,
            duration,
            queue: Some(started.saturating_duration_since(request.ready_at)),
        });
    }
}

/// What becomes of a connection whose request has come to its `ending`.
fn go_on(connection: &mut Connection, ending: Disposition, now: Instant) -> Step {
    match ending {
        Disposition::KeepAlive => connection.finish(true, now),
        Disposition::Close => connection.finish(false, now),
        Disposition::Broken => {
            connection.break_off();
            connection.finish(false, now)
        }
        Disposition::Gone => Step::Close,
    }
}
