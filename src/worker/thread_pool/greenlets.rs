//! A pool whose one thread runs the application in greenlets (worker class gevent).
//!
//! The thread runs gevent's hub, which watches the event loop's poll. When the poll has something,
//! the hub calls for a turn of the event loop, then has a greenlet serve each request that is
//! ready. So the hub's thread leads as an application thread does. It counts as busy from its
//! waking to its next wait, and the standby thread leads while a greenlet does not let go of it.
//! This module knows no gevent: the bridge to it is `python::greenlets`.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{LeaderThread, PoolState, ThreadPool};
use crate::base::unpoisoned::Unpoisoned;
use crate::exchange::Exchange;
use crate::python::Python;
use crate::python::call::{Finished, InFlight};
use crate::python::greenlets::{GreenletDriver, Turned};
use crate::python::hooks::{Hooks, WorkerMethod};
use crate::scoreboard::{RequestRun, Running};
use crate::sys::wakeup::Wakeup;
use crate::worker::connection::{GivenBack, Request, Step, lock};
use crate::worker::leader::{LeaderState, WorkerStage};
use crate::worker::standby::Attention;

/// Most requests that are begun between two turns of the event loop, so that those in hand do not
/// keep others waiting.
const REQUESTS_PER_TURN: usize = 64;

/// How long requests are begun one after another before greenlets that wait for something else have
/// their turn.
const LONGEST_TURN: Duration = Duration::from_millis(2);

/// What the hub and the other threads share.
pub(super) struct HubState {
    /// Calls the hub from other threads.
    call: Arc<Wakeup>,
    turn: Mutex<HubTurn>,
}

/// What the hub's thread is at.
struct HubTurn {
    /// When the hub began to take requests in this turn.
    began: Instant,
    /// How many requests were taken since.
    taken: usize,
    /// The next request, taken from the event loop when the one before was given back.
    next: Option<Box<Request>>,
    /// When the hub's timer fires.
    timer: Option<Instant>,
    /// When the hub last woke, until it waits again.
    woke_at: Option<Instant>,
    has_changed_code: bool,
    /// Methods of the worker's class that are to be called.
    methods: Vec<WorkerMethod>,
    is_aborted: bool,
    is_sudden_end: bool,
}

impl HubState {
    pub(super) fn new(call: Arc<Wakeup>) -> HubState {
        let turn = HubTurn {
            began: Instant::now(),
            taken: 0,
            next: None,
            timer: None,
            woke_at: None,
            has_changed_code: false,
            methods: Vec::new(),
            is_aborted: false,
            is_sudden_end: false,
        };
        HubState { call, turn: Mutex::new(turn) }
    }
}

impl HubTurn {
    /// Whether another request may be taken, `now`.
    fn may_go_on(&self, now: Instant) -> bool {
        self.taken < REQUESTS_PER_TURN && now < self.began + LONGEST_TURN
    }
}

impl ThreadPool {
    /// Whether requests run in greenlets.
    pub fn has_greenlets(&self) -> bool {
        self.hub.is_some()
    }

    /// The worker was aborted (ABRT).
    pub fn note_abort(&self) {
        self.note(|turn| turn.is_aborted = true);
    }

    /// INT or QUIT ends the worker.
    pub fn note_sudden_end(&self) {
        self.note(|turn| turn.is_sudden_end = true);
    }

    /// Has `worker_int` called, because code has changed. The hub itself does not call the hook,
    /// which may wait.
    pub fn tell_of_changed_code(&self, hooks: &Hooks) {
        if self.has_greenlets() {
            self.note(|turn| turn.has_changed_code = true);
            self.call_hub();
        } else {
            hooks.code_changed();
        }
    }

    /// Has a method of the worker's class called, if the class overrides it. The hub itself does
    /// not call the method, which may wait.
    pub fn tell_class(&self, hooks: &Hooks, method: WorkerMethod) {
        if !self.has_greenlets() {
            hooks.call_method(method);
        } else if hooks.calls(method) {
            self.note(|turn| turn.methods.push(method));
            self.call_hub();
        }
    }

    fn note(&self, change: impl FnOnce(&mut HubTurn)) {
        if let Some(hub) = &self.hub {
            change(&mut hub.turn.lock().unpoisoned());
        }
    }

    /// Calls the hub, which looks what there is to do as soon as no greenlet runs.
    pub(super) fn call_hub(&self) {
        if let Some(hub) = &self.hub {
            hub.call.wake();
        }
    }

    fn hub(&self) -> &HubState {
        self.hub.as_ref().expect("who drives greenlets is a pool of them")
    }

    /// Takes the lead, which the standby thread gives up where it has it. `None` when the worker is
    /// over.
    fn take_lead_back(&self, py: Python<'_>) -> Option<Box<LeaderState>> {
        match take_lead_from(&mut self.lock()) {
            Taken::Lead(lead) => return Some(lead),
            Taken::Over => return None,
            Taken::NotYet => {}
        }
        // Detached, because the standby thread may wait for the interpreter at this moment. Nothing
        // below runs Python.
        py.detach(|| {
            let mut slot = self.lock();
            loop {
                match take_lead_from(&mut slot) {
                    Taken::Lead(lead) => return Some(lead),
                    Taken::Over => return None,
                    Taken::NotYet => {}
                }
                slot.waiting += 1;
                self.wake_leader();
                slot = self.followers.wait(slot).unpoisoned();
                slot.waiting -= 1;
            }
        })
    }

    fn lead_greenlets(&self, lead: &mut LeaderState) {
        self.take_returned_connections(lead);
        lead.event_loop.catch_up(Instant::now());
        if let Err(error) = lead.turn(self, Duration::ZERO) {
            log::error!("The worker cannot go on: {error}");
            lead.stage = WorkerStage::Over;
        }
    }

    /// Gives a connection back after its request, `now`, and takes the next request where one is at
    /// hand.
    fn give_back(&self, served: GivenBack, now: Instant) {
        let GivenBack { connection, key, step } = served;
        let mut slot = self.lock();
        slot.moves += 1;
        let is_over = slot.is_over;
        let Some(lead) = &mut slot.lead else {
            // The standby thread leads, and may be at something else: a response that was put off
            // goes out here.
            let step = if matches!(step, Step::Send) { lock(&connection).on_writable(now) } else { step };
            slot.returned.push((key, step));
            self.has_returned.store(true, Relaxed);
            self.wake_leader();
            return;
        };
        let event_loop = &mut lead.event_loop;
        // This reference goes first, so that `put_back` can close the socket.
        drop(connection);
        event_loop.catch_up(now);
        event_loop.put_back(key, step);
        let mut turn = self.hub().turn.lock().unpoisoned();
        if is_over || turn.next.is_some() || !turn.may_go_on(now) {
            return;
        }
        turn.next = event_loop.next_ready(self.requests_are_short());
    }
}

/// What came of a try to take the lead.
enum Taken {
    Lead(Box<LeaderState>),
    /// The worker is over.
    Over,
    /// The standby thread leads.
    NotYet,
}

fn take_lead_from(slot: &mut PoolState) -> Taken {
    if slot.is_over {
        return Taken::Over;
    }
    let Some(mut lead) = slot.lead.take() else { return Taken::NotYet };
    slot.leader = LeaderThread::Worker;
    lead.event_loop.lead_as(true);
    Taken::Lead(lead)
}

impl GreenletDriver for ThreadPool {
    fn turn(&self, py: Python<'_>) -> Turned {
        let mut turned = Turned::default();
        if let Some(mut lead) = self.take_lead_back(py) {
            self.lead_greenlets(&mut lead);
            turned.has_ready = lead.event_loop.has_ready();
            let is_done = lead.is_done();
            let mut slot = self.lock();
            slot.put_back_lead(lead);
            self.tell_idle_threads(slot.busy);
            drop(slot);
            if is_done {
                self.end();
            }
        }
        turned.is_over = self.is_over();
        let mut turn = self.hub().turn.lock().unpoisoned();
        (turn.began, turn.taken) = (Instant::now(), 0);
        turned.has_ready = (turned.has_ready || turn.next.is_some()) && !turned.is_over;
        turned.has_changed_code = std::mem::take(&mut turn.has_changed_code);
        turned.is_aborted = std::mem::take(&mut turn.is_aborted);
        turned.methods = std::mem::take(&mut turn.methods);
        turned
    }

    fn has_ready(&self) -> bool {
        let slot = self.lock();
        let turn = self.hub().turn.lock().unpoisoned();
        turn.next.is_some()
            || slot.lead.as_ref().is_some_and(|lead| lead.event_loop.has_ready()) && turn.may_go_on(Instant::now())
    }

    fn next_request(&self) -> Option<(Box<dyn Exchange>, Running)> {
        let mut slot = self.lock();
        if slot.is_over {
            return None;
        }
        let mut turn = self.hub().turn.lock().unpoisoned();
        let next = match turn.next.take() {
            None if turn.may_go_on(Instant::now()) => {
                slot.lead.as_mut()?.event_loop.next_ready(self.requests_are_short())
            }
            next => next,
        };
        turn.taken += 1;
        slot.moves += 1;
        next.map(|request| (request as Box<dyn Exchange>, self.worker.row.start_request(Instant::now())))
    }

    fn finished(&self, py: Python<'_>, finished: Finished, running: Running) {
        let run = RequestRun::new(running.began(), Instant::now());
        self.worker.row.end_greenlets_request(running);
        self.give_back(self.settle(py, finished, run), run.ended);
    }

    fn before_wait(&self) -> Option<f64> {
        let now = Instant::now();
        let mut slot = self.lock();
        slot.busy = 0;
        slot.moves += 1;
        self.tell_idle_threads(0);
        let woke_at = self.hub().turn.lock().unpoisoned().woke_at.take();
        woke_at.iter().for_each(|woke_at| self.worker.row.count_busy(now.saturating_duration_since(*woke_at)));
        // Where the lead is not in the slot, the standby thread leads, and has called the hub.
        let lead = slot.lead.as_mut()?;
        lead.event_loop.send_finished();
        let mut turn = self.hub().turn.lock().unpoisoned();
        let wait = if turn.next.is_some() { Duration::ZERO } else { lead.event_loop.time_to_wait() };
        if wait.is_zero() {
            return Some(0.0);
        }
        let due = now + wait;
        if turn.timer.is_some_and(|timer| timer > now && timer <= due) {
            return None;
        }
        turn.timer = Some(due);
        Some(wait.as_secs_f64())
    }

    fn after_wait(&self) {
        let mut slot = self.lock();
        slot.busy = 1;
        slot.moves += 1;
        self.tell_idle_threads(1);
        drop(slot);
        self.note(|turn| turn.woke_at = Some(Instant::now()));
        self.worker.limits.standby.call_for(Attention::ToThreads);
    }

    fn is_over(&self) -> bool {
        self.lock().is_over
    }

    fn is_sudden_end(&self) -> bool {
        self.hub().turn.lock().unpoisoned().is_sudden_end
    }

    fn add_caller(&self, in_flight: InFlight) {
        self.in_flight.add(in_flight);
    }

    fn remove_caller(&self, in_flight: &InFlight) {
        self.in_flight.remove(in_flight);
    }

    fn descriptor(&self) -> RawFd {
        self.lock().lead.as_ref().map_or(-1, |lead| lead.event_loop.descriptor())
    }
}
