//! Sleeping until there is something to do: a signal, a worker's wake-up, or the next deadline. An
//! idle master does not wake up.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::sys::wakeup::{self, Wakeup, WakeupReceiver};

use super::{Master, Phase};

/// A wake-up that is later than this means that the master itself was stopped (SIGSTOP, a frozen
/// container).
const OVERSLEPT: Duration = Duration::from_secs(1);

/// How often a master that was started by an upgrade looks whether the old one is gone: there is no
/// event for it.
const PARENT_CHECK: Duration = Duration::from_secs(1);

pub(super) struct MasterWaiter {
    poll: Poll,
    events: Events,
    receiver: WakeupReceiver,
    /// The workers' end, handed on at each fork.
    wakeup: Wakeup,
    /// When the present turn of the loop began.
    woken_at: Instant,
}

/// How a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WakeReason {
    InTime,
    /// Long after the deadline.
    Overslept,
}

impl MasterWaiter {
    /// `signals` is readable when a signal is pending.
    pub fn new(signals: &impl AsRawFd) -> io::Result<MasterWaiter> {
        let (wakeup, receiver) = wakeup::pair()?;
        let poll = Poll::new()?;
        // Which of the two is readable does not matter: the loop looks at everything.
        poll.registry().register(&mut SourceFd(&signals.as_raw_fd()), Token(0), Interest::READABLE)?;
        poll.registry().register(&mut SourceFd(&receiver.as_raw_fd()), Token(1), Interest::READABLE)?;
        Ok(MasterWaiter { poll, events: Events::with_capacity(2), receiver, wakeup, woken_at: Instant::now() })
    }

    /// Lets a descriptor that becomes readable or writable end the sleep too. Closing the
    /// descriptor ends the watch (epoll(7)).
    pub fn watch(&self, descriptor: RawFd) {
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut SourceFd(&descriptor), Token(2), interest) {
            log::error!("Cannot watch the control socket: {error}");
        }
    }

    /// Waits until something happens, or until `deadline`; without one for ever.
    pub fn wait(&mut self, deadline: Option<Instant>) -> WakeReason {
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // The loop owns its descriptors, so the only failure is EINTR, which is a wake-up as well.
        let _ = self.poll.poll(&mut self.events, timeout);
        self.receiver.drain();
        self.woken_at = Instant::now();
        match deadline {
            Some(deadline) if self.woken_at.saturating_duration_since(deadline) > OVERSLEPT => WakeReason::Overslept,
            _ => WakeReason::InTime,
        }
    }

    /// Whether the present turn has taken so long that the master must have been stopped in it.
    /// True once.
    fn has_lost_time(&mut self) -> bool {
        let has_lost = self.woken_at.elapsed() > OVERSLEPT;
        if has_lost {
            self.woken_at = Instant::now();
        }
        has_lost
    }

    /// In a new worker: the end of the wake-up that the worker writes to.
    pub fn into_wakeup(self) -> Wakeup {
        self.wakeup
    }
}

impl Master {
    pub(super) fn sleep(&mut self) {
        self.notice_lost_time();
        let deadline = self.next_deadline(Instant::now());
        if self.waiter.wait(deadline) == WakeReason::Overslept {
            self.workers.forgive_silence();
        }
    }

    /// Silence of the workers does not count if the master was stopped, because they perhaps were
    /// stopped too.
    pub(super) fn notice_lost_time(&mut self) {
        if self.waiter.has_lost_time() {
            self.workers.forgive_silence();
        }
    }

    /// The earliest moment at which the loop must look again although nothing woke it.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let leaving = match self.phase {
            Phase::Leaving(at) => Some(at),
            Phase::Starting | Phase::Proven => None,
        };
        let deadlines = [
            leaving,
            self.upgrade.has_parent().then(|| now + PARENT_CHECK),
            self.workers.deadline(now),
            self.generations.backoff_deadline(now),
            self.generations.reload_deadline(),
            self.check_deadline(),
            self.service_manager_deadline(now),
            self.certificates_deadline(),
            self.counts_deadline(now),
            self.control.deadline(),
            self.dirty.deadline(now),
            self.resize_deadline(),
            self.autoscale_deadline(),
            self.reports.backlog.deadline(&self.generations.serving.service, now),
            self.reports.statsd.deadline(&self.generations.serving.service, now),
        ];
        deadlines.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter() -> MasterWaiter {
        let (_, no_signals) = wakeup::pair().unwrap();
        MasterWaiter::new(&no_signals).unwrap()
    }

    #[test]
    fn a_wake_up_ends_the_sleep_and_a_late_one_is_told_from_one_in_time() {
        let mut waiter = waiter();
        waiter.wakeup.wake();
        assert_eq!(waiter.wait(None), WakeReason::InTime);
        assert_eq!(waiter.wait(Some(Instant::now())), WakeReason::InTime);
        let long_ago = Instant::now().checked_sub(OVERSLEPT * 2).unwrap();
        assert_eq!(waiter.wait(Some(long_ago)), WakeReason::Overslept);
    }

    #[test]
    fn time_is_lost_once() {
        let mut waiter = waiter();
        assert!(!waiter.has_lost_time());
        waiter.woken_at = Instant::now().checked_sub(OVERSLEPT * 2).unwrap();
        assert!(waiter.has_lost_time() && !waiter.has_lost_time());
    }
}
