//! What runs for each request besides the app: the hooks `pre_request` and `post_request`, and a
//! logger class that writes the access log.
//!
//! Hooks and logger get gunicorn's `req` and `resp`, which cost some microseconds to make. If the
//! config has neither, there are no [`RequestHooks`].

use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::raw::latin1;
use super::response_writer::ResponseView;
use crate::exchange::RequestView;
use crate::http::proxy::Origin;
use crate::http::request::{Scheme, Span, Version};
use crate::http::request_id::is_same_key;
use crate::http::response::header_lines;
use crate::sys::socket::Peer;

/// Passes requests and responses to the operator's code.
pub struct RequestHooks {
    /// `gunicorn._bridge.Bridge`
    bridge: Py<PyAny>,
    before: bool,
    after: bool,
    logs: bool,
}

/// A request for which hooks run.
pub struct HookedRequest {
    request: Py<PyAny>,
    since: Instant,
    /// Whether no hook has set `worker.alive` to False.
    is_wanted_on: bool,
}

impl HookedRequest {
    /// For a call of [`RequestHooks::after`] alone: `request` is gunicorn's `req`, which began at
    /// the moment `since`.
    pub fn of(request: Py<PyAny>, since: Instant) -> HookedRequest {
        HookedRequest { request, since, is_wanted_on: true }
    }

    /// gunicorn's `req`.
    pub fn into_request(self) -> Py<PyAny> {
        self.request
    }
}

impl RequestHooks {
    /// `before` and `after` say whether there is a `pre_request` and a `post_request` hook, `logs`
    /// whether the access log is Python's.
    pub fn new(bridge: Py<PyAny>, before: bool, after: bool, logs: bool) -> RequestHooks {
        RequestHooks { bridge, before, after, logs }
    }

    /// Whether Python's logging writes the access log.
    pub fn logs(&self) -> bool {
        self.logs
    }

    /// Makes the `req` of `request`, whose body can be read from `input`.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn see(&self, py: Python<'_>, request: &RequestView<'_>, input: &Bound<'_, PyAny>) -> PyResult<HookedRequest> {
        let head = request.head;
        let text = |span: Span| latin1(py, span.of(request.buffer));
        let fields = PyDict::new(py);
        fields.set_item("method", text(head.method)?)?;
        fields.set_item("uri", text(head.target)?)?;
        fields.set_item("path", text(head.path)?)?;
        fields.set_item("query", text(head.query)?)?;
        fields.set_item("fragment", "")?;
        fields.set_item("version", if head.version == Version::Http10 { (1, 0) } else { (1, 1) })?;
        let headers = PyList::empty(py);
        let made = request.id.filter(|id| id.is_made);
        let is_replaced = |name: &[u8]| made.is_some_and(|id| is_same_key(name, id.header.as_bytes()));
        for (name, value) in head.headers(request.buffer).filter(|(name, _)| !is_replaced(name)) {
            headers.append((latin1(py, &name.to_ascii_uppercase())?, latin1(py, value)?))?;
        }
        if let Some(id) = made {
            headers.append((id.header.to_ascii_uppercase(), latin1(py, id.value)?))?;
        }
        fields.set_item("headers", headers)?;
        fields.set_item("scheme", if request.scheme == Scheme::Https { "https" } else { "http" })?;
        fields.set_item("peer_addr", peer(py, request.client.peer)?)?;
        fields.set_item("remote_addr", peer(py, request.client.peer)?)?;
        fields.set_item("body", input)?;
        fields.set_item(
            "proxy_protocol_info",
            request.client.proxied.map(|origin| proxy_info(py, origin)).transpose()?,
        )?;
        fields.set_item("keep_alive", head.keep_alive)?;
        let request = self.bridge.bind(py).call_method("request", (), Some(&fields))?;
        Ok(HookedRequest { request: request.unbind(), since: Instant::now(), is_wanted_on: true })
    }

    /// Calls `pre_request`.
    ///
    /// # Errors
    /// The hook raised.
    pub fn before(&self, py: Python<'_>, observed: &mut HookedRequest) -> PyResult<()> {
        if self.before {
            observed.is_wanted_on = self.bridge.call_method1(py, "pre_request", (&observed.request,))?.extract(py)?;
        }
        Ok(())
    }

    /// Applies the changes that `pre_request` has made to `req` to the request's environ.
    ///
    /// # Errors
    /// A changed value is invalid.
    pub fn amend(&self, py: Python<'_>, observed: &HookedRequest, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        if self.before {
            self.bridge.call_method1(py, "amend", (&observed.request, environ))?;
        }
        Ok(())
    }

    /// Writes the access line and calls `post_request`. Neither can fail the request: the bridge
    /// logs what they raise. Returns whether the worker must go on: a hook may have set
    /// `worker.alive` to False.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn after(
        &self,
        py: Python<'_>,
        observed: &HookedRequest,
        environ: Option<&Bound<'_, PyDict>>,
        response: Option<&ResponseView>,
    ) -> PyResult<bool> {
        let response = response.map(|response| self.response(py, observed, response)).transpose()?;
        let environ = environ.map_or_else(|| PyDict::new(py), Clone::clone);
        if self.logs && response.is_some() {
            let seconds = observed.since.elapsed().as_secs_f64();
            self.bridge.call_method1(py, "access", (&response, &observed.request, &environ, seconds))?;
        }
        if self.after {
            return self.bridge.call_method1(py, "post_request", (&observed.request, &environ, &response))?.extract(py);
        }
        Ok(observed.is_wanted_on)
    }

    fn response(&self, py: Python<'_>, observed: &HookedRequest, response: &ResponseView) -> PyResult<Py<PyAny>> {
        let headers = PyList::empty(py);
        for (name, value) in header_lines(&response.headers) {
            headers.append((latin1(py, name)?, latin1(py, value)?))?;
        }
        let fields = PyDict::new(py);
        fields.set_item("req", &observed.request)?;
        fields.set_item("status", latin1(py, &response.status)?)?;
        fields.set_item("status_code", response.code)?;
        fields.set_item("headers", headers)?;
        fields.set_item("sent", response.sent)?;
        fields.set_item("response_length", response.content_length)?;
        fields.set_item("headers_sent", response.headers_sent)?;
        fields.set_item("chunked", response.chunked)?;
        Ok(self.bridge.bind(py).call_method("response", (), Some(&fields))?.unbind())
    }
}

/// gunicorn's dict of a PROXY header.
fn proxy_info<'py>(py: Python<'py>, origin: &Origin) -> PyResult<Bound<'py, PyDict>> {
    let info = PyDict::new(py);
    info.set_item("proxy_protocol", origin.protocol())?;
    if let Origin::Client { client, proxy } = origin {
        info.set_item("client_addr", client.ip().to_string())?;
        info.set_item("client_port", client.port())?;
        info.set_item("proxy_addr", proxy.ip().to_string())?;
        info.set_item("proxy_port", proxy.port())?;
    }
    Ok(info)
}

/// `(host, port)`, or the empty path of a unix socket's client.
fn peer<'py>(py: Python<'py>, peer: &Peer) -> PyResult<Bound<'py, PyAny>> {
    Ok(match peer {
        Peer::Ip(address) => PyTuple::new(
            py,
            [address.ip().to_string().into_pyobject(py)?.into_any(), address.port().into_pyobject(py)?.into_any()],
        )?
        .into_any(),
        _ => "".into_pyobject(py)?.into_any(),
    })
}
