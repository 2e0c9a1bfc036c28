//! The requests that callers serve, for other threads: these log them, send bytes that wait, and
//! answer in the application's stead. None of this needs the interpreter, which may be what is
//! stuck.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, TryLockError};
use std::time::Instant;

use pyo3::prelude::*;

use crate::base::unpoisoned::Unpoisoned;
use crate::logging::RequestIds;
use crate::python::panics::caught;
use crate::python::response_writer::{ResponseWriter, lock};
use crate::sys::thread;

/// What the standby thread finds when it looks for bytes that wait for more to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// No bytes wait.
    Nothing,
    /// A thread is sending or receiving: nobody knows whether bytes wait.
    Locked,
    /// Bytes wait, or waited until this look sent them.
    Waits,
}

/// The requests that a [`Caller`](super::Caller) serves, for other threads to look at.
#[derive(Clone, Default)]
pub struct InFlight {
    responses: Arc<Mutex<Vec<Arc<Mutex<ResponseWriter>>>>>,
    /// When the request began, in nanoseconds of the monotonic clock; 0 before the first, and in a
    /// greenlet between two.
    start: Arc<AtomicU64>,
    /// What runs the requests, once that is known.
    runner: Arc<OnceLock<Runner>>,
}

/// What runs the application, one request after another.
pub enum Runner {
    /// The thread of this [number](thread::number).
    Thread(u64),
    /// A greenlet.
    Greenlet(Py<PyAny>),
}

impl InFlight {
    /// When the request that is being served began, as the caller was told
    /// ([`Caller::note_start`](super::Caller::note_start)).
    pub fn start(&self) -> u64 {
        self.start.load(Relaxed)
    }

    /// Sets what [`InFlight::start`] returns.
    pub(super) fn note_start(&self, start: u64) {
        self.start.store(start, Relaxed);
    }

    /// Each request that is being served: its method, target and client, and its ids.
    pub fn describe(&self) -> Vec<(String, RequestIds)> {
        self.transmissions().iter().filter_map(|shared| lock(shared).describe_exchange()).collect()
    }

    /// Notes that this thread runs the requests.
    pub fn note_thread(&self) {
        let _ = self.runner.set(Runner::Thread(thread::number()));
    }

    /// Notes that this greenlet runs the requests.
    pub(in crate::python) fn note_greenlet(&self, greenlet: Py<PyAny>) {
        let _ = self.runner.set(Runner::Greenlet(greenlet));
    }

    /// What runs the requests, if that is known.
    pub fn runner(&self) -> Option<&Runner> {
        self.runner.get()
    }

    /// Whether `other` is a view of the same caller.
    pub fn is_of_the_same_caller(&self, other: &InFlight) -> bool {
        Arc::ptr_eq(&self.responses, &other.responses)
    }

    /// Answers with 504 each request whose response has not begun: the application will not answer
    /// it.
    pub fn give_up(&self) {
        for shared in self.transmissions() {
            let mut response = lock(&shared);
            if response.is_under_way() {
                response.fail(504, "");
            }
        }
    }

    /// For the standby thread: sends bytes that have waited for long enough
    /// ([`Exchange::flush_due`](crate::exchange::Exchange::flush_due)). With `hurry`, a response
    /// waits for no others either ([`Exchange::hurry`](crate::exchange::Exchange::hurry)).
    pub fn flush_due(&self, now: Instant, hurry: bool) -> Look {
        let responses = self.responses.lock().unpoisoned();
        let looks = responses.iter().map(|shared| {
            let mut response = match shared.try_lock() {
                Ok(response) => response,
                Err(TryLockError::Poisoned(response)) => response.into_inner(),
                // A thread is sending. The bytes of other responses must not wait for it.
                Err(TryLockError::WouldBlock) => return Look::Locked,
            };
            let looked = caught(|| {
                if hurry {
                    response.hurry();
                }
                response.flush_due(now)
            });
            match looked {
                Ok(true) => Look::Waits,
                Ok(false) => Look::Nothing,
                Err(_) => {
                    response.give_up_after_fault();
                    Look::Nothing
                }
            }
        });
        looks.max().unwrap_or(Look::Nothing)
    }

    fn transmissions(&self) -> Vec<Arc<Mutex<ResponseWriter>>> {
        self.responses.lock().unpoisoned().clone()
    }

    pub(super) fn set(&self, site: usize, response: &Arc<Mutex<ResponseWriter>>) {
        let mut transmissions = self.responses.lock().unpoisoned();
        match transmissions.get_mut(site) {
            Some(known) => *known = response.clone(),
            None => transmissions.push(response.clone()),
        }
    }
}
