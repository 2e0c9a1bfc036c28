//! A generation: the settings and sockets that a set of workers was forked with, and how many of them there should be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::error;

use crate::python::hooks::Hooks;
use crate::settings::Config;
use crate::sys::memory;
use crate::sys::socket::Listener;
use crate::tls::Tls;

use super::certificates::CertificateWatch;

pub(super) struct Generation {
    /// Counts the reloads; what a worker is told apart by.
    pub number: u64,
    pub config: Arc<Config>,
    pub hooks: Hooks,
    pub listeners: Vec<Arc<Listener>>,
    pub tls: Option<Tls>,
    /// What their files looked like, under `tls_watch`.
    pub watch: Option<CertificateWatch>,
    /// Those of the listeners that do not listen yet.
    shut: Vec<Arc<Listener>>,
    /// How many workers there should be: the setting, then TTIN and TTOU.
    pub wanted: usize,
    pub since: Instant,
    pub backoff: Backoff,
}

impl Generation {
    pub fn new(
        number: u64,
        config: Arc<Config>,
        hooks: Hooks,
        listeners: Vec<Arc<Listener>>,
        tls: Option<Tls>,
        wanted: usize,
    ) -> Generation {
        let shut = listeners.iter().filter(|listener| !listener.is_open()).cloned().collect();
        let watch = tls.as_ref().and_then(CertificateWatch::of);
        let (since, backoff) = (Instant::now(), Backoff::Ready);
        Generation { number, config, hooks, listeners, tls, watch, shut, wanted, since, backoff }
    }

    /// To be called when this generation takes over. Sockets that it shares with the one before are told when it wants to hear of a
    /// connection; `was_deferred` says that the one before, or who else had them, may have wanted to hear late.
    pub fn take_over(&self, was_deferred: bool) {
        // Sockets of a service manager are as that has made them, unless the settings say more.
        if self.config.defer_accept || was_deferred {
            for listener in &self.listeners {
                if let Err(error) = listener.defer_accept(self.config.defer_accept) {
                    error!("Can't set defer_accept at {listener}: {error}");
                }
            }
        }
        // What a start or a reload needs is most of the code, and it is over. It is not worth an error.
        let _ = memory::give_back_code();
    }

    /// Lets the kernel hand connections to the sockets that this generation has added to ports in use. To be called when a worker
    /// of it serves, not before: earlier workers do not have these sockets, so nobody else would take what waits there.
    pub fn open_doors(&mut self) {
        for listener in self.shut.drain(..) {
            if let Err(error) = listener.open(self.config.backlog) {
                error!("Can't listen at {listener}: {error}");
            }
        }
    }

    /// How many workers must serve before this generation takes over, and how many more than `wanted` there may be while it
    /// replaces the old one's.
    pub fn surge(&self) -> usize {
        match self.config.reload_surge {
            0 => self.wanted,
            most => most.min(self.wanted),
        }
    }

    /// Whether it takes over all at once, the old generation and the new one whole beside each other.
    pub fn takes_over_whole(&self) -> bool {
        self.surge() == self.wanted
    }
}

/// Patience with workers that die before they serve, so that a broken app does not become a storm of forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backoff {
    /// The next worker may be forked at once.
    Ready,
    /// Not before this moment; the delay that led to it.
    Waiting { until: Instant, delay: Duration },
}

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

impl Backoff {
    /// A worker died before it served. Deaths during one wait are one failure: the workers of a generation die together.
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
