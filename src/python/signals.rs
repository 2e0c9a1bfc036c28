//! Signals as Python sees them: `signal.getsignal()` answers a callable for each one that is the
//! server's, and calling it does the server's duty. docs/internals/signals.md says who owns which
//! signal when.
//!
//! The handler of `sys::signal` is what the kernel calls. For signals that must unwind what runs
//! (INT, QUIT, ABRT; TERM too while the application is loaded) it has CPython's own machinery call
//! the callable as well, between two bytecodes of the main thread, and `SystemExit` then unwinds
//! the application, as it does under gunicorn. An application that installs a handler of its own
//! replaces ours: CPython's handler is what the kernel calls then, and a descriptor of ours
//! ([`Nudge`]) tells the poll that there is something to run. `_signal` is what is below `signal`,
//! and loaded anyway. It must not know the worker's threads nor the master's loop.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use pyo3::exceptions::PySystemExit;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::hooks::Hooks;
use crate::sys::fork;
use crate::sys::signal::{self, Signal};
use crate::sys::wakeup::{self, Wakeup, WakeupReceiver};

/// The last signal that unwound something; 0 before any.
static UNWOUND_BY: AtomicI32 = AtomicI32::new(0);

/// Whether the process has not served yet: TERM then unwinds the import of the application, or the
/// hook that runs.
static IS_STARTING: AtomicBool = AtomicBool::new(false);

/// Whether this is a master, which ends itself where Python does not come to its handlers.
static ENDS_ITSELF: AtomicBool = AtomicBool::new(false);

/// The server's handler in this process, to be installed again.
static OURS: Mutex<Option<Py<Handler>>> = Mutex::new(None);

/// The descriptor that CPython is to write to when a signal has come.
static NUDGED: AtomicI32 = AtomicI32::new(-1);

/// Says in the log what an aborted worker is at.
static ABORT_REPORT: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// What stops a server that starts.
const STOPS: [Signal; 3] = [Signal::Term, Signal::Int, Signal::Quit];

/// What unwinds a worker's application.
const UNWINDING: [Signal; 3] = [Signal::Int, Signal::Quit, Signal::Abrt];

/// How long a master that starts may take to end once it is told to. C code that waits for a
/// network runs no handlers.
const START_ENDS_WITHIN: u32 = 2;

/// Tells a poll that handlers of Python's are due.
#[derive(Debug)]
pub struct Nudge {
    /// CPython has its descriptor.
    _write: Wakeup,
    read: WakeupReceiver,
}

impl Nudge {
    /// Takes what was written, so that an edge-triggered poll reports the next.
    pub fn drain(&self) {
        self.read.drain();
    }
}

impl AsRawFd for Nudge {
    /// Readable when handlers are due.
    fn as_raw_fd(&self) -> RawFd {
        self.read.as_raw_fd()
    }
}

/// What `signal.getsignal()` answers for the server's signals.
#[pyclass(frozen, module = "monoceros")]
struct Handler {
    duty: Duty,
}

enum Duty {
    /// A stop that comes while the server starts unwinds the start; the loop does everything else.
    Master,
    /// The hooks hear of what ends a request.
    Worker(Hooks),
}

#[pymethods]
impl Handler {
    /// Does what the server does at this signal.
    fn __call__(&self, py: Python<'_>, number: i32, _frame: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let Some(signal) = Signal::from_number(number) else { return Ok(()) };
        // The kernel's handler may have done it already. Everything it means can be done twice.
        signal::push(signal);
        match &self.duty {
            Duty::Worker(hooks) if UNWINDING.contains(&signal) => Err(interrupt(py, hooks, signal)),
            _ if STOPS.contains(&signal) && IS_STARTING.load(Relaxed) => Err(unwind(signal, 0)),
            _ => Ok(()),
        }
    }
}

/// Takes away the handlers that stand in an interpreter which the server has not started or has
/// only just started: the one that CPython installs by itself (`KeyboardInterrupt` at Ctrl-C), and
/// those of agents that begin with the interpreter. What is ignored stays so. Called in the main
/// thread, as Python demands.
///
/// # Errors
/// Not the main thread, or a Ctrl-C that has come meanwhile.
pub fn disown(py: Python<'_>) -> PyResult<()> {
    let module = py.import("_signal")?;
    let default = module.getattr("SIG_DFL")?;
    for signal in Signal::ALL {
        if module.call_method1("getsignal", (signal.number(),))?.is_callable() {
            module.call_method1("signal", (signal.number(), &default))?;
        }
    }
    // Where the server collects them already, none is to meet the default disposition.
    signal::take_back()?;
    Ok(())
}

/// In a master that starts or reads its settings again, if Python runs in it: its signals are the
/// server's in Python's eyes too, and those that stop it interrupt the import, the config file or
/// the hook that is under way, until [`started_in_master`]. To be called again when an interpreter
/// has been started.
///
/// # Errors
/// Not the main thread, or `MemoryError`.
pub fn begin_in_master() -> PyResult<()> {
    IS_STARTING.store(true, Relaxed);
    if !super::interpreter::is_running() {
        return Ok(());
    }
    ENDS_ITSELF.store(true, Relaxed);
    Python::attach(|py| show(py, Duty::Master))?;
    signal::interrupt_with(interrupt_python, &STOPS);
    Ok(())
}

/// In a new worker, whose queue is there: its signals are the server's in Python's eyes too. They
/// tell `hooks`.
///
/// # Errors
/// Not the main thread, `MemoryError`, or the system has no room for two descriptors.
pub fn begin_in_worker(hooks: &Hooks) -> PyResult<Nudge> {
    let (write, read) = wakeup::pair()?;
    IS_STARTING.store(true, Relaxed);
    ENDS_ITSELF.store(false, Relaxed);
    NUDGED.store(write.as_raw_fd(), Relaxed);
    Python::attach(|py| {
        let module = py.import("_signal")?;
        // The master's own, which it has inherited.
        module.call_method1("signal", (Signal::Chld.number(), module.getattr("SIG_DFL")?))?;
        show(py, Duty::Worker(hooks.clone()))?;
        arm(py)
    })?;
    signal::interrupt_with(interrupt_python, &[Signal::Term, Signal::Int, Signal::Quit, Signal::Abrt]);
    Ok(Nudge { _write: write, read })
}

/// In a master: the start is over, or the settings are read. Signals are the loop's alone, whatever
/// handlers that has left behind.
pub fn started_in_master() {
    IS_STARTING.store(false, Relaxed);
    ENDS_ITSELF.store(false, Relaxed);
    signal::interrupt_with(interrupt_python, &[]);
    signal::call_off_end();
    take_back();
}

/// In a worker: the application is loaded, and what it makes of signals holds. From now on TERM
/// unwinds nothing of ours.
pub fn started_in_worker() {
    IS_STARTING.store(false, Relaxed);
    signal::interrupt_with(interrupt_python, &UNWINDING);
}

/// Makes the server's signals its own again, after code that may have taken some: a preloaded
/// application, a config file, a hook.
pub fn take_back() {
    let taken = match signal::take_back() {
        Ok(false) => return,
        Ok(true) => Python::attach(|py| {
            let ours = OURS.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|ours| ours.clone_ref(py));
            ours.map_or(Ok(()), |ours| put(py, &ours))
        }),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = taken {
        log::error!("Cannot take the signals back: {error}");
    }
}

/// Has the stacks of all Python threads written to `descriptor` when the process is aborted or
/// crashes, also while one of them holds the interpreter in C code. Called after
/// [`begin_in_worker`], whose handler for ABRT then follows; called again, it goes in front of that
/// handler again.
///
/// # Errors
/// The `faulthandler` module is missing.
pub fn dump_stacks_to(descriptor: RawFd) -> PyResult<()> {
    Python::attach(|py| {
        let module = py.import("faulthandler")?;
        module.call_method0("disable")?;
        take_back();
        let options = PyDict::new(py);
        options.set_item("file", descriptor)?;
        options.set_item("all_threads", true)?;
        module.call_method("enable", (), Some(&options)).map(drop)
    })
}

/// Says what `report` has to say of the requests in flight when the worker is aborted, before
/// anything is unwound. The first one stays.
pub fn report_aborts(report: impl Fn() + Send + Sync + 'static) {
    ABORT_REPORT.get_or_init(|| Box::new(report));
}

/// From now on the process ends anyway: INT and QUIT have nothing more to say. (A Ctrl-C reaches
/// the worker twice, from the terminal and from its master.)
pub fn ignore() {
    let ignored: PyResult<()> = Python::attach(|py| {
        // Those that have come already still want to unwind somebody; let them do it here.
        let _ = py.check_signals();
        let module = py.import("_signal")?;
        for signal in [Signal::Int, Signal::Quit] {
            module.call_method1("signal", (signal.number(), module.getattr("SIG_IGN")?))?;
        }
        let _ = py.check_signals();
        Ok(())
    });
    if let Err(error) = ignored {
        // One came between two of these lines; it has had its say.
        log::debug!("Ignoring INT and QUIT from here on, after {error}");
    }
}

/// Runs handlers that are due while nothing of the application runs, in the main thread, and sees
/// to it that the next signal is told of: an event loop of the application's may have taken the
/// descriptor.
pub fn run_due_handlers(py: Python<'_>) {
    settle(py, py.check_signals());
    if let Err(error) = arm(py) {
        log::error!("Cannot hear of signals: {error}");
    }
}

/// Deals with what a handler has raised while nothing of the application ran: there is nobody to be
/// unwound. Its SystemExit ends the worker as TERM does.
pub fn settle(py: Python<'_>, outcome: PyResult<()>) {
    let Err(error) = outcome else { return };
    if !error.is_instance_of::<PySystemExit>(py) {
        log::error!("Error in a signal handler\n{}", super::errors::traceback(py, &error));
    } else if !has_unwound() {
        signal::push(Signal::Term);
    }
}

/// The application has raised SystemExit in a request, which costs that request. Where it handles
/// TERM by itself, that was most likely its handler, whose TERM would be lost: the worker ends as
/// at TERM.
pub fn exit_asked_for(py: Python<'_>) {
    let handler = py.import("_signal").and_then(|module| module.call_method1("getsignal", (Signal::Term.number(),)));
    if handler.is_ok_and(|handler| handler.is_callable() && !handler.is_instance_of::<Handler>()) {
        signal::push(Signal::Term);
    }
}

/// Runs handlers of signals that arrived outside Python code, and says whether the worker is to end
/// at once.
pub fn was_interrupted(py: Python<'_>) -> bool {
    settle(py, py.check_signals());
    has_unwound()
}

/// Whether the worker is told to stop, and not to blame for what it has not finished.
pub fn is_told_to_stop() -> bool {
    let number = UNWOUND_BY.load(Relaxed);
    STOPS.iter().any(|signal| signal.number() == number) || IS_STARTING.load(Relaxed) && signal::term_has_come()
}

fn has_unwound() -> bool {
    let number = UNWOUND_BY.load(Relaxed);
    UNWINDING.iter().any(|signal| signal.number() == number)
}

/// What unwinds the application at INT, QUIT and ABRT. An exception of the hook's takes the place
/// of `SystemExit`, as under gunicorn: the application may have an answer to it.
fn interrupt(py: Python<'_>, hooks: &Hooks, signal: Signal) -> PyErr {
    let is_abort = signal == Signal::Abrt;
    if is_abort && let Some(report) = ABORT_REPORT.get() {
        report();
    }
    let raised = hooks.interrupted(py, is_abort);
    let exit = unwind(signal, i32::from(is_abort));
    raised.err().unwrap_or(exit)
}

fn unwind(signal: Signal, status: i32) -> PyErr {
    UNWOUND_BY.store(signal.number(), Relaxed);
    PySystemExit::new_err(status)
}

/// Makes a handler, and installs it for every signal that is collected.
fn show(py: Python<'_>, duty: Duty) -> PyResult<()> {
    let ours = Py::new(py, Handler { duty })?;
    let before = OURS.lock().unwrap_or_else(PoisonError::into_inner).replace(ours.clone_ref(py));
    drop(before);
    leave_copies_alone(py)?;
    put(py, &ours)
}

/// CPython's handler comes first, and is what the kernel calls for a moment; nothing that comes
/// then is lost, because Python calls ours.
fn put(py: Python<'_>, ours: &Py<Handler>) -> PyResult<()> {
    let module = py.import("_signal")?;
    for signal in signal::collected() {
        module.call_method1("signal", (signal.number(), ours))?;
    }
    signal::take_back()?;
    py.check_signals()
}

/// Has CPython write to the nudge's descriptor when one of its handlers is due.
fn arm(py: Python<'_>) -> PyResult<()> {
    let options = PyDict::new(py);
    options.set_item("warn_on_full_buffer", false)?;
    py.import("_signal")?.call_method("set_wakeup_fd", (NUDGED.load(Relaxed),), Some(&options)).map(drop)
}

/// Has each process that the application forks begin without the server's handlers, in Python's
/// eyes as in the kernel's.
fn leave_copies_alone(py: Python<'_>) -> PyResult<()> {
    // Forks of ours inherit the registration.
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if REGISTERED.swap(true, Relaxed) {
        return Ok(());
    }
    let options = PyDict::new(py);
    options.set_item("after_in_child", wrap_pyfunction!(leave_copy_alone, py)?)?;
    py.import("posix")?.call_method("register_at_fork", (), Some(&options)).map(drop)
}

#[pyfunction]
fn leave_copy_alone(py: Python<'_>) -> PyResult<()> {
    if !fork::is_copy() {
        return Ok(());
    }
    let module = py.import("_signal")?;
    if NUDGED.load(Relaxed) != -1 {
        module.call_method1("set_wakeup_fd", (-1,))?;
    }
    let default = module.getattr("SIG_DFL")?;
    for signal in Signal::ALL {
        if module.call_method1("getsignal", (signal.number(),))?.is_instance_of::<Handler>() {
            module.call_method1("signal", (signal.number(), &default))?;
        }
    }
    Ok(())
}

/// Has CPython call the handler that stands in its table, as soon as the main thread runs Python
/// code. Called in a signal handler.
fn interrupt_python(number: i32) {
    // SAFETY: may be called from a signal handler and without the interpreter's lock (C API,
    // "Signal Handling"); an interpreter runs, else nobody would have asked for it.
    unsafe { ffi::PyErr_SetInterruptEx(number) };
    if ENDS_ITSELF.load(Relaxed) {
        signal::end_process_after(START_ENDS_WITHIN);
    }
}
