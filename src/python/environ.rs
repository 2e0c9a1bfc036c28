//! A request as the `environ` dict of PEP 3333, with gunicorn's keys (contract: REQUEST_METHOD to `gunicorn.socket`).
//!
//! What is the same for every request of a listener lives in a template that is copied; header names become interned keys once.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::raw::{insert_if_absent, latin1};
use crate::exchange::RequestView;
use crate::http::request::{HeaderSpan, Scheme, decode_path};
use crate::sys::socket::Peer;

/// Header names are the clients' to choose: past this many different ones, new names are not remembered.
const MOST_NAMES: usize = 512;

/// What an environ says of a listener and the server, the same for every request that comes in on it.
#[derive(Debug, Clone)]
pub struct Site {
    /// `SERVER_NAME` and `SERVER_PORT`; none on a unix socket, where the Host header says them.
    pub server: Option<(String, String)>,
    /// The path of a unix socket: `SERVER_NAME` when there is no Host header either.
    pub socket_path: String,
    /// `wsgi.multithread`
    pub multithread: bool,
    /// `wsgi.multiprocess`
    pub multiprocess: bool,
    /// `SCRIPT_NAME` of the server's environment: the prefix under which the app is mounted.
    pub script_name: String,
}

/// Objects of the server that every environ holds.
pub struct Fixtures<'a> {
    /// `wsgi.input`
    pub input: &'a Bound<'a, PyAny>,
    /// `wsgi.errors`
    pub errors: &'a Bound<'a, PyAny>,
    /// `wsgi.early_hints`
    pub early_hints: &'a Bound<'a, PyAny>,
    /// `gunicorn.socket`
    pub socket: &'a Bound<'a, PyAny>,
    /// `wsgi.file_wrapper`
    pub file_wrapper: &'a Bound<'a, PyAny>,
}

/// The request's path does not lie below `SCRIPT_NAME`: a proxy or the operator has it wrong. Answered with 500, as gunicorn does.
#[derive(Debug)]
pub struct OutsideScriptName {
    path: String,
    script_name: String,
}

impl OutsideScriptName {
    /// gunicorn's sentence, for the error page.
    pub fn message(&self) -> String {
        format!("Request path {} does not start with SCRIPT_NAME {}", self.path, self.script_name)
    }
}

/// Why there is no environ.
pub enum EnvironError {
    /// The request cannot be served under the `SCRIPT_NAME` there is.
    Misplaced(OutsideScriptName),
    /// Python failed; `MemoryError` in practice.
    Python(PyErr),
}

impl From<PyErr> for EnvironError {
    fn from(error: PyErr) -> Self {
        EnvironError::Python(error)
    }
}

/// The constant part of a site's environs.
pub struct Template {
    dict: Py<PyDict>,
    site: Site,
}

impl Template {
    /// Builds the template.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn new(py: Python<'_>, site: &Site, fixtures: &Fixtures<'_>) -> PyResult<Self> {
        let dict = PyDict::new(py);
        dict.set_item("wsgi.version", PyTuple::new(py, [1, 0])?)?;
        dict.set_item("wsgi.input", fixtures.input)?;
        dict.set_item("wsgi.errors", fixtures.errors)?;
        dict.set_item("wsgi.multithread", site.multithread)?;
        dict.set_item("wsgi.multiprocess", site.multiprocess)?;
        dict.set_item("wsgi.run_once", false)?;
        dict.set_item("wsgi.file_wrapper", fixtures.file_wrapper)?;
        dict.set_item("wsgi.input_terminated", true)?;
        dict.set_item("wsgi.early_hints", fixtures.early_hints)?;
        dict.set_item("gunicorn.socket", fixtures.socket)?;
        dict.set_item("SERVER_SOFTWARE", concat!("monoceros/", env!("CARGO_PKG_VERSION")))?;
        dict.set_item("SCRIPT_NAME", &site.script_name)?;
        if let Some((name, port)) = &site.server {
            dict.set_item("SERVER_NAME", name)?;
            dict.set_item("SERVER_PORT", port)?;
        }
        Ok(Template { dict: dict.unbind(), site: site.clone() })
    }
}

/// Turns requests into environs. One for each thread that runs the app.
pub struct EnvironBuilder {
    keys: Keys,
    names: HashMap<Box<[u8]>, Name>,
    path: Vec<u8>,
}

/// The keys and values that are always the same, made once.
struct Keys {
    request_method: Py<PyString>,
    query_string: Py<PyString>,
    raw_uri: Py<PyString>,
    path_info: Py<PyString>,
    server_protocol: Py<PyString>,
    remote_addr: Py<PyString>,
    remote_port: Py<PyString>,
    url_scheme: Py<PyString>,
    empty: Py<PyString>,
    http: Py<PyString>,
    https: Py<PyString>,
    http_10: Py<PyString>,
    http_11: Py<PyString>,
    get: Py<PyString>,
    post: Py<PyString>,
}

/// A header name's place in the environ.
struct Name {
    key: Py<PyString>,
    kind: NameKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NameKind {
    /// Repeated fields are joined with `,` (RFC 9110, 5.3).
    List,
    /// Repeated fields are joined with `; ` (RFC 6265, 5.4; RFC 9113, 8.2.3).
    Cookie,
    /// A trusted proxy's `SCRIPT_NAME`: sets the environ's own besides.
    ScriptName,
}

impl EnvironBuilder {
    /// An empty builder.
    pub fn new(py: Python<'_>) -> Self {
        let text = |text| PyString::intern(py, text).unbind();
        let keys = Keys {
            request_method: text("REQUEST_METHOD"),
            query_string: text("QUERY_STRING"),
            raw_uri: text("RAW_URI"),
            path_info: text("PATH_INFO"),
            server_protocol: text("SERVER_PROTOCOL"),
            remote_addr: text("REMOTE_ADDR"),
            remote_port: text("REMOTE_PORT"),
            url_scheme: text("wsgi.url_scheme"),
            empty: text(""),
            http: text("http"),
            https: text("https"),
            http_10: text("HTTP/1.0"),
            http_11: text("HTTP/1.1"),
            get: text("GET"),
            post: text("POST"),
        };
        EnvironBuilder { keys, names: HashMap::new(), path: Vec::new() }
    }

    /// The environ of `request`.
    ///
    /// # Errors
    /// The path lies outside `SCRIPT_NAME`, or Python failed.
    pub fn build<'py>(
        &mut self,
        py: Python<'py>,
        template: &Template,
        request: RequestView<'_>,
    ) -> Result<Bound<'py, PyDict>, EnvironError> {
        let environ = template.dict.bind(py).copy()?;
        self.set_request_line(py, &environ, request)?;
        self.set_peer(py, &environ, request)?;
        let mut script_name = None;
        for header in &request.head.headers {
            if let Some(value) = self.set_header(py, &environ, request.buffer, header)? {
                script_name = Some(value);
            }
        }
        if template.site.server.is_none() {
            set_server_from_host(py, &environ, &template.site, request.scheme)?;
        }
        self.set_path(py, &environ, request, &template.site, script_name)?;
        Ok(environ)
    }

    fn set_request_line(&self, py: Python<'_>, environ: &Bound<'_, PyDict>, request: RequestView<'_>) -> PyResult<()> {
        let (keys, head, buffer) = (&self.keys, request.head, request.buffer);
        match head.method.of(buffer) {
            b"GET" => environ.set_item(&keys.request_method, &keys.get)?,
            b"POST" => environ.set_item(&keys.request_method, &keys.post)?,
            method => environ.set_item(&keys.request_method, latin1(py, method)?)?,
        }
        match head.query.of(buffer) {
            b"" => environ.set_item(&keys.query_string, &keys.empty)?,
            query => environ.set_item(&keys.query_string, latin1(py, query)?)?,
        }
        environ.set_item(&keys.raw_uri, latin1(py, head.target.of(buffer))?)?;
        match head.version_text.of(buffer) {
            b"HTTP/1.1" => environ.set_item(&keys.server_protocol, &keys.http_11)?,
            b"HTTP/1.0" => environ.set_item(&keys.server_protocol, &keys.http_10)?,
            other => environ.set_item(&keys.server_protocol, latin1(py, other)?)?,
        }
        let scheme = if request.scheme == Scheme::Https { &keys.https } else { &keys.http };
        environ.set_item(&keys.url_scheme, scheme)
    }

    fn set_peer(&self, py: Python<'_>, environ: &Bound<'_, PyDict>, request: RequestView<'_>) -> PyResult<()> {
        match request.peer {
            Peer::Ip(address) => {
                environ.set_item(&self.keys.remote_addr, latin1(py, request.remote_addr.as_bytes())?)?;
                let mut digits = itoa::Buffer::new();
                environ.set_item(&self.keys.remote_port, latin1(py, digits.format(address.port()).as_bytes())?)
            }
            // No port, as gunicorn has it.
            Peer::Unix => environ.set_item(&self.keys.remote_addr, &self.keys.empty),
        }
    }

    /// Adds a header; returns the value of a `SCRIPT_NAME` one.
    fn set_header(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        buffer: &[u8],
        header: &HeaderSpan,
    ) -> PyResult<Option<Vec<u8>>> {
        let (name, value) = (header.name.of(buffer), header.value.of(buffer));
        let value_text = latin1(py, value)?;
        if let Some(known) = self.names.get(name) {
            return add_header(py, environ, known, value, &value_text);
        }
        let known = environ_name(py, name)?;
        let script_name = add_header(py, environ, &known, value, &value_text)?;
        if self.names.len() < MOST_NAMES {
            self.names.insert(name.into(), known);
        }
        Ok(script_name)
    }

    fn set_path(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        request: RequestView<'_>,
        site: &Site,
        header: Option<Vec<u8>>,
    ) -> Result<(), EnvironError> {
        let raw = request.head.path.of(request.buffer);
        let prefix = header.as_deref().unwrap_or(site.script_name.as_bytes());
        // The prefix is taken off the path as it was sent, before decoding, as gunicorn does.
        let Some(below) = raw.strip_prefix(prefix) else {
            let shown = |bytes| String::from_utf8_lossy(bytes).into_owned();
            return Err(EnvironError::Misplaced(OutsideScriptName { path: shown(raw), script_name: shown(prefix) }));
        };
        if header.is_some() {
            environ.set_item("SCRIPT_NAME", latin1(py, prefix)?)?;
        }
        let path = if memchr::memchr(b'%', below).is_some() {
            self.path.clear();
            decode_path(below, &mut self.path);
            latin1(py, &self.path)?
        } else {
            latin1(py, below)?
        };
        Ok(environ.set_item(&self.keys.path_info, path)?)
    }
}

fn environ_name(py: Python<'_>, name: &[u8]) -> PyResult<Name> {
    let mut key = b"HTTP_".to_vec();
    key.extend(name.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }));
    let kind = match &key[..] {
        b"HTTP_COOKIE" => NameKind::Cookie,
        // Only `SCRIPT_NAME` itself, which the parser lets through from trusted peers alone; `Script-Name` is anybody's.
        b"HTTP_SCRIPT_NAME" if name.contains(&b'_') => NameKind::ScriptName,
        _ => NameKind::List,
    };
    let key = match &key[..] {
        b"HTTP_CONTENT_TYPE" | b"HTTP_CONTENT_LENGTH" if !name.contains(&b'_') => &key[b"HTTP_".len()..],
        whole => whole,
    };
    let text = std::str::from_utf8(key).expect("header names are tokens, which are ASCII (http::request)");
    Ok(Name { key: PyString::intern(py, text).unbind(), kind })
}

fn add_header(
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    name: &Name,
    value: &[u8],
    text: &Bound<'_, PyString>,
) -> PyResult<Option<Vec<u8>>> {
    let key = name.key.bind(py);
    if !insert_if_absent(environ, key, text)? {
        let separator = if name.kind == NameKind::Cookie { "; " } else { "," };
        let before = environ.get_item(key)?.expect("the key is present: the insertion was refused");
        let joined = before.call_method1("__add__", (separator,))?.call_method1("__add__", (text,))?;
        environ.set_item(key, joined)?;
    }
    Ok((name.kind == NameKind::ScriptName).then(|| value.to_vec()))
}

/// On a unix socket the Host header is all there is to name the server.
fn set_server_from_host(py: Python<'_>, environ: &Bound<'_, PyDict>, site: &Site, scheme: Scheme) -> PyResult<()> {
    let host = environ.get_item("HTTP_HOST")?.map(|host| host.to_string()).filter(|host| !host.is_empty());
    let Some(host) = host else {
        environ.set_item("SERVER_NAME", &site.socket_path)?;
        return environ.set_item("SERVER_PORT", "");
    };
    // The last colon outside an IPv6 address's brackets parts name and port.
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host.as_str(), ""),
    };
    let default_port = if scheme == Scheme::Https { "443" } else { "80" };
    environ.set_item("SERVER_NAME", PyString::new(py, name))?;
    environ.set_item("SERVER_PORT", if port.is_empty() { default_port } else { port })
}
