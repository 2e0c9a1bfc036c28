//! Python exceptions as text, and `wsgi.errors`.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::request_context;
use crate::base::unpoisoned::Unpoisoned;
use crate::logging::{Failure, within};

/// The longest unfinished line that `wsgi.errors` keeps back. A longer one is written unfinished.
const LONGEST_LINE: usize = 64 * 1024;

/// The traceback of `error` as the interpreter prints it, without the final newline.
pub fn traceback(py: Python<'_>, error: &PyErr) -> String {
    format_exception(py, error).unwrap_or_else(|_| in_plain_words(py, error))
}

/// What a line of the log says of `error` besides its text.
pub fn failure(py: Python<'_>, error: &PyErr) -> Failure {
    let kind = error.get_type(py).fully_qualified_name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    let reason = error.value(py).str().map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned());
    Failure { kind, reason, stack: traceback(py, error) }
}

/// A `SystemExit`: the process must end with this status and, on standard error, this text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The status.
    pub status: i32,
    /// The text that `sys.exit()` was given instead of a status.
    pub text: Option<String>,
}

impl Exit {
    /// Writes the text to standard error, and returns the exit status.
    #[expect(clippy::print_stderr, reason = "Python prints it there at the end of a script")]
    pub fn perform(&self) -> i32 {
        if let Some(text) = &self.text {
            eprintln!("{text}");
        }
        self.status
    }

    /// The status and text of `error`, if it is a `SystemExit`, as the interpreter reads them at
    /// the end of a script.
    pub fn of(py: Python<'_>, error: &PyErr) -> Option<Exit> {
        if !error.is_instance_of::<PySystemExit>(py) {
            return None;
        }
        let code = error.value(py).getattr("code").ok()?;
        Some(match code.extract::<i32>() {
            Ok(status) => Exit { status, text: None },
            Err(_) if code.is_none() => Exit { status: 0, text: None },
            Err(_) => Exit { status: 1, text: code.str().ok().map(|text| text.to_string_lossy().into_owned()) },
        })
    }
}

/// The traceback where the module `traceback` cannot be imported, for example for want of
/// descriptors: without the chain of causes.
fn in_plain_words(py: Python<'_>, error: &PyErr) -> String {
    let stack = error.traceback(py).and_then(|traceback| traceback.format().ok()).unwrap_or_default();
    format!("{stack}{error}")
}

fn format_exception(py: Python<'_>, error: &PyErr) -> PyResult<String> {
    // All three parts are needed: before 3.12 the traceback of an exception that is being handled
    // in C is not on the exception itself.
    let parts = (error.get_type(py), error.value(py), error.traceback(py));
    let lines = py.import("traceback")?.call_method1("format_exception", parts)?;
    let text = PyString::new(py, "").call_method1("join", (lines,))?;
    Ok(text.cast::<PyString>()?.to_string_lossy().trim_end().to_owned())
}

/// `wsgi.errors` (PEP 3333, "Input and Error Streams"): text for the error log.
///
/// Whole lines are written at once, so that those of several workers never mix; an unfinished line
/// waits for its end, a `flush()`, or the end of the request.
#[pyclass(frozen, module = "monoceros")]
pub struct ErrorStream {
    unfinished: Mutex<String>,
    /// Whether something was written since the last `finish_line`. Usually nothing was, and then no
    /// lock is taken.
    was_written: AtomicBool,
}

impl ErrorStream {
    /// Writes an unfinished line, with a line end.
    pub fn finish_line(&self, py: Python<'_>) {
        // A line that another thread is writing at this moment is finished with the next request.
        if !self.was_written.load(Acquire) {
            return;
        }
        self.was_written.store(false, Relaxed);
        let mut line = self.take();
        if !line.is_empty() {
            line.push('\n');
            write_lines(py, &line);
        }
    }

    fn take(&self) -> String {
        std::mem::take(&mut *self.unfinished.lock().unpoisoned())
    }

    /// Adds `text`, and returns the lines that are complete now.
    fn add(&self, text: &str) -> Option<String> {
        let mut unfinished = self.unfinished.lock().unpoisoned();
        unfinished.push_str(text);
        let end = match unfinished.rfind('\n') {
            Some(newline) => newline + 1,
            None if unfinished.len() > LONGEST_LINE => unfinished.len(),
            None => return None,
        };
        let rest = unfinished.split_off(end);
        Some(std::mem::replace(&mut *unfinished, rest))
    }
}

fn write_lines(py: Python<'_>, text: &str) {
    let scope = request_context::scope(py);
    py.detach(|| within(scope, || crate::logging::write_stream(text)));
}

#[pymethods]
impl ErrorStream {
    /// An empty stream.
    #[new]
    pub fn new() -> Self {
        ErrorStream { unfinished: Mutex::new(String::new()), was_written: AtomicBool::new(false) }
    }

    /// Returns the number of characters, as any text stream does.
    fn write(&self, py: Python<'_>, text: &Bound<'_, PyString>) -> PyResult<usize> {
        let complete = self.add(&text.to_string_lossy());
        // Stored after the text: whoever sees the flag finds the text.
        self.was_written.store(true, Release);
        if let Some(lines) = complete {
            // The log may be a slow pipe: other Python threads need not wait for it.
            write_lines(py, &lines);
        }
        text.len()
    }

    fn writelines(&self, py: Python<'_>, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            self.write(py, line?.cast::<PyString>()?)?;
        }
        Ok(())
    }

    fn flush(&self, py: Python<'_>) {
        let text = self.take();
        if !text.is_empty() {
            write_lines(py, &text);
        }
    }

    /// The log belongs to the server, and stays open.
    fn close(&self, py: Python<'_>) {
        self.flush(py);
    }

    #[getter]
    fn closed(&self) -> bool {
        false
    }

    fn isatty(&self) -> bool {
        false
    }

    fn readable(&self) -> bool {
        false
    }

    fn writable(&self) -> bool {
        true
    }

    fn seekable(&self) -> bool {
        false
    }

    /// As under gunicorn there is no descriptor to return: the log may be reopened at any time, or
    /// be Python's.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        let unsupported = py.import("io")?.getattr("UnsupportedOperation")?;
        Err(PyErr::from_value(unsupported.call1(("fileno",))?))
    }

    #[getter]
    fn name(&self) -> &'static str {
        "<wsgi.errors>"
    }

    #[getter]
    fn encoding(&self) -> &'static str {
        "utf-8"
    }

    /// How characters that cannot be encoded are written.
    #[getter]
    fn errors(&self) -> &'static str {
        "replace"
    }
}
