//! `start_response` and the `write()` it returns (PEP 3333, "The start_response() Callable").
//!
//! Everything the application says is checked here, before a byte of it can reach the wire. A
//! refusal raises in the application, which may then answer otherwise.

use std::sync::{Arc, Mutex};

use pyo3::exceptions::{PyAssertionError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use super::file_response;
use super::raw::latin1_bytes;
use super::response_writer::{Progress, ResponseHead, ResponseWriter, lock};
use super::waiting;
use crate::files::Asked;
use crate::http::response;

/// The object that has `start_response` as a method: calling a bound method costs the interpreter
/// less than calling an object.
#[pyclass(frozen, module = "monoceros")]
pub struct StartResponse {
    response: Arc<Mutex<ResponseWriter>>,
    write: Py<Write>,
}

impl StartResponse {
    /// An object for the responses of `response`.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn new(py: Python<'_>, response: &Arc<Mutex<ResponseWriter>>) -> PyResult<Self> {
        let write = Py::new(py, Write { response: response.clone() })?;
        Ok(StartResponse { response: response.clone(), write })
    }

    /// `start_response(status, headers, exc_info=None) -> write`, which holds a reference to
    /// `this`.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn callable(this: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Ok(this.getattr(pyo3::intern!(this.py(), "start_response"))?.unbind())
    }

    /// The `write()` callable that `start_response` returns.
    pub fn writer(&self) -> &Py<Write> {
        &self.write
    }
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info=None))]
    fn start_response<'py>(
        &self,
        py: Python<'py>,
        status: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Py<Write>> {
        let head = self.take_draft(exc_info)?;
        let (mut head, file) = read_head(head, status, headers).inspect_err(|_| lock(&self.response).unstart())?;
        if let Some(file) = file.filter(|_| response::may_have_body(head.code)) {
            self.put_in_place(py, &mut head, &file);
        }
        lock(&self.response).start(head);
        Ok(self.write.clone_ref(py))
    }
}

impl StartResponse {
    /// The file that the head names becomes the response's body.
    fn put_in_place(&self, py: Python<'_>, head: &mut ResponseHead, file: &Asked) {
        let request = lock(&self.response).request_head();
        if let (Some(files), Some(request)) = (head.files.clone(), request) {
            py.detach(|| file_response::put_in_place(head, &files, file, &request));
        }
    }

    /// The head to be filled in, if the response may still be given one.
    fn take_draft(&self, exc_info: Option<&Bound<'_, PyAny>>) -> PyResult<Box<ResponseHead>> {
        let progress = {
            let mut response = lock(&self.response);
            match (response.progress(), exc_info) {
                (Progress::Waiting, _) | (Progress::Started, Some(_)) => return Ok(response.take_draft()),
                (progress, _) => progress,
            }
        };
        match (progress, exc_info) {
            // The head is out: the error that the application reports is raised again (PEP 3333,
            // "Error Handling").
            (Progress::Sending | Progress::Complete, Some(exc_info)) => Err(PyErr::from_value(exc_info.get_item(1)?)),
            _ => Err(PyAssertionError::new_err("Response headers already set!")),
        }
    }
}

/// The error of `write()` in a headers iterator, after a head that was refused, in `close()`, and
/// once the request is over.
const OUT_OF_TIME: &str = "write() was called while the response has no head, or after its end";

/// The `write()` callable: sends its argument at once.
#[pyclass(frozen, module = "monoceros")]
pub struct Write {
    response: Arc<Mutex<ResponseWriter>>,
}

#[pymethods]
impl Write {
    fn __call__(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let block = as_bytes(data)?;
        {
            let mut response = lock(&self.response);
            if !response.takes_blocks() {
                return Err(PyRuntimeError::new_err(OUT_OF_TIME));
            }
            if block.as_bytes().is_empty() {
                return Ok(());
            }
            response.send(&[block], false)?;
        }
        waiting::until_kept(&self.response, py)
    }
}

/// A response block: `bytes` and nothing else (PEP 3333, "Unicode Issues").
///
/// # Errors
/// `TypeError` that names the type it got.
pub fn as_bytes<'a, 'py>(block: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    block.cast::<PyBytes>().map_err(|_| {
        let kind = block.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("the application must send bytes, not {kind}"))
    })
}

/// The head as the application gives it, and the file that it names instead of a body.
fn read_head(
    mut head: Box<ResponseHead>,
    status: &Bound<'_, PyAny>,
    headers: &Bound<'_, PyAny>,
) -> PyResult<(Box<ResponseHead>, Option<Asked>)> {
    let mut file = None;
    let status = status.cast::<PyString>().map_err(|_| PyTypeError::new_err("the response status must be a str"))?;
    if !head.known.is_status(status) {
        read_status(&mut head, status)?;
    }
    if let Ok(list) = headers.cast_exact::<PyList>() {
        for (place, header) in list.iter().enumerate() {
            read_header(&mut head, place, &header, &mut file)?;
        }
    } else {
        for (place, header) in headers.try_iter()?.enumerate() {
            read_header(&mut head, place, &header?, &mut file)?;
        }
    }
    if response::states_emptiness(head.asked, head.code) {
        head.content_length = Some(0);
        response::write_header(&mut head.headers, b"Content-Length", b"0");
    }
    Ok((head, file))
}

fn read_status(head: &mut ResponseHead, status: &Bound<'_, PyString>) -> PyResult<()> {
    let bytes = latin1_bytes(status)?;
    let code = response::parse_status(bytes)
        .map_err(|_| PyValueError::new_err(format!("invalid response status {:?}", status.to_string_lossy())))?;
    if code < 200 {
        return Err(PyValueError::new_err(format!("{code} is an interim status; a response needs a final one")));
    }
    head.code = code;
    head.status.clear();
    head.status.extend_from_slice(bytes);
    head.known.set_status(Some(status));
    Ok(())
}

fn read_header(
    head: &mut ResponseHead,
    place: usize,
    header: &Bound<'_, PyAny>,
    file: &mut Option<Asked>,
) -> PyResult<()> {
    let (name, value) = header_pair(header)?;
    if let Some(known) = head.known.find(place, &name, &value) {
        if may_be_said(&mut head.content_length, (head.asked, head.code), known.length)? {
            head.headers.extend_from_slice(&known.line);
        }
        return Ok(());
    }
    let name_bytes = name_bytes(&name)?;
    let value_bytes = value_bytes(&name, &value)?;
    if response::is_hop_by_hop(name_bytes) {
        read_hop_by_hop(head, name_bytes, value_bytes);
        return Ok(());
    }
    if response::says_live(name_bytes, value_bytes) {
        head.is_live = true;
        return Ok(());
    }
    if let Some(asked) = head.files.as_ref().and_then(|files| files.asked_by(name_bytes, value_bytes)) {
        *file = Some(asked);
        return Ok(());
    }
    let is_length = name_bytes.eq_ignore_ascii_case(b"content-length");
    let length = if is_length { Some(content_length(value_bytes)?) } else { None };
    if may_be_said(&mut head.content_length, (head.asked, head.code), length)? {
        let start = head.headers.len();
        response::write_header(&mut head.headers, name_bytes, value_bytes);
        head.known.note(place, (name, value), &head.headers[start..], length);
    }
    Ok(())
}

/// Whether a header goes out; `length` is its value if it is the Content-Length, which is noted as
/// `known`.
fn may_be_said(known: &mut Option<u64>, (asked, code): (response::Asked, u16), length: Option<u64>) -> PyResult<bool> {
    let Some(length) = length else { return Ok(true) };
    if !response::states_length(asked, code) {
        return Ok(false);
    }
    match known.replace(length) {
        None => Ok(true),
        Some(_) => Err(PyValueError::new_err("the response has two Content-Length headers")),
    }
}

/// Drops a header that belongs to the server (RFC 9110, 7.6.1). Only a WebSocket upgrade, which the
/// application runs itself on the lent socket, is let through.
fn read_hop_by_hop(head: &mut ResponseHead, name: &[u8], value: &[u8]) {
    if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"upgrade") {
        head.upgrade = true;
    } else if name.eq_ignore_ascii_case(b"upgrade") && value.eq_ignore_ascii_case(b"websocket") {
        response::write_header(&mut head.headers, name, value);
    }
}

/// A header as the application gave it: a pair of `str`. As in gunicorn, the pair may be any
/// iterable of two, but no `str`.
///
/// # Errors
/// `TypeError` for anything else.
pub fn header_pair<'py>(header: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyString>, Bound<'py, PyString>)> {
    let refuse = || PyTypeError::new_err("a response header must be a (name, value) pair of two str");
    let text = |part: &Bound<'py, PyAny>| part.cast::<PyString>().cloned().map_err(|_| refuse());
    if let Ok(pair) = header.cast::<PyTuple>() {
        let [name, value] = pair.as_slice() else { return Err(refuse()) };
        return Ok((text(name)?, text(value)?));
    }
    if header.is_instance_of::<PyString>() {
        return Err(refuse());
    }
    let mut parts = header.try_iter().map_err(|_| refuse())?;
    match (parts.next().transpose()?, parts.next().transpose()?, parts.next().transpose()?) {
        (Some(name), Some(value), None) => Ok((text(&name)?, text(&value)?)),
        _ => Err(refuse()),
    }
}

/// The bytes of a header name that may go on the wire (a token, RFC 9110, 5.1).
///
/// # Errors
/// `ValueError`.
pub fn name_bytes<'a>(name: &'a Bound<'_, PyString>) -> PyResult<&'a [u8]> {
    let bytes = latin1_bytes(name)?;
    if !response::is_header_name(bytes) {
        return Err(PyValueError::new_err(format!("invalid response header name {:?}", name.to_string_lossy())));
    }
    Ok(bytes)
}

/// The bytes of a header value that may go on the wire, without the white space around them (RFC
/// 9110, 5.5).
///
/// # Errors
/// `ValueError`; the value itself is not shown, it may be a secret.
pub fn value_bytes<'a>(name: &Bound<'_, PyString>, value: &'a Bound<'_, PyString>) -> PyResult<&'a [u8]> {
    let bytes = response::trim_header_value(latin1_bytes(value)?);
    if !response::is_header_value(bytes) {
        return Err(PyValueError::new_err(format!("invalid value of response header {:?}", name.to_string_lossy())));
    }
    Ok(bytes)
}

fn content_length(value: &[u8]) -> PyResult<u64> {
    let digits = std::str::from_utf8(value)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| PyValueError::new_err("the response's Content-Length is not a number"))
}
