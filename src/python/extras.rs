//! Environ entries that few applications touch, each a small object that does its work when it is
//! first used: `gunicorn.socket` and `wsgi.early_hints`.

use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use super::response_writer::{ResponseWriter, lock};
use super::start_response::{header_pair, name_bytes, value_bytes};
use super::tls::TlsSocketMethods;
use super::waiting;
use crate::http::response;

/// `wsgi.early_hints(headers)`: sends a 103 response (RFC 8297) while the application goes on
/// working.
#[pyclass(frozen, module = "monoceros")]
pub struct EarlyHints {
    response: Arc<Mutex<ResponseWriter>>,
}

impl EarlyHints {
    /// Sends its responses through `response`.
    pub fn new(response: Arc<Mutex<ResponseWriter>>) -> Self {
        EarlyHints { response }
    }
}

#[pymethods]
impl EarlyHints {
    fn __call__(&self, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut interim = response::EARLY_HINTS.to_vec();
        for header in headers.try_iter()? {
            let (name, value) = header_pair(&decoded(header?)?)?;
            let (name, value) = (name_bytes(&name)?, value_bytes(&name, &value)?);
            if response::may_be_hinted(name) {
                response::write_header(&mut interim, name, value);
            }
        }
        response::write_head_end(&mut interim);
        Ok(lock(&self.response).send_interim(&interim)?)
    }
}

/// The pair, with bytes in it decoded as Latin-1: gunicorn takes hints as bytes, too.
fn decoded(header: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let Ok(pair) = header.cast::<PyTuple>() else { return Ok(header) };
    if !pair.iter().any(|part| part.is_instance_of::<PyBytes>()) {
        return Ok(header);
    }
    let text = |part: Bound<'_, PyAny>| -> PyResult<Py<PyAny>> {
        if part.is_instance_of::<PyBytes>() { part.call_method1("decode", ("latin-1",)) } else { Ok(part) }
            .map(Bound::unbind)
    };
    let parts = pair.iter().map(text).collect::<PyResult<Vec<_>>>()?;
    Ok(PyTuple::new(header.py(), parts)?.into_any())
}

/// `gunicorn.socket`: the client's socket, for libraries that implement WebSocket themselves.
///
/// It becomes a real `socket.socket` (of a duplicated descriptor) when an attribute is first asked
/// for; from then on the connection belongs to the application, and ends with the request. Under
/// TLS it also answers `getpeercert()` and similar methods, which do not take the connection.
#[pyclass(frozen, module = "monoceros")]
pub struct ClientSocket {
    response: Arc<Mutex<ResponseWriter>>,
    socket: PyOnceLock<Py<PyAny>>,
}

impl ClientSocket {
    /// The socket of the request that `response` answers.
    pub fn new(response: Arc<Mutex<ResponseWriter>>) -> Self {
        ClientSocket { response, socket: PyOnceLock::new() }
    }

    /// Whether the socket was used: a used object belongs to one connection and must not be given
    /// to another request.
    pub fn was_used(&self, py: Python<'_>) -> bool {
        self.socket.get(py).is_some()
    }

    fn open(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        // Bytes that the application sends itself must follow the response's earlier blocks.
        waiting::until_sent(&self.response, py)?;
        let descriptor = lock(&self.response).lend_socket()?;
        let os = py.import("os")?;
        let duplicate = os.call_method1("dup", (descriptor,))?;
        let arguments = PyDict::new(py);
        arguments.set_item("fileno", &duplicate)?;
        let made = py.import("socket")?.getattr("socket")?.call((), Some(&arguments));
        let socket = made.inspect_err(|_| {
            let _ = os.call_method1("close", (duplicate,));
        })?;
        // Python assumes that a descriptor is blocking. This one is: `lend_socket` has made it so.
        socket.call_method1("setblocking", (true,))?;
        Ok(socket.unbind())
    }
}

#[pymethods]
impl ClientSocket {
    fn __getattr__<'py>(&self, py: Python<'py>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        // Methods that ask about TLS do not take the connection.
        if TlsSocketMethods::NAMES.iter().any(|known| name == known)
            && let Some(secured) = lock(&self.response).secured()
        {
            return Bound::new(py, TlsSocketMethods::new(secured))?.into_any().getattr(name);
        }
        let socket = self.socket.get_or_try_init(py, || self.open(py))?;
        socket.bind(py).getattr(name)
    }
}
