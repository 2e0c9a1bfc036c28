//! Signals as Python sees them. For each signal that the server handles, `signal.getsignal()`
//! returns a callable, and calling it has the same effect as the signal. docs/internals/signals.md
//! tells which handler is installed when.
//!
//! The kernel calls the handler of `sys::signal`. For signals that must unwind running code (INT,
//! QUIT, ABRT; TERM too while the application is loaded) that handler has CPython call the callable
//! as well, between two bytecodes of the main thread. Its `SystemExit` then unwinds the
//! application, as under gunicorn.
//!
//! An application that installs a handler of its own replaces ours: the kernel then calls CPython's
//! handler, and CPython writes to a descriptor of ours ([`Nudge`]), which tells the event loop that
//! a handler must run. This module uses `_signal`, the C module behind `signal`, which is always
//! loaded. It must not know the worker's threads nor the master's loop.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use pyo3::exceptions::PySystemExit;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::hooks::Hooks;
use super::hub;
use crate::base::unpoisoned::Unpoisoned;
use crate::sys::fork;
use crate::sys::process;
use crate::sys::signal::{self, Signal};
use crate::sys::stack_file::{self, Written};
use crate::sys::wakeup::{self, Wakeup, WakeupReceiver};

/// The last signal that has unwound code; 0 before any.
static UNWOUND_BY: AtomicI32 = AtomicI32::new(0);

/// `worker_int` or `worker_abort` is being called.
static HOOK_RUNS: AtomicBool = AtomicBool::new(false);

/// How often a greenlet looks whether the hook is done.
const HOOK_LOOK: Duration = Duration::from_millis(10);

/// The [`Stage`] of this process, as its number.
static STAGE: AtomicU8 = AtomicU8::new(Stage::Serving as u8);

/// The server's handler in this process, for reinstalling it.
static OURS: Mutex<Option<Py<Handler>>> = Mutex::new(None);

/// The descriptor to which CPython writes when a signal has come; -1 for none.
static NUDGED: AtomicI32 = AtomicI32::new(-1);

/// The file that stacks are written to when this process is asked for them. It is open as long as
/// the process lives: the handler writes to it.
static STACKS: Mutex<Option<File>> = Mutex::new(None);

/// Logs the requests that an aborted worker is running.
static ABORT_REPORT: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// The signals that unwind a worker's application.
const UNWINDING: [Signal; 3] = [Signal::Int, Signal::Quit, Signal::Abrt];

/// Seconds that a starting master may take to end once it is told to. C code that waits for a
/// network runs no handlers.
const START_ENDS_WITHIN: u32 = 2;

/// The same for TERM in a master that reads its settings again: workers serve, and want to end
/// their requests. Shorter than the 30 seconds that Kubernetes gives to the whole stop.
const RELOAD_ENDS_WITHIN: u32 = 20;

/// How far this process has come, which decides what a signal that stops it unwinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// Nothing: the process serves.
    Serving,
    /// A running import, config file or hook, in a master that starts. The master must end even if
    /// Python does not get to run its handlers.
    StartingMaster,
    /// A running config file, in a master that reads its settings again. It must end, too, but not
    /// before its workers could.
    ReloadingMaster,
    /// The import of the application, in a worker.
    StartingWorker,
    /// A request that was not done in time, in a worker that ends.
    EndingWorker,
}

impl Stage {
    fn current() -> Stage {
        [Stage::StartingMaster, Stage::ReloadingMaster, Stage::StartingWorker, Stage::EndingWorker]
            .into_iter()
            .find(|stage| *stage as u8 == STAGE.load(Relaxed))
            .unwrap_or(Stage::Serving)
    }

    fn enter(self) {
        STAGE.store(self as u8, Relaxed);
    }
}

/// Tells a poll that Python has handlers to run.
#[derive(Debug)]
pub struct Nudge {
    /// CPython writes to its descriptor.
    _write: Wakeup,
    read: WakeupReceiver,
}

impl Nudge {
    /// Reads what was written, so that an edge-triggered poll reports the next write.
    pub fn drain(&self) {
        self.read.drain();
    }
}

impl AsRawFd for Nudge {
    /// Readable when Python has handlers to run.
    fn as_raw_fd(&self) -> RawFd {
        self.read.as_raw_fd()
    }
}

/// The callable that `signal.getsignal()` returns for the server's signals.
#[pyclass(frozen, module = "monoceros")]
struct Handler {
    duty: Duty,
}

enum Duty {
    /// A stop during the start unwinds the start; the master's loop does everything else.
    Master,
    /// Signals that end a request call the hooks.
    Worker(Hooks),
}

#[pymethods]
impl Handler {
    /// Has the effect of the signal `number`.
    fn __call__(&self, py: Python<'_>, number: i32, _frame: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let Some(signal) = Signal::from_number(number) else { return Ok(()) };
        // The kernel's handler may have pushed the signal already. Every signal may be handled
        // twice.
        signal::push(signal);
        match &self.duty {
            // The hub learns of the signal from the queue, and has nothing to unwind.
            Duty::Worker(_) if UNWINDING.contains(&signal) && hub::is_hub(py) => Ok(()),
            Duty::Worker(hooks) if UNWINDING.contains(&signal) => Err(interrupt(py, hooks, signal)),
            _ if Signal::STOPS.contains(&signal) && Stage::current() != Stage::Serving => Err(unwind(signal, 0)),
            _ => Ok(()),
        }
    }
}

/// Writes the stacks of greenlets when a process is asked for stacks.
#[pyclass(frozen, module = "monoceros")]
struct GreenletTeller(File);

#[pymethods]
impl GreenletTeller {
    /// It runs in any greenlet, so it raises nothing.
    fn __call__(&self, py: Python<'_>, _number: i32, _frame: Option<&Bound<'_, PyAny>>) {
        let text = hub::stacks(py).unwrap_or_else(|error| super::errors::traceback(py, &error));
        if let Err(error) = stack_file::write_greenlets(&self.0, &text) {
            log::debug!("Cannot write the stacks of greenlets: {error}");
        }
    }
}

/// The `sys.unraisablehook` while a worker loads the application. Python drops what is raised in a
/// destructor or in the callback of a weak reference, and a signal may come while one runs.
#[pyclass(frozen, module = "monoceros")]
struct DroppedExit {
    before: Py<PyAny>,
}

#[pymethods]
impl DroppedExit {
    /// Has the signal unwind the code that runs next, because its `SystemExit` was dropped. Other
    /// exceptions go to the previous hook.
    fn __call__(&self, py: Python<'_>, unraisable: &Bound<'_, PyAny>) -> PyResult<()> {
        let number = UNWOUND_BY.load(Relaxed);
        let is_exit = unraisable.getattr("exc_type")?.is(py.get_type::<PySystemExit>());
        if !is_exit || number == 0 || Stage::current() == Stage::Serving {
            return self.before.call1(py, (unraisable,)).map(drop);
        }
        interrupt_python(number);
        Ok(())
    }
}

/// Removes the handlers in an interpreter which the server has not started, or has only just
/// started: the one that CPython installs by itself (`KeyboardInterrupt` at Ctrl-C), and those of
/// agents that start with the interpreter. Ignored signals stay ignored. It must be called in the
/// main thread, as Python demands.
///
/// # Errors
/// The caller is not the main thread, or a Ctrl-C has come meanwhile.
pub fn disown(py: Python<'_>) -> PyResult<()> {
    let module = py.import("_signal")?;
    let default = module.getattr("SIG_DFL")?;
    for signal in Signal::ALL {
        if module.call_method1("getsignal", (signal.number(),))?.is_callable() {
            module.call_method1("signal", (signal.number(), &default))?;
        }
    }
    // Signals that the server collects already must not keep the default disposition.
    signal::take_back()?;
    Ok(())
}

/// In a master that starts, if Python runs in it: installs the server's handlers in Python, too.
/// Until [`started_in_master`] the signals that stop the master interrupt a running import, config
/// file or hook. Call it again after an interpreter was started.
///
/// # Errors
/// The caller is not the main thread, or `MemoryError`.
pub fn begin_in_master() -> PyResult<()> {
    begin(Stage::StartingMaster)
}

/// As [`begin_in_master`], in a master that reads its settings again.
///
/// # Errors
/// The caller is not the main thread, or `MemoryError`.
pub fn begin_reload_in_master() -> PyResult<()> {
    begin(Stage::ReloadingMaster)
}

fn begin(stage: Stage) -> PyResult<()> {
    stage.enter();
    if !super::interpreter::is_running() {
        return Ok(());
    }
    Python::attach(|py| install(py, Duty::Master))?;
    signal::interrupt_with(interrupt_python, &Signal::STOPS);
    Ok(())
}

/// In a new worker, which has its signal queue already: installs the server's handlers in Python,
/// too. They call `hooks`.
///
/// # Errors
/// The caller is not the main thread, `MemoryError`, or the system has no room for two descriptors.
pub fn begin_in_worker(hooks: &Hooks) -> PyResult<Nudge> {
    let (write, read) = wakeup::pair()?;
    Stage::StartingWorker.enter();
    NUDGED.store(write.as_raw_fd(), Relaxed);
    Python::attach(|py| {
        let module = py.import("_signal")?;
        // The worker has inherited the master's handler.
        module.call_method1("signal", (Signal::Chld.number(), module.getattr("SIG_DFL")?))?;
        install(py, Duty::Worker(hooks.clone()))?;
        raise_dropped_exits(py)?;
        arm(py)
    })?;
    signal::interrupt_with(interrupt_python, &[Signal::Term, Signal::Int, Signal::Quit, Signal::Abrt]);
    Ok(Nudge { _write: write, read })
}

/// In a master: the start is over, or the settings are read. From now on only the loop handles
/// signals, whatever handlers the operator's code has installed.
pub fn started_in_master() {
    Stage::Serving.enter();
    signal::interrupt_with(interrupt_python, &[]);
    signal::call_off_end();
    take_back();
}

/// In a worker: the application is loaded, and its handlers stay. From now on the server's handler
/// for TERM unwinds nothing.
pub fn started_in_worker() {
    Stage::Serving.enter();
    signal::interrupt_with(interrupt_python, &UNWINDING);
    if let Err(error) = Python::attach(drop_exits_again) {
        log::debug!("Cannot give sys.unraisablehook back: {error}");
    }
}

/// Reinstalls the server's handlers after code that may have replaced some: a preloaded
/// application, a config file, a hook.
pub fn take_back() {
    let taken = match signal::take_back() {
        Ok(false) => return,
        Ok(true) => Python::attach(|py| {
            let ours = OURS.lock().unpoisoned().as_ref().map(|ours| ours.clone_ref(py));
            ours.map_or(Ok(()), |ours| put(py, &ours))
        }),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = taken {
        log::error!("Cannot take the signals back: {error}");
    }
}

/// Has the stacks of all Python threads written to `descriptor` when the process is aborted or
/// crashes, also while C code holds the interpreter. Call it after [`begin_in_worker`]:
/// faulthandler then runs before that function's handler for ABRT. Each call puts faulthandler
/// first again.
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

/// From now on other processes can ask for the stacks of all threads of this process
/// ([`stack_file`]), which goes on. The main thread writes them, whichever thread holds the
/// interpreter.
///
/// # Errors
/// No descriptor is left, or the `faulthandler` module is missing.
pub fn show_stacks_when_asked() -> PyResult<()> {
    let mut file = stack_file::create(Written::Threads)?;
    Python::attach(|py| register_stacks(py, &file, Written::Threads))?;
    stack_file::open_for_questions(&mut file)?;
    drop(STACKS.lock().unpoisoned().replace(file));
    Ok(())
}

/// As [`show_stacks_when_asked`], for a process whose application runs in greenlets of the calling
/// thread, the main one: the greenlets' stacks follow as soon as that thread runs Python code.
///
/// # Errors
/// No descriptor is left, or `MemoryError`. Nobody can ask for stacks then.
pub fn show_greenlets_when_asked(py: Python<'_>) -> PyResult<()> {
    let mut file = stack_file::create(Written::ThreadsAndGreenlets)?;
    let teller = Py::new(py, GreenletTeller(file.try_clone()?))?;
    // The signal has no handler for a moment, and would end the process.
    let blocked = signal::block_all()?;
    let registered = chain_stacks(py, &teller, &file);
    // Nobody asks for stacks through a closed file.
    drop(STACKS.lock().unpoisoned().take());
    blocked.restore()?;
    registered?;
    stack_file::open_for_questions(&mut file)?;
    STACKS.lock().unpoisoned().replace(file);
    Ok(())
}

/// Has faulthandler write first and then call the handler in Python's table, which is `teller`.
fn chain_stacks(py: Python<'_>, teller: &Py<GreenletTeller>, file: &File) -> PyResult<()> {
    py.import("faulthandler")?.call_method1("unregister", (stack_file::signal(),))?;
    py.import("_signal")?.call_method1("signal", (stack_file::signal(), teller))?;
    register_stacks(py, file, Written::ThreadsAndGreenlets)
}

fn register_stacks(py: Python<'_>, file: &File, written: Written) -> PyResult<()> {
    let options = PyDict::new(py);
    options.set_item("file", file.as_raw_fd())?;
    options.set_item("all_threads", true)?;
    options.set_item("chain", written == Written::ThreadsAndGreenlets)?;
    py.import("faulthandler")?.call_method("register", (stack_file::signal(),), Some(&options)).map(drop)
}

/// Sets `report`, which logs the requests in flight. It is called when the worker is aborted,
/// before anything is unwound. Later calls change nothing.
pub fn report_aborts(report: impl Fn() + Send + Sync + 'static) {
    ABORT_REPORT.get_or_init(|| Box::new(report));
}

/// Unwinds the request that the main thread is at, because the worker that ends waits for it no
/// longer. It does what INT would do, without the hook.
pub fn unwind_late_request() {
    Stage::EndingWorker.enter();
    signal::interrupt_with(interrupt_python, &[Signal::Term, Signal::Int, Signal::Quit, Signal::Abrt]);
    if let Err(error) = process::kill(process::getpid(), Signal::Term) {
        log::error!("Cannot unwind the request that is late: {error}");
    }
}

/// Ignores INT and QUIT, because the process ends anyway. (A Ctrl-C reaches the worker twice, from
/// the terminal and from its master.)
pub fn ignore() {
    Stage::Serving.enter();
    let ignored: PyResult<()> = Python::attach(|py| {
        // Handlers of signals that have come already run here, where their exceptions unwind
        // nothing.
        let _ = py.check_signals();
        let module = py.import("_signal")?;
        for signal in [Signal::Int, Signal::Quit] {
            module.call_method1("signal", (signal.number(), module.getattr("SIG_IGN")?))?;
        }
        let _ = py.check_signals();
        Ok(())
    });
    if let Err(error) = ignored {
        // A signal came between two of these lines; its exception needs no handling.
        log::debug!("Ignoring INT and QUIT from here on, after {error}");
    }
}

/// Runs pending handlers while the application does not run, in the main thread. It also sets the
/// wake-up descriptor again, which an event loop of the application may have replaced.
pub fn run_due_handlers(py: Python<'_>) {
    settle(py, py.check_signals());
    if let Err(error) = arm(py) {
        log::error!("Cannot hear of signals: {error}");
    }
}

/// Handles the exception of a handler that ran while the application did not: there is no code to
/// unwind. A SystemExit ends the worker as TERM does.
pub fn settle(py: Python<'_>, outcome: PyResult<()>) {
    let Err(error) = outcome else { return };
    if !error.is_instance_of::<PySystemExit>(py) {
        log::error!("Error in a signal handler\n{}", super::errors::traceback(py, &error));
    } else if !has_unwound() {
        signal::push(Signal::Term);
    }
}

/// Called when the application has raised SystemExit in a request, which ends that request. If the
/// application handles TERM by itself, most likely its handler has raised it: the worker then ends
/// as at TERM, which would otherwise be lost.
pub fn exit_asked_for(py: Python<'_>) {
    let handler = py.import("_signal").and_then(|module| module.call_method1("getsignal", (Signal::Term.number(),)));
    if handler.is_ok_and(|handler| handler.is_callable() && !handler.is_instance_of::<Handler>()) {
        signal::push(Signal::Term);
    }
}

/// Runs the handlers of signals that came outside Python code, and returns whether the worker must
/// end at once.
pub fn was_interrupted(py: Python<'_>) -> bool {
    settle(py, py.check_signals());
    has_unwound()
}

/// In a worker whose requests run in greenlets, for a signal that the hub has read from the queue:
/// logs and calls the hook, unless a greenlet that the signal interrupted has done so.
pub fn catch_up(py: Python<'_>, hooks: &Hooks, is_abort: bool) {
    let number = UNWOUND_BY.load(Relaxed);
    let (signal, unwound) = if is_abort {
        (Signal::Abrt, number == Signal::Abrt.number())
    } else {
        (Signal::Quit, [Signal::Int, Signal::Quit].iter().any(|signal| signal.number() == number))
    };
    if unwound {
        // The hook may wait in the greenlet that was interrupted.
        while HOOK_RUNS.load(Relaxed) {
            hub::pause(py, HOOK_LOOK);
        }
        return;
    }
    let raised = interrupt(py, hooks, signal);
    if !raised.is_instance_of::<PySystemExit>(py) {
        log::error!("Exception in a hook\n{}", super::errors::traceback(py, &raised));
    }
}

/// Whether the worker was told to stop, so that unfinished requests are not its fault.
pub fn is_told_to_stop() -> bool {
    let number = UNWOUND_BY.load(Relaxed);
    Signal::STOPS.iter().any(|signal| signal.number() == number)
        || Stage::current() != Stage::Serving && signal::term_has_come()
}

fn has_unwound() -> bool {
    let number = UNWOUND_BY.load(Relaxed);
    UNWINDING.iter().any(|signal| signal.number() == number)
}

/// The exception that unwinds the application at INT, QUIT and ABRT. An exception of the hook
/// replaces `SystemExit`, as under gunicorn: the application may handle it.
fn interrupt(py: Python<'_>, hooks: &Hooks, signal: Signal) -> PyErr {
    let is_abort = signal == Signal::Abrt;
    if is_abort && let Some(report) = ABORT_REPORT.get() {
        report();
        hub::log_stacks(py);
    }
    if hub::of_this_thread(py).is_some() {
        // Set before the call of the hook, which may wait: the hub, which reads the signal
        // meanwhile, must not call the hook again.
        UNWOUND_BY.store(signal.number(), Relaxed);
    }
    HOOK_RUNS.store(true, Relaxed);
    let raised = hooks.interrupted(py, is_abort);
    HOOK_RUNS.store(false, Relaxed);
    let exit = unwind(signal, i32::from(is_abort));
    raised.err().unwrap_or(exit)
}

fn unwind(signal: Signal, status: i32) -> PyErr {
    UNWOUND_BY.store(signal.number(), Relaxed);
    PySystemExit::new_err(status)
}

/// Makes a handler, and installs it in Python for every signal that is collected.
fn install(py: Python<'_>, duty: Duty) -> PyResult<()> {
    let ours = Py::new(py, Handler { duty })?;
    let before = OURS.lock().unpoisoned().replace(ours.clone_ref(py));
    drop(before);
    leave_copies_alone(py)?;
    put(py, &ours)
}

/// Installs the server's handler in Python and then in the kernel. For a moment the kernel calls
/// CPython's handler; no signal is lost meanwhile, because Python calls ours.
fn put(py: Python<'_>, ours: &Py<Handler>) -> PyResult<()> {
    let module = py.import("_signal")?;
    for signal in signal::collected() {
        module.call_method1("signal", (signal.number(), ours))?;
    }
    signal::take_back()?;
    py.check_signals()
}

fn raise_dropped_exits(py: Python<'_>) -> PyResult<()> {
    let sys = py.import("sys")?;
    let before = sys.getattr("unraisablehook")?.unbind();
    sys.setattr("unraisablehook", Py::new(py, DroppedExit { before })?)
}

/// Restores the previous `sys.unraisablehook`, unless the application has set another.
fn drop_exits_again(py: Python<'_>) -> PyResult<()> {
    let sys = py.import("sys")?;
    if let Ok(ours) = sys.getattr("unraisablehook")?.cast::<DroppedExit>() {
        sys.setattr("unraisablehook", &ours.get().before)?;
    }
    Ok(())
}

/// Has CPython write to the nudge's descriptor when one of its handlers must run.
fn arm(py: Python<'_>) -> PyResult<()> {
    let options = PyDict::new(py);
    options.set_item("warn_on_full_buffer", false)?;
    py.import("_signal")?.call_method("set_wakeup_fd", (NUDGED.load(Relaxed),), Some(&options)).map(drop)
}

/// Removes the server's handlers, in Python and in the kernel, from each process that the
/// application forks.
fn leave_copies_alone(py: Python<'_>) -> PyResult<()> {
    // Processes that the server forks inherit the registration.
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

/// Has CPython call the handler in its table, as soon as the main thread runs Python code. May be
/// called in a signal handler.
fn interrupt_python(number: i32) {
    // SAFETY: may be called from a signal handler and without the interpreter's lock (C API,
    // "Signal Handling"); an interpreter runs, because the functions that first have the handler
    // call this one attach to it before.
    unsafe { ffi::PyErr_SetInterruptEx(number) };
    match Stage::current() {
        Stage::StartingMaster => signal::end_process_after(START_ENDS_WITHIN),
        Stage::ReloadingMaster if number == Signal::Term.number() => signal::end_process_after(RELOAD_ENDS_WITHIN),
        Stage::ReloadingMaster => signal::end_process_after(START_ENDS_WITHIN),
        Stage::StartingWorker | Stage::EndingWorker | Stage::Serving => {}
    }
}
