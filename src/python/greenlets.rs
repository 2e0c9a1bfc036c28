//! The bridge to gevent, for workers whose requests run in greenlets of its hub.
//!
//! `gunicorn/_gevent.py` holds the hub's watchers and the pool of greenlets; it drives the worker
//! through [`GreenletWorker`], and each greenlet its requests through [`GreenletTask`]. The worker
//! itself is known only as a [`GreenletDriver`].
//!
//! Greenlets may switch wherever Python code runs. So each frame of ours that can be on the stack
//! then keeps to these rules (docs/internals/gevent.md): no lock and no borrow is held, nothing is
//! attached inside a `detach`, no other thread has a pointer into the frame, no thread-local is set
//! for the length of a call.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::call::{Begun, Finished, InFlight, SharedCalls, StepwiseCaller};
use super::hooks::WorkerMethod;
use super::hub::{self, Hub};
use super::panics::caught;
use super::{errors, loggers, signals};
use crate::base::unpoisoned::Unpoisoned;
use crate::exchange::Exchange;
use crate::scoreboard::Running;
use crate::sys::wakeup::WakeupReceiver;

/// The module with the hub's side.
const MODULE: &str = "gunicorn._gevent";

/// What there is to do after a turn of the worker's event loop.
#[derive(Debug, Clone, Default)]
pub struct Turned {
    /// Requests are ready.
    pub has_ready: bool,
    /// The worker has come to its end.
    pub is_over: bool,
    /// `worker_int` is to be called: code has changed (`reload`).
    pub has_changed_code: bool,
    /// The worker was aborted, and goes on until its requests are done.
    pub is_aborted: bool,
    /// Methods of the worker's class that are to be called.
    pub methods: Vec<WorkerMethod>,
}

/// The worker that greenlets serve for.
pub trait GreenletDriver: Send + Sync {
    /// Does the input and output that is due, without waiting.
    fn turn(&self, py: Python<'_>) -> Turned;

    /// Whether another request is to be taken in this turn.
    fn has_ready(&self) -> bool;

    /// Takes a request, which runs from now on.
    fn next_request(&self) -> Option<(Box<dyn Exchange>, Running)>;

    /// Gives a request back that is answered.
    fn finished(&self, py: Python<'_>, finished: Finished, running: Running);

    /// The hub is about to wait. Returns in how many seconds there is something to do without an
    /// event; `None` where the hub needs no new timer.
    fn before_wait(&self) -> Option<f64>;

    /// The hub has waited.
    fn after_wait(&self);

    /// Whether the worker has come to its end.
    fn is_over(&self) -> bool;

    /// Whether INT or QUIT has ended the worker.
    fn is_sudden_end(&self) -> bool;

    /// Adds a greenlet that begins to serve.
    fn add_caller(&self, in_flight: InFlight);

    /// Removes a greenlet that serves no more.
    fn remove_caller(&self, in_flight: &InFlight);

    /// The descriptor of the event loop's poll.
    fn descriptor(&self) -> RawFd;
}

/// Checks that gevent is there, for a process that is to start such workers.
///
/// # Errors
/// A sentence: gevent is not installed, or too old.
pub fn require() -> Result<(), String> {
    Python::attach(|py| {
        let asked = py.import(MODULE).and_then(|module| module.call_method0("what_is_missing"));
        match asked.and_then(|missing| missing.extract::<Option<String>>()) {
            Ok(None) => Ok(()),
            Ok(Some(sentence)) => Err(sentence),
            Err(error) => Err(errors::traceback(py, &error)),
        }
    })
}

/// Patches the standard library, as gunicorn's worker does.
///
/// # Errors
/// gevent cannot be imported.
pub fn patch() -> PyResult<()> {
    Python::attach(|py| py.import(MODULE)?.call_method0("patch").map(drop))
}

/// Serves until the worker is over. Other threads call the hub through `calls`.
///
/// # Errors
/// gevent has failed.
pub fn serve(
    py: Python<'_>,
    driver: Arc<dyn GreenletDriver>,
    shared: Arc<SharedCalls>,
    calls: WakeupReceiver,
    request_timeout: Option<Duration>,
) -> PyResult<()> {
    let module = py.import(MODULE)?;
    let [hub, current, wait, sleep, stacks]: [Py<PyAny>; 5] = module.call_method0("tools")?.extract()?;
    hub::begin(Hub::new(hub, current, wait, sleep, stacks));
    if let Err(error) = signals::show_greenlets_when_asked(py) {
        log::debug!("`monoceros ctl stacks` will show no stacks of this worker: {error}");
    }
    let app = shared.callable().clone_ref(py);
    let worker = Py::new(py, GreenletWorker { driver, shared, calls })?;
    match module.call_method1("serve", (worker, app, request_timeout.map(|time| time.as_secs_f64()))) {
        // A signal's handler has raised SystemExit at the very end.
        Err(error) if error.is_instance_of::<PySystemExit>(py) => Ok(()),
        served => served.map(drop),
    }
}

/// Where in the application the greenlet waits: its stack, as a traceback shows it. `None` where it
/// runs, or has ended.
pub fn stack_of(greenlet: &Py<PyAny>) -> Option<String> {
    Python::attach(|py| {
        let asked = py.import(MODULE).and_then(|module| module.call_method1("stack_of", (greenlet,)));
        asked.and_then(|stack| stack.extract::<Option<String>>()).ok().flatten()
    })
}

/// The worker, as the hub sees it.
#[pyclass(frozen, module = "monoceros")]
struct GreenletWorker {
    driver: Arc<dyn GreenletDriver>,
    shared: Arc<SharedCalls>,
    calls: WakeupReceiver,
}

/// Bits of [`GreenletWorker::turn`]'s result.
const READY: u32 = 1;
const OVER: u32 = 2;
const CODE_CHANGED: u32 = 4;
const ABORTED: u32 = 8;
const EXIT: u32 = 16;
const USR1: u32 = 32;

/// Bits of [`GreenletWorker::take_calls`]'s result.
const LOGS: u32 = 1;
const REOPEN: u32 = 2;
const LEVEL: u32 = 4;

#[pymethods]
impl GreenletWorker {
    /// The descriptors to watch: the event loop's poll, and the pipe by which other threads call.
    fn descriptors(&self) -> (RawFd, RawFd) {
        (self.driver.descriptor(), self.calls.as_raw_fd())
    }

    /// Does the input and output that is due. The bits say what there is to do now.
    fn turn(&self, py: Python<'_>) -> u32 {
        let Turned { has_ready, is_over, has_changed_code, is_aborted, methods } = self.driver.turn(py);
        u32::from(has_ready) * READY
            + u32::from(is_over) * OVER
            + u32::from(has_changed_code) * CODE_CHANGED
            + u32::from(is_aborted) * ABORTED
            + u32::from(methods.contains(&WorkerMethod::HandleExit)) * EXIT
            + u32::from(methods.contains(&WorkerMethod::HandleUsr1)) * USR1
    }

    fn has_ready(&self) -> bool {
        self.driver.has_ready()
    }

    fn before_wait(&self) -> Option<f64> {
        self.driver.before_wait()
    }

    fn after_wait(&self) {
        self.driver.after_wait();
    }

    /// Returns, as bits, what other threads want done in Python.
    fn take_calls(&self) -> u32 {
        self.calls.drain();
        let logs = loggers::queue().is_some_and(|queue| queue.has_records());
        u32::from(logs) * LOGS
            + u32::from(loggers::take_reopening()) * REOPEN
            + u32::from(loggers::take_level()) * LEVEL
    }

    /// Hands the records in the log's queue over to Python's logging.
    fn write_logs(&self, py: Python<'_>) {
        if let Some(queue) = loggers::queue() {
            queue.hand_over_all(py);
        }
    }

    /// Opens the files of Python's logging anew.
    fn reopen_logs(&self, py: Python<'_>) {
        if let Err(error) = loggers::reopen_files(py) {
            log::error!("Cannot reopen the logs\n{}", errors::traceback(py, &error));
        }
    }

    /// Gives the loggers of Python's logging the level of the error log.
    fn set_log_level(&self, py: Python<'_>) {
        loggers::tell_level(py);
    }

    /// Calls `worker_int`, because code has changed.
    fn code_changed(&self) {
        self.shared.hooks().code_changed();
    }

    /// Calls the method of the worker's class for TERM.
    fn handle_exit(&self) {
        self.shared.hooks().call_method(WorkerMethod::HandleExit);
    }

    /// Calls the method of the worker's class for USR1.
    fn handle_usr1(&self) {
        self.shared.hooks().call_method(WorkerMethod::HandleUsr1);
    }

    /// The worker was aborted: logs it and calls `worker_abort`, unless a greenlet that hogged the
    /// thread has done so.
    fn aborted(&self, py: Python<'_>) {
        signals::catch_up(py, self.shared.hooks(), true);
    }

    /// The worker is over. Returns whether INT or QUIT has ended it: requests are then not ended in
    /// order, and `worker_int` is called, unless a greenlet has called it.
    fn is_sudden_end(&self, py: Python<'_>) -> bool {
        let is_sudden = self.driver.is_sudden_end();
        if is_sudden {
            signals::catch_up(py, self.shared.hooks(), false);
        }
        is_sudden
    }

    /// Logs that requests have not ended in time.
    fn note_late(&self) {
        log::warn!("Worker graceful timeout (pid:{})", std::process::id());
    }

    /// Takes an exception that a signal's handler has raised in the main greenlet.
    fn settle(&self, py: Python<'_>, error: Bound<'_, PyAny>) {
        signals::settle(py, Err(PyErr::from_value(error)));
    }

    /// The task by which a new `greenlet` gets its requests.
    fn task(&self, py: Python<'_>, greenlet: Py<PyAny>) -> PyResult<GreenletTask> {
        let caller = StepwiseCaller::new(py, &self.shared)?;
        caller.in_flight().note_greenlet(greenlet);
        self.driver.add_caller(caller.in_flight());
        let at = GreenletTaskState { caller: Some(Box::new(caller)), running: None };
        Ok(GreenletTask { driver: self.driver.clone(), state: Mutex::new(at) })
    }
}

/// How a greenlet gets and answers its requests, one after another.
#[pyclass(frozen, module = "monoceros")]
struct GreenletTask {
    driver: Arc<dyn GreenletDriver>,
    state: Mutex<GreenletTaskState>,
}

struct GreenletTaskState {
    /// Taken out during a call: Python code may run then, and greenlets switch.
    caller: Option<Box<StepwiseCaller>>,
    /// The request, from its beginning to its end.
    running: Option<Running>,
}

#[pymethods]
impl GreenletTask {
    /// Begins the next request that is ready, and returns what to call the application with. None
    /// where no request is ready.
    fn begin<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        while let Some((exchange, running)) = self.driver.next_request() {
            let (start, began) = (running.start(), running.began());
            self.lock().running = Some(running);
            match self.with(|caller| caller.begin(py, exchange, (start, began)))? {
                Begun::Call(arguments) => return Ok(Some(arguments.into_bound(py))),
                Begun::Over(finished) => self.give_back(py, finished),
            }
        }
        Ok(None)
    }

    /// Sends the application's result, if it need not be iterated, and ends the request, if nothing
    /// is to be closed. True where the request is over, False where the result was sent and is to
    /// be closed, None where it is to be iterated.
    fn answer(&self, py: Python<'_>, result: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
        let needs_no_close = result.is_exact_instance_of::<PyList>() || result.is_exact_instance_of::<PyTuple>();
        let (is_sent, finished) = self.with(|caller| {
            let is_sent = caller.answer(py, result)?;
            Ok::<_, PyErr>((is_sent, (is_sent && needs_no_close).then(|| caller.end(py))))
        })??;
        let is_over = finished.is_some();
        if let Some(finished) = finished {
            self.give_back(py, finished);
        }
        Ok((is_over || is_sent).then_some(is_over))
    }

    /// Sends a block of an iteration, and returns whether more are wanted.
    fn stream(&self, py: Python<'_>, block: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.with(|caller| caller.stream(py, block))?
    }

    fn iterated(&self) -> PyResult<()> {
        self.with(|caller| caller.iterated())?
    }

    /// The result is about to be closed.
    fn complete(&self) -> PyResult<()> {
        self.with(|caller| caller.complete())?
    }

    /// The request has failed; `in_call` where the call of the application has raised the error.
    fn fail(&self, py: Python<'_>, error: Bound<'_, PyAny>, in_call: bool) -> PyResult<()> {
        let error = PyErr::from_value(error);
        let is_over = self.driver.is_over();
        self.with(|caller| match caller.is_running() {
            true if is_over => caller.give_up(),
            true => caller.fail(py, &error, in_call),
            false => {}
        })
    }

    /// The request has taken longer than `request_timeout`.
    fn time_out(&self, py: Python<'_>, error: Bound<'_, PyAny>) -> PyResult<()> {
        let error = PyErr::from_value(error);
        self.with(|caller| {
            if caller.is_running() {
                caller.time_out(py, &error);
            }
        })
    }

    fn close_failed(&self, py: Python<'_>, error: Bound<'_, PyAny>) -> PyResult<()> {
        let error = PyErr::from_value(error);
        self.with(|caller| caller.note_failed_close(py, &error))
    }

    /// Ends the request, if one still runs.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let finished = self.with(|caller| caller.is_running().then(|| caller.end(py)))?;
        if let Some(finished) = finished {
            self.give_back(py, finished);
        }
        Ok(())
    }

    /// The greenlet ends.
    fn leave(&self) -> PyResult<()> {
        let in_flight = self.with(|caller| caller.in_flight())?;
        self.driver.remove_caller(&in_flight);
        Ok(())
    }
}

impl GreenletTask {
    fn with<T>(&self, act: impl FnOnce(&mut StepwiseCaller) -> T) -> PyResult<T> {
        let caller = self.lock().caller.take();
        let mut caller = caller.ok_or_else(|| PyRuntimeError::new_err("this greenlet is at its request already"))?;
        let done = caught(|| act(&mut caller));
        self.lock().caller = Some(caller);
        done.map_err(|panic| PyRuntimeError::new_err(format!("a fault of the server: {panic}")))
    }

    fn give_back(&self, py: Python<'_>, finished: Finished) {
        let running = self.lock().running.take().expect("what has finished was begun");
        self.driver.finished(py, finished, running);
    }

    fn lock(&self) -> MutexGuard<'_, GreenletTaskState> {
        self.state.lock().unpoisoned()
    }
}
