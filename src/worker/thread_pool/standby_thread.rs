//! The standby thread: what it looks for, and how it leads.
//!
//! It never runs the application. It sends what has waited for long enough, and takes the lead
//! while every other thread is busy, until one of them wants it back.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use super::{LeaderThread, PoolState, ThreadPool};
use crate::python::call::Look;
use crate::scoreboard::Count;
use crate::worker::batching::LONGEST_WAIT;
use crate::worker::connection::{GivenBack, Step};
use crate::worker::leader::{LeaderState, WorkerStage};
use crate::worker::standby::{Attention, BUSY_LOOK};

/// After this long without a request the standby thread sleeps until there is one.
const STANDBY_PATIENCE: Duration = Duration::from_millis(25);

/// After so many looks that find no waiting bytes the standby thread looks less often. It goes on
/// for so many because calling it costs the application more than a few looks.
const QUIET_LOOKS: u32 = 8;

/// What the standby thread saw when it last looked at the threads.
struct BusyLook {
    moves: u64,
    since: Instant,
}

impl ThreadPool {
    /// The standby thread's life: it sends what has waited for long enough while the application
    /// runs, and leads when every other thread has been busy for a few milliseconds.
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
            // A thread that came before this saw an attentive standby thread, and has not called
            // it. So look once more.
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
        // Hundreds of greenlets may be at a request: they are looked at only where bytes may wait.
        if self.has_greenlets() && !standby.take_bytes() {
            return Look::Nothing;
        }
        let found = self.in_flight.flush_due(now, hurry);
        if self.has_greenlets() && found != Look::Nothing {
            standby.call_for(Attention::ToBytes);
        }
        found
    }

    /// Leads, if every thread is busy, until one wants the lead. Says whether no thread has had a
    /// request for a while; `None` when the worker is over.
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

    /// Every thread has been busy for too long: a follower leads if there is one after all, else
    /// the standby thread does.
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

    /// Leads without running the application, until an application thread wants the lead.
    fn lead_io_only(&self, mut lead: Box<LeaderState>) {
        lead.event_loop.lead_as(false);
        lead.event_loop.catch_up(Instant::now());
        loop {
            self.take_returned_connections(&mut lead);
            let mut slot = self.lock();
            if slot.waiting > 0 || slot.is_over || lead.is_done() {
                let (over, is_late) = (lead.is_done(), lead.is_late());
                slot.put_back_lead(lead);
                self.followers.notify_one();
                drop(slot);
                if over {
                    self.end_drained(is_late);
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

    /// Hands requests that no thread here can serve now, with their connections, to siblings that
    /// can.
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
}
