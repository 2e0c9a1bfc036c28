//! A queue of records for Python's logging.
//!
//! The leader, which runs the event loop, must never wait for the interpreter, but it logs. So
//! records wait in this queue for a thread of its own, which attaches to the interpreter.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::loggers;
use crate::logging::Level;
use crate::sys::thread;

/// Past this many waiting records new ones are dropped and counted: the log handlers are too slow.
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
    /// The thread has taken entries and writes them.
    is_handing_over: bool,
}

enum QueuedRecord {
    Record(Level, String),
    AccessLine(String),
    Reopen,
}

impl LogQueue {
    /// Starts the thread that passes records to Python's logging.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub(super) fn start() -> io::Result<Arc<LogQueue>> {
        let queue = Arc::new(LogQueue { state: Mutex::default(), changed: Condvar::new() });
        let own = queue.clone();
        thread::spawn_for_python("log", move || own.hand_over())?;
        Ok(queue)
    }

    /// Adds a record.
    pub fn record(&self, level: Level, text: &str) {
        self.add(QueuedRecord::Record(level, text.to_owned()));
    }

    /// Adds a line of the access log.
    pub fn access_line(&self, line: &str) {
        self.add(QueuedRecord::AccessLine(line.to_owned()));
    }

    /// Has the thread reopen the log files once the earlier entries are written.
    pub fn reopen(&self) {
        self.add(QueuedRecord::Reopen);
    }

    /// Waits until the queue is empty, at most for `QUEUE_WAIT`. The caller must not be attached
    /// to the interpreter.
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
                    // The bridge logs exceptions. An error that it returns cannot be reported
                    // anywhere.
                    drop(entry.hand_over(py));
                }
                if dropped > 0 {
                    let text = format!("{dropped} records were dropped: the log handlers are too slow");
                    drop(QueuedRecord::Record(Level::Error, text).hand_over(py));
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
        // A panic while the lock was held leaves plain data, which stays valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuedRecord {
    fn hand_over(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let bridge = loggers::bridge(py)?;
        match self {
            QueuedRecord::Record(level, text) => bridge.call_method1(py, "record", (level.python_number(), text)),
            QueuedRecord::AccessLine(line) => bridge.call_method1(py, "access_line", (line,)),
            QueuedRecord::Reopen => bridge.call_method0(py, "reopen"),
        }
    }
}
