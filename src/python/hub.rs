//! gevent's hub, for code of this layer that has to wait, or to know in which greenlet it runs.
//! Outside a worker of class gevent there is no hub, and asking for it costs one atomic load.

use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::thread::{self, ThreadId};
use std::time::Duration;

use pyo3::prelude::*;

use super::errors;
use crate::sys::socket::Readiness;

/// The hub of this process. Set when the worker begins to serve.
static HUB: OnceLock<Hub> = OnceLock::new();

/// The hub of the thread that runs the application.
pub struct Hub {
    thread: ThreadId,
    hub: Py<PyAny>,
    /// `greenlet.getcurrent`
    current: Py<PyAny>,
    /// `wait(descriptor, writes, seconds)`
    wait: Py<PyAny>,
    /// `gevent.sleep`
    sleep: Py<PyAny>,
    /// The stacks of all greenlets, as text.
    stacks: Py<PyAny>,
}

/// Makes `hub` the one that [`of_this_thread`] finds.
pub fn begin(hub: Hub) {
    HUB.get_or_init(|| hub);
}

/// The hub, if it runs in the calling thread.
pub fn of_this_thread(_: Python<'_>) -> Option<&'static Hub> {
    HUB.get().filter(|hub| hub.thread == thread::current().id())
}

/// Waits for `time`, while other greenlets or threads run. For the server's own waits: an exception
/// that is thrown into the greenlet meanwhile is logged, because it comes too late to end anything.
pub fn pause(py: Python<'_>, time: Duration) {
    let Some(hub) = of_this_thread(py) else { return py.detach(|| thread::sleep(time)) };
    if let Err(error) = hub.sleep(py, time) {
        log::debug!("{}", errors::traceback(py, &error));
    }
}

/// Which greenlet of a hub's thread this is, as a number; 0 in other threads.
pub fn current(py: Python<'_>) -> usize {
    let current = of_this_thread(py).and_then(|hub| hub.current.call0(py).ok());
    current.map_or(0, |greenlet| greenlet.as_ptr() as usize)
}

/// Whether the hub's own greenlet is running: in it there is no application code to unwind, and
/// nothing may wait.
pub fn is_hub(py: Python<'_>) -> bool {
    of_this_thread(py).is_some_and(|hub| hub.current.call0(py).is_ok_and(|current| current.is(&hub.hub)))
}

/// Logs the stacks of all greenlets, where there are any.
pub fn log_stacks(py: Python<'_>) {
    if of_this_thread(py).is_none() {
        return;
    }
    match stacks(py) {
        Ok(stacks) => log::error!("{stacks}"),
        Err(error) => log::error!("Cannot show the greenlets\n{}", errors::traceback(py, &error)),
    }
}

/// The stacks of all greenlets of this thread, as text; empty for a thread without a hub.
///
/// # Errors
/// What Python has raised.
pub fn stacks(py: Python<'_>) -> PyResult<String> {
    of_this_thread(py).map_or_else(|| Ok(String::new()), |hub| hub.stacks.call0(py)?.extract(py))
}

impl Hub {
    /// The hub of this thread, from the tools that `gunicorn/_gevent.py` gives.
    pub fn new(hub: Py<PyAny>, current: Py<PyAny>, wait: Py<PyAny>, sleep: Py<PyAny>, stacks: Py<PyAny>) -> Hub {
        Hub { thread: thread::current().id(), hub, current, wait, sleep, stacks }
    }

    /// Waits until `descriptor` is ready, at most for `time`, while other greenlets run.
    ///
    /// # Errors
    /// The exception that is thrown into the greenlet meanwhile (`gevent.Timeout`, `GreenletExit`).
    pub fn wait(&self, py: Python<'_>, descriptor: RawFd, readiness: Readiness, time: Duration) -> PyResult<()> {
        let writes = readiness == Readiness::ToWrite;
        self.wait.call1(py, (descriptor, writes, time.as_secs_f64())).map(drop)
    }

    /// Lets other greenlets run for `time`.
    ///
    /// # Errors
    /// The exception that is thrown into the greenlet meanwhile.
    pub fn sleep(&self, py: Python<'_>, time: Duration) -> PyResult<()> {
        self.sleep.call1(py, (time.as_secs_f64(),)).map(drop)
    }
}
