//! The threads of a worker: leader and followers.
//!
//! One thread leads: it polls, and does the connections' input and output. When a request is ready,
//! the leader leaves the lead in the pool and runs the application itself, so that nothing is
//! handed from thread to thread. A free thread takes the lead again: usually the same thread, a
//! moment later. A follower is woken for it only when requests have lately taken long.
//!
//! One standby thread never runs the application. While the others do, it sends bytes that have
//! waited for long enough. It takes the lead when every other thread has been busy for a few
//! milliseconds: then slow responses go on, waits end in time, and ready requests find a sibling
//! that is free.
//!
//! No thread waits for the interpreter while it leads: threads lead detached, and run the
//! application attached.

mod greenlets;
mod in_flight;
mod serving;
mod standby_thread;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mio::Waker;

use greenlets::HubState;
use in_flight::InFlightTable;
pub use in_flight::UNWINDING_TIME;

use super::batching::SHORT_REQUEST_NS;
use super::connection::{GivenBack, Request, Step, lock};
use super::connection_limits::ConnectionLimits;
use super::leader::{LeaderState, WorkerStage};
use super::siblings::Siblings;
use super::slow_requests::SlowRequests;
use super::standby::Attention;
use crate::base::unpoisoned::Unpoisoned;
use crate::logging::AccessLog;
use crate::python::Python;
use crate::python::call::Caller;
use crate::python::idle::GreenletWait;
use crate::python::signals::{self, was_interrupted};
use crate::scoreboard::{Row, WorkerPhase};
use crate::sys::thread;
use crate::sys::wakeup::Wakeup;

/// Requests that have lately taken longer than this are worth waking a thread to lead meanwhile;
/// for shorter ones the waking would cost more than the wait.
const LONG_REQUEST_NS: u64 = 500_000;

/// A worker that was told to end gives late requests up this much before the master kills it; at
/// most a quarter of its time. A machine that is busy must leave it enough for its hooks.
const BEFORE_KILL: Duration = Duration::from_secs(1);

/// Between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What the threads of a worker share.
pub struct ThreadPool {
    slot: Mutex<PoolState>,
    /// Threads that wait to lead.
    followers: Condvar,
    /// Ends the leader's poll.
    waker: Waker,
    /// How long requests have lately taken, in nanoseconds: a moving average.
    request_ns: AtomicU64,
    worker: WorkerContext,
    /// Whether `PoolState::returned` holds connections.
    has_returned: AtomicBool,
    /// A thread has failed outside of any request.
    has_fallen: AtomicBool,
    access_log: Option<Mutex<AccessLog>>,
    /// Response headers that the access log names.
    logged_headers: Vec<String>,
    /// The requests that the threads run.
    in_flight: InFlightTable,
    /// The main thread runs a request.
    main_is_at_request: AtomicBool,
    /// A hook has set `worker.alive` to False.
    is_dismissed: AtomicBool,
    /// The main thread is to run handlers that the application has installed in Python.
    handlers_due: AtomicBool,
    /// Where requests run in greenlets: what their hub and the other threads share.
    hub: Option<HubState>,
}

/// Which application thread a thread is.
pub enum Role {
    /// The interpreter's main thread: the one in which Python runs handlers of signals.
    Main {
        /// How this thread waits where the application's own threads are greenlets.
        greenlets: Option<GreenletWait>,
    },
    /// Another application thread.
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
    /// Wakes the master when the row's phase changes.
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
    /// Whether that line shows where in the application the request is.
    pub slow_request_stack: bool,
}

/// The lead while nobody leads, and who waits for it.
struct PoolState {
    lead: Option<Box<LeaderState>>,
    leader: LeaderThread,
    /// Connections whose requests were finished while another thread led, by their keys, and how
    /// each goes on.
    returned: Vec<(usize, Step)>,
    /// Threads that wait to lead.
    waiting: usize,
    /// Threads that run the application.
    busy: usize,
    /// Counts each entry into the application and each return from it. It stands still while every
    /// busy thread is at a long request.
    moves: u64,
    is_over: bool,
}

impl PoolState {
    fn put_back_lead(&mut self, mut lead: Box<LeaderState>) {
        if self.is_over {
            // No thread takes the lead again.
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
        let in_flight = InFlightTable::new(SlowRequests::new(worker.slow_request_stack));
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
            has_fallen: AtomicBool::new(false),
            access_log: access_log.map(Mutex::new),
            logged_headers,
            in_flight,
            main_is_at_request: AtomicBool::new(false),
            is_dismissed: AtomicBool::new(false),
            handlers_due: AtomicBool::new(false),
            hub: None,
        }
    }

    /// A pool whose one thread runs the application in greenlets; other threads wake it by `call`.
    pub fn of_greenlets(self, call: Arc<Wakeup>) -> ThreadPool {
        self.worker.row.set_has_greenlets();
        ThreadPool { hub: Some(HubState::new(call)), ..self }
    }

    /// Writes the heartbeat: the worker is alive, and has a thread that can serve.
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

    /// From now on the worker serves. All its threads have started: until now none could take the
    /// lead.
    pub fn begin(&self, lead: LeaderState) {
        self.tell_idle_threads(0);
        self.worker.row.set_listener_number(Some(self.worker.listener_number));
        self.worker.row.beat();
        self.announce(WorkerPhase::Ready);
        self.lock().put_back_lead(Box::new(lead));
        self.followers.notify_one();
    }

    /// With several threads, one long request says nothing about the worker. So a thread of its own
    /// writes the heartbeat as long as it can get the interpreter. (With a single thread each
    /// request writes it.)
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

    /// Leads and serves until the worker is to end. Each thread that runs the application lives
    /// here.
    pub fn work(&self, py: Python<'_>, caller: &mut Caller, role: &Role) {
        let in_flight = caller.in_flight();
        in_flight.note_thread();
        self.in_flight.add(in_flight);
        let is_main = matches!(role, Role::Main { .. });
        loop {
            let (task, attaches_at) = py.detach(|| (self.next_task(role), self.clock_if_measured()));
            let goes_on = match task {
                Task::Serve(request) if is_main => {
                    self.main_is_at_request.store(true, Relaxed);
                    let goes_on = self.serve_on(py, caller, request, attaches_at);
                    self.main_is_at_request.store(false, Relaxed);
                    goes_on
                }
                Task::Serve(request) => self.serve_on(py, caller, request, attaches_at),
                Task::RunHandlers => self.run_handlers(py),
                Task::End => {
                    // The main thread may have come back late, behind the end of the others.
                    if is_main {
                        self.end();
                    }
                    return;
                }
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

    /// Serves a request, and those behind it that may be handed out before the next turn. The
    /// thread has waited for the interpreter since `attaches_at`, where that is measured. Says
    /// whether the worker goes on.
    fn serve_on(
        &self,
        py: Python<'_>,
        caller: &mut Caller,
        mut request: Box<Request>,
        attaches_at: Option<Instant>,
    ) -> bool {
        let mut now = Instant::now();
        attaches_at.iter().for_each(|since| self.worker.row.count_attach(now - *since));
        loop {
            let (served_request, ended) = self.serve(py, caller, request, now);
            let next = self.done(served_request, ended);
            if was_interrupted(py) {
                return false;
            }
            let Some(next) = next else { return true };
            request = next;
            // The next request begins when this one has ended, unless writing the access log took
            // time.
            now = if self.access_log.is_none() { ended } else { Instant::now() };
        }
    }

    /// Runs signal handlers, while this thread runs nothing of the application. Says whether the
    /// worker goes on.
    fn run_handlers(&self, py: Python<'_>) -> bool {
        signals::run_due_handlers(py);
        let mut slot = self.lock();
        slot.moves += 1;
        slot.busy -= 1;
        self.tell_idle_threads(slot.busy);
        drop(slot);
        !was_interrupted(py)
    }

    /// A thread has failed outside of any request. The lead may be lost with it, and no other
    /// thread could lead then: so the worker ends, and the master replaces it.
    pub fn fall(&self, panic: &str) {
        log::error!("The worker cannot go on: a fault of the server: {panic}");
        // Another thread may lead. It ends with its next turn.
        self.has_fallen.store(true, Relaxed);
        self.end();
    }

    /// Counts on the scoreboard what has been logged since the last second.
    pub fn count_log_lines(&self) {
        super::count_lines(&self.worker.row);
    }

    /// Whether the worker has served as many requests as it should, or a hook has dismissed it.
    pub fn has_served_its_requests(&self) -> bool {
        self.is_dismissed.load(Relaxed)
            || self.worker.max_requests > 0 && self.worker.row.served() >= self.worker.max_requests
    }

    /// Changes the worker's phase, and wakes the master.
    pub fn announce(&self, state: WorkerPhase) {
        self.worker.row.set_state(state);
        self.worker.wakeup.wake();
    }

    /// How long what has begun may take when the worker is told to end. It is less than the
    /// `graceful_timeout` that the master counts: the worker is to end by itself, with its hooks
    /// and its log lines, before the master kills it.
    pub fn time_to_drain(&self) -> Duration {
        let graceful_timeout = self.worker.graceful_timeout;
        graceful_timeout - BEFORE_KILL.min(graceful_timeout / 4)
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

    /// Waits for the lead, leads until there is something to do in Python, and leaves the lead in
    /// the pool.
    fn next_task(&self, role: &Role) -> Task {
        let mut lead = match self.take_lead(role) {
            Ok(lead) => lead,
            Err(task) => return task,
        };
        loop {
            self.take_returned_connections(&mut lead);
            if lead.event_loop.may_hand_out()
                && let Some(request) = lead.event_loop.next_ready(self.requests_are_short())
            {
                self.leave_lead(lead, true);
                return Task::Serve(request);
            }
            self.lead_a_turn(&mut lead, role);
            if lead.is_done() || self.has_fallen.load(Relaxed) {
                let is_late = lead.is_late();
                self.leave_lead(lead, false);
                self.end_drained(is_late);
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
            // The one application thread waits in the patched library, where greenlets run
            // meanwhile. No other thread wants to lead.
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

    /// Handlers that the application has installed in Python are due: the main thread runs them,
    /// unless it runs the application, where Python does so itself.
    pub fn call_main_thread(&self) {
        self.handlers_due.store(true, Relaxed);
        // A thread that has missed the flag holds the lock until it is counted as waiting.
        let waiting = self.lock().waiting;
        if waiting > 0 {
            self.followers.notify_all();
        }
    }

    /// Takes the lead, or returns what is to be done without it.
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

    /// Puts the lead into the pool, and wakes a follower where that pays. With `to_serve` this
    /// thread goes off to Python, and counts as busy.
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

    /// Gives a connection back after its request, which ended `now`. Returns the next request that
    /// is ready, if one may be handed out before the next turn and the lead still lies in the pool.
    fn done(&self, served: GivenBack, now: Instant) -> Option<Box<Request>> {
        let GivenBack { connection, key, step } = served;
        let mut slot = self.lock();
        slot.moves += 1;
        let is_over = slot.is_over;
        if let Some(lead) = &mut slot.lead {
            let event_loop = &mut lead.event_loop;
            // So that the event loop holds the last reference, and closes the connection if it ends
            // now.
            drop(connection);
            event_loop.catch_up(now);
            event_loop.put_back(key, step);
            if is_over || !event_loop.may_hand_out() {
                event_loop.send_finished();
            } else if let Some(next) = event_loop.next_ready(self.requests_are_short()) {
                self.wake_a_follower(&slot);
                return Some(next);
            }
        } else {
            // The leader may be at something else first: this thread sends.
            let step = if matches!(step, Step::Send) { lock(&connection).on_writable(now) } else { step };
            slot.returned.push((key, step));
            self.has_returned.store(true, Relaxed);
            self.wake_leader();
        }
        slot.busy -= 1;
        self.tell_idle_threads(slot.busy);
        None
    }

    /// Whether requests are so short that a response may wait for those of the requests behind it.
    fn requests_are_short(&self) -> bool {
        self.request_ns.load(Relaxed) <= SHORT_REQUEST_NS
    }

    fn take_returned_connections(&self, lead: &mut LeaderState) {
        // A connection that comes back at this moment may be missed: its thread then ends the next
        // poll.
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

    /// Ends the leader's poll.
    pub fn wake_leader(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("Cannot wake the leading thread: {error}");
        }
    }

    /// Ends the work of all threads, as the worker has nothing more to wait for. Where it has
    /// waited in vain (`is_late`), the request of the main thread is unwound: the worker ends when
    /// that thread does.
    fn end_drained(&self, is_late: bool) {
        // First: a thread that is unwound must find no other request.
        self.lock().is_over = true;
        if is_late && !self.has_greenlets() {
            self.report_late();
            // Once, whoever sees the end.
            if self.main_is_at_request.swap(false, Relaxed) {
                signals::unwind_late_request();
            }
        }
        self.end();
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
}
