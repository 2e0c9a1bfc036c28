//! Records on their way to Python's logging.
//!
//! A thread that logs may be the one that leads the event loop, which must never wait for the
//! interpreter. So records wait here for a thread of their own, which attaches for them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::loggers;
use crate::sys::thread;

/// Past this many waiting records new ones are dropped and counted: the handlers cannot keep up.
const MOST_WAITING: usize = 10_000;

/// How long the end of a worker waits for records to be handed over.
const QUEUE_WAIT: Duration = Duration::from_secs(2);

/// The queue, and the thread that empties it.
pub struct LogQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<QueuedRecord>,
    dropped: usize,
    /// The thread has taken entries and is at them.
    is_handing_over: bool,
}

enum QueuedRecord {
    Record(u32, String),
    AccessLine(String),
    Reopen,
}

impl LogQueue {
    /// Starts the thread that hands over to Python's logging.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub(super) fn start() -> io::Result<Arc<LogQueue>> {
        let queue = Arc::new(LogQueue { state: Mutex::default(), changed: Condvar::new() });
        let own = queue.clone();
        thread::spawn_for_python("log", move || own.hand_over())?;
        Ok(queue)
    }

    /// Adds a record; `level` is a number of Python's `logging`.
    pub fn record(&self, level: u32, text: &str) {
        self.add(QueuedRecord::Record(level, text.to_owned()));
    }

    /// Adds a ready line of the access log.
    pub fn access_line(&self, line: &str) {
        self.add(QueuedRecord::AccessLine(line.to_owned()));
    }

    /// Has the files opened again when what came before has been written.
    pub fn reopen(&self) {
        self.add(QueuedRecord::Reopen);
    }

    /// Waits, not attached to the interpreter and not for ever, until everything is handed over.
    pub fn finish(&self) {
        let deadline = Instant::now() + QUEUE_WAIT;
        let mut state = self.lock();
        while !state.waiting.is_empty() || state.is_handing_over {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn add(&self, entry: QueuedRecord) {
        let mut state = self.lock();
        if state.waiting.len() < MOST_WAITING {
            state.waiting.push_back(entry);
        } else {
            state.dropped += 1;
        }
        self.changed.notify_all();
    }

    fn hand_over(&self) {
        loop {
            let (entries, dropped) = self.take();
            Python::attach(|py| {
                for entry in entries {
                    // The bridge sees to exceptions; there is nobody else to tell.
                    drop(entry.hand_over(py));
                }
                if dropped > 0 {
                    let text = format!("{dropped} records were dropped: the log handlers are too slow");
                    drop(QueuedRecord::Record(40, text).hand_over(py));
                }
            });
            self.lock().is_handing_over = false;
            self.changed.notify_all();
        }
    }

    fn take(&self) -> (VecDeque<QueuedRecord>, usize) {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_handing_over = true;
        (std::mem::take(&mut state.waiting), std::mem::take(&mut state.dropped))
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // A panic while it was held leaves plain data behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuedRecord {
    fn hand_over(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let bridge = loggers::bridge(py)?;
        match self {
            QueuedRecord::Record(level, text) => bridge.call_method1(py, "record", (level, text)),
            QueuedRecord::AccessLine(line) => bridge.call_method1(py, "access_line", (line,)),
            QueuedRecord::Reopen => bridge.call_method0(py, "reopen"),
        }
    }
}
