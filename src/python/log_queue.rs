//! A queue of records for Python's logging.
//!
//! The leader, which runs the event loop, must never wait for the interpreter, but it logs. So
//! records wait in this queue for the log thread, which attaches to the interpreter. In a worker
//! whose requests run in greenlets, records wait for a greenlet of the hub instead.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::loggers;
use crate::base::unpoisoned::Unpoisoned;
use crate::logging::{Level, TakenLine, note_dropped};
use crate::sys::thread;
use crate::sys::wakeup::Wakeup;

/// Past this many waiting records new ones are dropped and counted: the log handlers are too slow.
const MOST_WAITING: usize = 10_000;

/// How long the end of a worker waits for records to be handed over.
const QUEUE_WAIT: Duration = Duration::from_secs(2);

/// The records that wait for Python's logging.
pub struct LogQueue {
    /// Calls the hub, if the hub empties the queue.
    hub_call: Option<Arc<Wakeup>>,
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<QueuedRecord>,
    dropped: usize,
    /// The thread or greenlet has taken entries and writes them.
    is_handing_over: bool,
}

enum QueuedRecord {
    Record(Level, String),
    AccessLine(TakenLine),
    Reopen,
}

impl LogQueue {
    /// Starts the thread that passes records to Python's logging.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub(super) fn start() -> io::Result<Arc<LogQueue>> {
        let queue = Arc::new(LogQueue::emptied_by(None));
        let own = queue.clone();
        thread::spawn_for_python("log", move || own.hand_over())?;
        Ok(queue)
    }

    /// A queue that the hub empties ([`LogQueue::hand_over_all`]) when `call` wakes it.
    pub(super) fn for_hub(call: Arc<Wakeup>) -> Arc<LogQueue> {
        Arc::new(LogQueue::emptied_by(Some(call)))
    }

    fn emptied_by(hub_call: Option<Arc<Wakeup>>) -> LogQueue {
        LogQueue { hub_call, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Adds a record.
    pub fn record(&self, level: Level, text: &str) {
        self.add(QueuedRecord::Record(level, text.to_owned()));
    }

    /// Adds a line of the access log.
    pub fn access_line(&self, line: TakenLine) {
        self.add(QueuedRecord::AccessLine(line));
    }

    /// Has the thread reopen the log files once the earlier entries are written.
    pub fn reopen(&self) {
        self.add(QueuedRecord::Reopen);
    }

    /// Waits until the thread has emptied the queue, at most for `QUEUE_WAIT`. The caller must not
    /// be attached to the interpreter. In a worker with a hub, the caller empties the queue itself.
    pub fn finish(&self) {
        if self.hub_call.is_some() {
            return Python::attach(|py| self.hand_over_all(py));
        }
        let deadline = Instant::now() + QUEUE_WAIT;
        let mut state = self.lock();
        while !state.waiting.is_empty() || state.is_handing_over {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unpoisoned().0;
        }
    }

    fn add(&self, entry: QueuedRecord) {
        let mut state = self.lock();
        let was_empty = state.waiting.is_empty();
        // An order to reopen is no record: it passes the bound, once.
        let is_reopen = |entry: &QueuedRecord| matches!(entry, QueuedRecord::Reopen);
        let is_order = is_reopen(&entry) && !state.waiting.back().is_some_and(is_reopen);
        if state.waiting.len() < MOST_WAITING || is_order {
            state.waiting.push_back(entry);
        } else {
            state.dropped += 1;
            note_dropped(1);
        }
        match &self.hub_call {
            Some(call) if was_empty => call.wake(),
            Some(_) => {}
            None => self.changed.notify_all(),
        }
    }

    /// Whether records wait.
    pub(super) fn has_records(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// Hands over all records that wait. The hub runs this in a greenlet, so that a log handler may
    /// wait. Does nothing while another greenlet hands records over.
    pub(super) fn hand_over_all(&self, py: Python<'_>) {
        loop {
            let taken = {
                let mut state = self.lock();
                if state.is_handing_over || state.waiting.is_empty() { None } else { Some(state.take()) }
            };
            let Some((entries, dropped)) = taken else { return };
            write(py, entries, dropped);
            self.lock().is_handing_over = false;
        }
    }

    fn hand_over(&self) {
        loop {
            let (entries, dropped) = self.wait_for_records();
            Python::attach(|py| write(py, entries, dropped));
            self.lock().is_handing_over = false;
            self.changed.notify_all();
        }
    }

    fn wait_for_records(&self) -> (VecDeque<QueuedRecord>, usize) {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            state = self.changed.wait(state).unpoisoned();
        }
        state.take()
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // A panic while the lock was held leaves plain data, which stays valid.
        self.state.lock().unpoisoned()
    }
}

impl QueueState {
    fn take(&mut self) -> (VecDeque<QueuedRecord>, usize) {
        self.is_handing_over = true;
        (std::mem::take(&mut self.waiting), std::mem::take(&mut self.dropped))
    }
}

fn write(py: Python<'_>, entries: VecDeque<QueuedRecord>, dropped: usize) {
    for entry in entries {
        // The bridge logs exceptions. An error that it returns cannot be reported anywhere.
        drop(entry.hand_over(py));
    }
    if dropped > 0 {
        let text = format!("{dropped} records were dropped: the log handlers are too slow");
        drop(QueuedRecord::Record(Level::Error, text).hand_over(py));
    }
}

impl QueuedRecord {
    fn hand_over(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let bridge = loggers::bridge(py)?;
        match self {
            QueuedRecord::Record(level, text) => bridge.call_method1(py, "record", (level.python_number(), text)),
            QueuedRecord::AccessLine(TakenLine { line, atoms }) => {
                bridge.call_method1(py, "access_line", (line, atoms))
            }
            QueuedRecord::Reopen => bridge.call_method0(py, "reopen"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_to_reopen_passes_the_bound_once() {
        let queue = LogQueue::emptied_by(None);
        (0..MOST_WAITING + 5).for_each(|_| queue.record(Level::Info, "x"));
        assert_eq!(queue.lock().dropped, 5);
        queue.reopen();
        queue.reopen();
        queue.record(Level::Info, "x");
        assert_eq!(queue.lock().waiting.len(), MOST_WAITING + 1);
        assert!(matches!(queue.lock().waiting.back(), Some(QueuedRecord::Reopen)));
    }
}
