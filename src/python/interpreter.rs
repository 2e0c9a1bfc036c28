//! Starts CPython inside the program, tells it about forks, and ends it as at the end of a script.
//!
//! The interpreter is started by the process that first needs it: the master for a Python config
//! file or a preloaded app, else each worker. In the wheel it runs from the beginning. The thread
//! that starts it releases its lock at once; every thread attaches when it needs Python
//! (`Python::attach`).

use std::ffi::{CString, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use super::errors::traceback;
use super::python_home::{self, PythonHome};
use super::{environment, facade, signals};
use crate::sys::fork::{self, Forked};

/// Why the interpreter did not start.
#[derive(Debug)]
pub enum StartError {
    /// An argument that cannot be passed to Python.
    Argument(String),
    /// CPython's own reason.
    Refused(String),
    /// The standard library belongs to another CPython than the one that is linked.
    ForeignLibrary(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Argument(reason) => write!(f, "cannot start the Python interpreter: {reason}"),
            StartError::Refused(reason) => {
                write!(f, "cannot start the Python interpreter: {reason}; {}", python_home::what_is_linked())
            }
            StartError::ForeignLibrary(prefix) => write!(
                f,
                "the standard library in {prefix} is another Python's; {}. Use a virtual environment made by that one, or \
                 build monoceros with PYO3_PYTHON set to the other, or install its wheel there",
                python_home::what_is_linked()
            ),
        }
    }
}

/// Whether an interpreter runs in this process.
pub fn is_running() -> bool {
    // SAFETY: may be called at any time, also before initialisation (C API, "Before Python
    // Initialization").
    unsafe { ffi::Py_IsInitialized() != 0 }
}

/// Starts the interpreter in `home` with `argv` as `sys.argv`. An interpreter that already runs
/// keeps its home and arguments; only the variables that the server has removed are removed from
/// its `os.environ`.
///
/// Python's own signal handlers are not installed: the server handles signals.
///
/// # Errors
/// CPython's reason, for example a standard library that it cannot find.
pub fn start(home: &PythonHome, argv: &[OsString]) -> Result<(), StartError> {
    if is_running() {
        environment::follow();
        return Python::attach(|py| facade::install(py).map_err(|error| StartError::Refused(traceback(py, &error))));
    }
    initialize(home, argv)?;
    // SAFETY: this thread has just initialised the interpreter and holds its lock. The thread state
    // stays registered for this thread, so that attaching finds it again; the pointer is not
    // needed.
    unsafe { ffi::PyEval_SaveThread() };
    Python::attach(check_standard_library)?;
    Python::attach(|py| {
        let named = home.program.as_ref().map_or(Ok(()), |program| name_main_module(py, program));
        let prepared = named.and_then(|()| signals::disown(py)).and_then(|()| facade::install(py));
        prepared.map_err(|error| StartError::Refused(traceback(py, &error)))
    })
}

/// Gives `__main__` the attributes that it has in a script: programs look there for their name or
/// their folder.
///
/// A child interpreter of `multiprocessing` would run the program's file again, which is not
/// Python. The name in the spec, `__main__`, prevents this: it is that of a package started by
/// `python -m`, whose `__main__` is not run again either.
fn name_main_module(py: Python<'_>, program: &Path) -> PyResult<()> {
    let main = py.import("__main__")?;
    main.setattr("__file__", program.as_os_str())?;
    let spec = py.import("_frozen_importlib")?.getattr("ModuleSpec")?.call1(("__main__", py.None()))?;
    main.setattr("__spec__", spec)
}

/// Some distributions build C modules into their interpreter and libpython, so these modules are no
/// files of the standard library. Another libpython of the same version starts with that standard
/// library, but lacks those modules.
fn check_standard_library(py: Python<'_>) -> Result<(), StartError> {
    py.import("math").map(drop).map_err(|_| {
        let prefix = py.import("sys").and_then(|sys| sys.getattr("base_prefix"));
        StartError::ForeignLibrary(prefix.map_or_else(|_| "?".to_owned(), |prefix| prefix.to_string()))
    })
}

/// Imports the modules of the standard library that the server will need later, when it may have no
/// right to read them.
///
/// # Errors
/// One cannot be imported.
pub fn import_own_needs() -> PyResult<()> {
    Python::attach(|py| ["ast", "threading", "traceback"].iter().try_for_each(|name| py.import(*name).map(drop)))
}

/// Runs `fork` with the interpreter, if there is one, told before and after (`PyOS_BeforeFork(3)`
/// and its siblings), so that the child's locks and thread list are sound.
///
/// # Errors
/// Those of `fork`.
pub fn around_fork(fork: impl FnOnce() -> io::Result<Forked>) -> io::Result<Forked> {
    if !is_running() {
        return fork();
    }
    Python::attach(|py| {
        // Otherwise each child prints the buffered text again.
        flush_standard_streams(py);
        if let Some(debuggers_fork) = debuggers_fork(py) {
            return fork::by(|| call_fork(&debuggers_fork));
        }
        // SAFETY: attached, as all three demand; each fork attempt is followed by exactly one of
        // the two others, in the right process.
        unsafe {
            ffi::PyOS_BeforeFork();
            let forked = fork();
            match forked {
                Ok(Forked::Child) => ffi::PyOS_AfterFork_Child(),
                Ok(Forked::Parent(_)) | Err(_) => ffi::PyOS_AfterFork_Parent(),
            }
            forked
        }
    })
}

/// The `os.fork` of pydevd, the debugger of debugpy and PyCharm, if it is loaded in this process:
/// this function has the debugger follow into the child. Other replacements of `os.fork` (gevent's)
/// watch the child in the parent, which is the master's task.
fn debuggers_fork(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    if !has_imported(py, "pydevd").unwrap_or(false) {
        return None;
    }
    let fork = py.import("os").and_then(|os| os.getattr("fork")).ok();
    fork.filter(|fork| !fork.is_instance_of::<PyCFunction>())
}

/// Calls an `os.fork`, which tells the interpreter by itself. Returns what fork(2) does.
fn call_fork(fork: &Bound<'_, PyAny>) -> io::Result<i32> {
    fork.call0().and_then(|pid| pid.extract()).map_err(io::Error::from)
}

/// Ends Python's part of the process as the end of a script does: waits for non-daemon threads,
/// runs `atexit`, flushes the standard streams. The interpreter is not finalized: the process is
/// about to end, and finalizing it while daemon threads run can crash.
pub fn wind_down() {
    if !is_running() {
        return;
    }
    Python::attach(|py| {
        // Code that has not imported `threading` has started no thread to wait for.
        if has_imported(py, "threading").unwrap_or(true) {
            call_at_the_end(py, "threading", "_shutdown");
        }
    });
    run_exit_functions();
}

/// As [`wind_down`], without waiting for threads: those that a hook has started must not delay the
/// end of the master.
pub fn run_exit_functions() {
    if !is_running() {
        return;
    }
    Python::attach(|py| {
        call_at_the_end(py, "atexit", "_run_exitfuncs");
        flush_standard_streams(py);
    });
}

/// Whether the module was imported.
///
/// # Errors
/// An application has replaced `sys.modules`.
pub fn has_imported(py: Python<'_>, module: &str) -> PyResult<bool> {
    py.import("sys")?.getattr("modules")?.contains(module)
}

fn call_at_the_end(py: Python<'_>, module: &str, function: &str) {
    if let Err(error) = py.import(module).and_then(|module| module.call_method0(function)) {
        log::error!("Error at the end of the process\n{}", traceback(py, &error));
    }
}

/// Flushes Python's standard streams, for a process that ends without ending Python
/// (`--check-config`).
pub fn flush() {
    if is_running() {
        Python::attach(flush_standard_streams);
    }
}

fn flush_standard_streams(py: Python<'_>) {
    let Ok(sys) = py.import("sys") else { return };
    for name in ["stdout", "stderr"] {
        // The app may have closed or replaced the stream; that is no error.
        let _ = sys.getattr(name).and_then(|stream| stream.call_method0("flush"));
    }
}

fn initialize(home: &PythonHome, argv: &[OsString]) -> Result<(), StartError> {
    if home.is_virtual {
        environment::set("PYTHONHOME", None);
    }
    // SAFETY: `config` is initialised by PyConfig_InitPythonConfig before any use, its strings are
    // set through the functions made for it, and it is cleared on every way out. No interpreter
    // runs yet, and this is the process's main thread.
    unsafe {
        let mut config = std::mem::zeroed::<ffi::PyConfig>();
        ffi::PyConfig_InitPythonConfig(&mut config);
        config.install_signal_handlers = 0;
        config.parse_argv = 0;
        let status = configure(&mut config, home, argv).and_then(|()| check(ffi::Py_InitializeFromConfig(&config)));
        ffi::PyConfig_Clear(&mut config);
        status
    }
}

/// Sets `sys.executable` and `sys.argv`.
///
/// # Safety
/// `config` was initialised and the interpreter is not running.
unsafe fn configure(config: &mut ffi::PyConfig, home: &PythonHome, argv: &[OsString]) -> Result<(), StartError> {
    let argv: Vec<CString> = argv.iter().map(|argument| c_string(argument.clone())).collect::<Result<_, _>>()?;
    let mut pointers: Vec<*mut std::ffi::c_char> = argv.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    let config_pointer: *mut ffi::PyConfig = config;
    // SAFETY: the caller's promise; every pointer handed over outlives its call.
    unsafe {
        if let Some(executable) = &home.executable {
            let executable = c_string(executable.as_os_str().to_owned())?;
            // getpath finds pyvenv.cfg by program_name (PEP 405), even if `executable` is set.
            let fields = [&raw mut (*config_pointer).program_name, &raw mut (*config_pointer).executable];
            for field in fields {
                check(ffi::PyConfig_SetBytesString(config_pointer, field, executable.as_ptr()))?;
            }
        }
        check(ffi::PyConfig_SetBytesArgv(
            config_pointer,
            pointers.len() as ffi::Py_ssize_t,
            pointers.as_mut_ptr().cast(),
        ))
    }
}

fn c_string(text: OsString) -> Result<CString, StartError> {
    CString::new(text.into_vec()).map_err(|error| {
        let shown = OsString::from_vec(error.into_vec());
        StartError::Argument(format!("NUL byte in {:?}", shown.as_bytes()))
    })
}

fn check(status: ffi::PyStatus) -> Result<(), StartError> {
    // SAFETY: a PyStatus is plain data; its message, if any, is a static string of the interpreter.
    unsafe {
        if ffi::PyStatus_Exception(status) == 0 {
            return Ok(());
        }
        let message = if status.err_msg.is_null() {
            "no reason given".to_owned()
        } else {
            std::ffi::CStr::from_ptr(status.err_msg).to_string_lossy().into_owned()
        };
        Err(StartError::Refused(message))
    }
}
