//! Sleeping until there is something to do: a signal, a worker's bell, or the next deadline. Nothing to do, no wake-up.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::sys::signal::SignalQueue;
use crate::sys::wakeup::WakeupReceiver;

use super::{Master, Phase};

/// How late a wake-up may be before we conclude that we were stopped ourselves (SIGSTOP, a frozen container).
const OVERSLEPT: Duration = Duration::from_secs(1);

/// How often a master that was started by an upgrade looks whether the old one is gone: nothing tells it.
const PARENT_CHECK: Duration = Duration::from_secs(1);

pub(super) struct MasterWaiter {
    poll: Poll,
    events: Events,
}

/// How a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WakeReason {
    InTime,
    /// Long after the deadline.
    Overslept,
}

impl MasterWaiter {
    pub fn new(signals: &SignalQueue, wakeup_receiver: &WakeupReceiver) -> io::Result<MasterWaiter> {
        let poll = Poll::new()?;
        // Which of the two it was does not matter: the loop looks at everything.
        poll.registry().register(&mut SourceFd(&signals.as_raw_fd()), Token(0), Interest::READABLE)?;
        poll.registry().register(&mut SourceFd(&wakeup_receiver.as_raw_fd()), Token(1), Interest::READABLE)?;
        Ok(MasterWaiter { poll, events: Events::with_capacity(2) })
    }

    /// Waits until something happens, or until `deadline`; None waits for ever.
    pub fn wait(&mut self, deadline: Option<Instant>, wakeup_receiver: &WakeupReceiver) -> WakeReason {
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // The only failure in a loop that owns its descriptors is EINTR, which is a wake-up as well.
        let _ = self.poll.poll(&mut self.events, timeout);
        wakeup_receiver.drain();
        match deadline {
            Some(deadline) if Instant::now().saturating_duration_since(deadline) > OVERSLEPT => WakeReason::Overslept,
            _ => WakeReason::InTime,
        }
    }
}

impl Master {
    pub(super) fn sleep(&mut self) {
        self.notice_lost_time();
        let deadline = self.next_deadline(Instant::now());
        if self.waiter.wait(deadline, &self.wakeup_receiver) == WakeReason::Overslept {
            self.forgive_heartbeats();
        }
        self.woken_at = Instant::now();
    }

    /// A turn of the loop takes no time to speak of; when one did, we were stopped in the midst of it.
    pub(super) fn notice_lost_time(&mut self) {
        if self.woken_at.elapsed() > OVERSLEPT {
            self.forgive_heartbeats();
            self.woken_at = Instant::now();
        }
    }

    /// The earliest moment at which the loop must look again though nothing woke it.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let workers = self.workers.iter().filter_map(|worker| worker.deadline(now));
        let forks = self.generations().filter_map(|generation| generation.backoff.until(now));
        let parent = self.upgrade.has_parent().then(|| now + PARENT_CHECK);
        let leaving = match self.phase {
            Phase::Leaving(at) => Some(at),
            Phase::Starting | Phase::Proven => None,
        };
        let rest = [
            parent,
            leaving,
            self.reload_deadline(),
            self.recycle_deadline(now),
            self.watchdog_deadline(now),
            self.certificates_deadline(),
            self.backlog_deadline(now),
        ];
        workers.chain(forks).chain(rest.into_iter().flatten()).min()
    }
}
