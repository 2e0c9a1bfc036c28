//! A generation: what a set of workers was forked with, and how many of them there should be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::error;

use crate::base::ablation::{Mechanism, is_off};
use crate::logging::Level;
use crate::service::Service;
use crate::sys::failure_note::FailureNote;
use crate::sys::memory;
use crate::sys::socket::Listener;

use super::certificates::CertificateWatch;
use super::plan::Target;
use super::resources::Resources;

pub(super) struct Generation {
    /// Counts the reloads; workers belong to a generation by this number.
    pub number: u64,
    /// Only a fork holds another reference, and only for a moment, so the generation can change its
    /// service in place ([`Arc::make_mut`]).
    pub service: Arc<Service>,
    /// The certificate files as they looked when they were read, under `tls_watch`.
    pub watch: Option<CertificateWatch>,
    /// The listeners that do not listen yet.
    closed: Vec<Arc<Listener>>,
    /// How many workers there should be: the setting, then changed by TTIN and TTOU, and by load.
    pub wanted: usize,
    /// How many there should be at least, whatever the load.
    pub floor: usize,
    /// The resources for which `workers = auto` has found the number; `None` if the number is the
    /// user's.
    pub found_for: Option<Resources>,
    pub since: Instant,
    pub backoff: Backoff,
    /// The level of the error log that an operator has asked for, in place of the setting's.
    pub log_level: Option<Level>,
    /// Where its workers say why they could not begin; `None` once the generation serves.
    pub failure_note: Option<Arc<FailureNote>>,
}

impl Generation {
    pub fn new(number: u64, service: Service, wanted: usize) -> Generation {
        let closed = service.listeners.iter().filter(|listener| !listener.is_open()).cloned().collect();
        let watch = service.tls.as_ref().and_then(CertificateWatch::of);
        let (since, backoff) = (Instant::now(), Backoff::Ready);
        let (floor, found_for, service) = (wanted, None, Arc::new(service));
        let (log_level, failure_note) = (None, None);
        Generation { number, service, watch, closed, wanted, floor, found_for, since, backoff, log_level, failure_note }
    }

    /// To be called when this generation takes over. Sets when the kernel reports a connection on
    /// the listeners that it shares with the generation before; `was_deferred` says that the
    /// latter, or another owner of the sockets, may have set `defer_accept`.
    pub fn take_over(&self, was_deferred: bool) {
        let defers = self.service.config.defer_accept;
        // Without the setting, the sockets of a service manager stay as the manager has made them.
        if defers || was_deferred {
            for listener in &self.service.listeners {
                if let Err(error) = listener.defer_accept(defers) {
                    error!("Can't set defer_accept at {listener}: {error}");
                }
            }
        }
        // Most of the code in memory was needed for the start or the reload, which is over. A
        // failure costs memory only.
        if !is_off(Mechanism::CodeGivenBack) {
            let _ = memory::give_back_code();
        }
    }

    /// Lets the kernel queue connections on the sockets that this generation has added to ports in
    /// use. To be called when one of its workers serves, not before: earlier workers do not have
    /// these sockets, so no process would accept from them.
    pub fn start_listening(&mut self) {
        for listener in self.closed.drain(..) {
            if let Err(error) = listener.open(self.service.config.backlog) {
                error!("Can't listen at {listener}: {error}");
            }
        }
    }

    /// How many workers the generation should have, as the decisions in `plan` need it. `surge` is
    /// also how many of them must serve before it takes over.
    pub fn target(&self) -> Target {
        let surge = match self.service.config.reload_surge {
            0 => self.wanted,
            most => most.min(self.wanted),
        };
        Target { generation: self.number, wanted: self.wanted, surge }
    }

    /// When the generation has been booting for as long as `timeout`; `None` without that setting.
    pub fn hopeless_at(&self) -> Option<Instant> {
        self.hopeless_after(self.since)
    }

    /// When something that began at this moment has taken as long as `timeout`; `None` without that
    /// setting.
    pub fn hopeless_after(&self, since: Instant) -> Option<Instant> {
        match self.service.config.timeout {
            0 => None,
            seconds => since.checked_add(Duration::from_secs(seconds)),
        }
    }

    /// Takes the listeners out, for the end.
    pub fn give_up_listeners(&mut self) -> Vec<Arc<Listener>> {
        std::mem::take(&mut Arc::make_mut(&mut self.service).listeners)
    }
}

/// The wait after a worker that died before it served, so that a broken app does not cause a storm
/// of forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backoff {
    /// The next worker may be forked at once.
    Ready,
    /// The next worker must not be forked before `until`; `delay` is the wait that led to it.
    Waiting { until: Instant, delay: Duration },
}

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

impl Backoff {
    /// A worker died before it served. Deaths during one wait are one failure: the workers of a
    /// generation die together.
    pub fn failed(&mut self, now: Instant) {
        let delay = match *self {
            Backoff::Ready => FIRST_DELAY,
            Backoff::Waiting { until, .. } if now < until => return,
            Backoff::Waiting { delay, .. } => (delay * 2).min(LONGEST_DELAY),
        };
        *self = Backoff::Waiting { until: now + delay, delay };
    }

    /// A worker serves.
    pub fn succeeded(&mut self) {
        *self = Backoff::Ready;
    }

    /// When the next worker may be forked, if not at once.
    pub fn until(self, now: Instant) -> Option<Instant> {
        match self {
            Backoff::Waiting { until, .. } if now < until => Some(until),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_five_seconds_and_success_forgets_them() {
        let (mut backoff, mut now) = (Backoff::Ready, Instant::now());
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            backoff.failed(now);
            let until = backoff.until(now).unwrap();
            assert_eq!(until - now, Duration::from_millis(expected));
            now = until;
            assert_eq!(backoff.until(now), None);
        }
        backoff.succeeded();
        assert_eq!(backoff, Backoff::Ready);
    }

    #[test]
    fn workers_that_die_together_are_one_failure() {
        let (mut backoff, now) = (Backoff::Ready, Instant::now());
        for _ in 0..10 {
            backoff.failed(now);
        }
        assert_eq!(backoff.until(now), Some(now + FIRST_DELAY));
    }
}
