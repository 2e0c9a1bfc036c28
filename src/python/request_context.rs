//! Which request Python code runs for, so that lines which the application logs can name the
//! request.
//!
//! A context variable (PEP 567) holds the request's ids: each thread and each greenlet has its own
//! value, and code that the application runs with a copied context has that value as well. Where
//! neither `request_id_header` nor a JSON format is set, no request is noted.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::exchange::RequestView;
use crate::http::request_id::{TraceParent, find_trace};
use crate::logging::{RequestIds, Scope, TraceIds};

/// Whether requests are noted.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// The context variable.
static VARIABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Its value.
#[pyclass(frozen, module = "monoceros")]
struct CurrentRequest(RequestIds);

/// From now on requests are noted.
///
/// # Errors
/// The module `contextvars` cannot be imported.
pub fn begin(py: Python<'_>) -> PyResult<()> {
    VARIABLE.get_or_try_init(py, || {
        let none = [("default", py.None())];
        let keywords = pyo3::types::IntoPyDict::into_py_dict(none, py)?;
        let class = py.import("contextvars")?.getattr("ContextVar")?;
        Ok::<_, PyErr>(class.call(("monoceros.request",), Some(&keywords))?.unbind())
    })?;
    IS_ON.store(true, Relaxed);
    Ok(())
}

/// The request's id, and its place in a trace, by which other hops know it.
pub fn ids_of(request: &RequestView<'_>) -> RequestIds {
    let id = request.id.map(|id| String::from_utf8_lossy(id.value).into_owned());
    RequestIds { id, trace: find_trace(request.head, request.buffer).map(trace_ids) }
}

/// A place in a trace, as the log shows it.
pub(super) fn trace_ids(trace: TraceParent<'_>) -> TraceIds {
    let TraceParent { trace_id, span_id, is_sampled } = trace;
    TraceIds { trace_id: trace_id.to_owned(), span_id: span_id.to_owned(), is_sampled }
}

/// Notes that this thread or greenlet runs code for `request` from now on.
pub(super) fn enter(py: Python<'_>, request: &RequestView<'_>) {
    if !IS_ON.load(Relaxed) {
        return;
    }
    let ids = ids_of(request);
    // An earlier request whose greenlet was killed may have left its value.
    let noted = if ids.is_empty() {
        set(py, py.None())
    } else {
        Py::new(py, CurrentRequest(ids)).and_then(|ids| set(py, ids.into_any()))
    };
    report(py, noted);
}

/// Notes that this thread or greenlet runs code for no request from now on.
pub(super) fn leave(py: Python<'_>) {
    if IS_ON.load(Relaxed) {
        let noted = set(py, py.None());
        report(py, noted);
    }
}

/// The scope of records that this thread or greenlet writes.
pub(super) fn scope(py: Python<'_>) -> Scope {
    if !IS_ON.load(Relaxed) {
        return Scope::default();
    }
    let value = VARIABLE.get(py).and_then(|variable| variable.call_method0(py, pyo3::intern!(py, "get")).ok());
    let request = value.and_then(|value| value.bind(py).cast::<CurrentRequest>().ok().map(|ids| ids.get().0.clone()));
    Scope::from(request.unwrap_or_default())
}

fn set(py: Python<'_>, value: Py<PyAny>) -> PyResult<()> {
    let Some(variable) = VARIABLE.get(py) else { return Ok(()) };
    variable.call_method1(py, pyo3::intern!(py, "set"), (value,)).map(drop)
}

/// Logs an error, which can only be a lack of memory; the request goes on without being noted.
fn report(py: Python<'_>, noted: PyResult<()>) {
    if let Err(error) = noted {
        log::debug!("Cannot note the request: {}", error.value(py));
    }
}
