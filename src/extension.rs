//! The wheel's entry point: the extension module `monoceros._monoceros`, which runs the library
//! inside the interpreter that imported it.
//!
//! Importing it starts nothing. `main` does not return to its caller: it raises `SystemExit`, in
//! the master and in each worker, as gunicorn does. So the `finally` blocks of its callers run
//! (`coverage run` saves its data there). The interpreter is not finalized behind them.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::exceptions::{PyRuntimeError, PySystemExit};
use pyo3::prelude::*;

use crate::ExecCommand;
use crate::python::embedder::Embedder;
use crate::python::{facade, interpreter, signals};
use crate::sys::process;

/// Whether an embedding program has started its server.
static IS_SERVING: AtomicBool = AtomicBool::new(false);

// Otherwise a free-threaded interpreter would turn its lock on again (decision 33).
#[pymodule(gil_used = false)]
fn _monoceros(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(main, module)?)?;
    module.add_function(wrap_pyfunction!(carry_gunicorn, module)?)
}

/// Serves as the command line in `sys.argv` says, and ends the process.
#[pyfunction]
fn main(py: Python<'_>) -> PyResult<()> {
    let exec_command = exec_command(py)?;
    IS_SERVING.store(true, Relaxed);
    signals::disown(py)?;
    process::open_standard_streams()?;
    // Detached from here on: code that needs the interpreter attaches.
    let status = py.detach(|| crate::run(exec_command));
    Err(leave_with(py, status))
}

/// The exception that unwinds the frames of the server's callers, once the server has ended with
/// `status`.
fn leave_with(py: Python<'_>, status: i32) -> PyErr {
    // Python waits for threads before it calls exit functions. Where the server has waited for them
    // already, the registration is refused, and the wait is over at once.
    let before_threads = py
        .import("threading")
        .and_then(|threading| threading.call_method1("_register_atexit", (wrap_pyfunction!(end_process, py)?, status)));
    drop(before_threads);
    let at_exit =
        wrap_pyfunction!(end_process, py).and_then(|end| py.import("atexit")?.call_method1("register", (end, status)));
    at_exit.err().unwrap_or_else(|| PySystemExit::new_err(status))
}

/// The exit function that runs first, since it was registered last, and the only one: what the
/// application has registered has run with the server's end. Finalizing the interpreter would take
/// time, and can crash while daemon threads run.
#[expect(clippy::exit, reason = "this is the end of an entry point")]
#[pyfunction]
fn end_process(py: Python<'_>, status: i32) {
    interpreter::flush();
    py.detach(|| std::process::exit(status))
}

/// Makes the `gunicorn` package that the server carries importable, with a `BaseApplication` whose
/// `run()` serves here.
#[pyfunction]
fn carry_gunicorn(py: Python<'_>) -> PyResult<()> {
    facade::install(py)?;
    let native = py.import("_monoceros")?;
    native.add_function(wrap_pyfunction!(run_command_line, &native)?)?;
    native.add_function(wrap_pyfunction!(run_application, &native)?)
}

/// As [`main`], for programs that call `gunicorn.app.wsgiapp.run()`.
#[pyfunction]
fn run_command_line(py: Python<'_>) -> PyResult<()> {
    claim_process()?;
    main(py)
}

/// Fails if this process runs a server already: a worker that loads a module which runs an
/// application would otherwise become a master.
fn claim_process() -> PyResult<()> {
    if IS_SERVING.swap(true, Relaxed) {
        return Err(PyRuntimeError::new_err("this process runs a server already"));
    }
    Ok(())
}

/// Serves what `application` (`gunicorn.app.base.BaseApplication`) says, and ends the process.
#[pyfunction]
fn run_application(application: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = application.py();
    claim_process()?;
    let (exec_command, embedder) = (exec_command(py)?, Embedder::new(application)?);
    signals::disown(py)?;
    process::open_standard_streams()?;
    let status = py.detach(|| crate::run_embedded(exec_command, embedder));
    Err(leave_with(py, status))
}

fn exec_command(py: Python<'_>) -> PyResult<ExecCommand> {
    let sys = py.import("sys")?;
    let argv: Vec<OsString> = sys.getattr("argv")?.extract()?;
    let whole: Vec<OsString> = sys.getattr("orig_argv")?.extract()?;
    // Empty or None if the interpreter could not find itself.
    let executable: Option<OsString> = sys.getattr("executable")?.extract()?;
    let executable = executable.filter(|path| !path.is_empty()).or_else(|| whole.first().cloned()).unwrap_or_default();
    let Start { program, command } = start(&argv, &whole, executable, process::executed_path());
    let program = std::path::absolute(&program).map_or(program, Into::into);
    Ok(ExecCommand::here(program, command, argv))
}

/// What to execute for a start like this one, and what its command line begins with.
#[derive(Debug, PartialEq, Eq)]
struct Start {
    program: OsString,
    command: Vec<OsString>,
}

/// `argv` and `whole` are the server's and the interpreter's arguments; `executed` is what the
/// kernel was told to execute.
///
/// A script is executed again by its own name, because it may have another interpreter by then (a
/// new virtualenv in the place of the old one). The kernel has put that name after the
/// interpreter's own arguments (execve(2), "Interpreter scripts").
fn start(argv: &[OsString], whole: &[OsString], executable: OsString, executed: Option<OsString>) -> Start {
    let own = argv.len().saturating_sub(1);
    let (command, rest) = whole.split_at(whole.len().saturating_sub(own));
    if let Some(script) = executed.filter(|path| command.last() == Some(path)) {
        return Start { command: vec![script.clone()], program: script };
    }
    // If a program has changed sys.argv: the script, and what sys.argv says now.
    let by_hand = || vec![executable.clone(), argv.first().cloned().unwrap_or_default()];
    let command = if rest == &argv[argv.len() - own..] { command.to_vec() } else { by_hand() };
    Start { program: executable, command }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    /// Program and command of the next start, as one text.
    fn next(argv: &str, whole: &str, executed: &str) -> String {
        let Start { program, command } =
            start(&words(argv), &words(whole), "/venv/bin/python".into(), Some(executed.into()));
        format!("{} = {}", program.display(), command.join(" ".as_ref()).display())
    }

    #[test]
    fn the_next_start_is_like_this_one() {
        let python = "/venv/bin/python";
        // sys.argv, sys.orig_argv, what was executed, what will be
        let table = [
            ("/bin/mono a -w 2", "/venv/bin/python /bin/mono a -w 2", "/bin/mono", "/bin/mono = /bin/mono"),
            ("bin/mono a", "/venv/bin/python -s bin/mono a", "bin/mono", "bin/mono = bin/mono"),
            ("bin/mono a", "/venv/bin/python bin/mono a", python, "/venv/bin/python = /venv/bin/python bin/mono"),
            ("/__main__.py a", "python -X dev -m mono a", python, "/venv/bin/python = python -X dev -m mono"),
            ("mine.py set by hand", "python mine.py", python, "/venv/bin/python = /venv/bin/python mine.py"),
            ("", "", "", "/venv/bin/python = "),
        ];
        for (argv, whole, executed, expected) in table {
            assert_eq!(next(argv, whole, executed), expected);
        }
    }
}
