//! A request as the `environ` dict of PEP 3333, with gunicorn's keys from REQUEST_METHOD to
//! `gunicorn.socket`.
//!
//! Values that are the same for every request of a listener are in a template, which is copied.
//! Header names are made into keys once. For a header block that the parser finds in its cache
//! there is a template that contains the headers as well.

use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::facade;
use super::header_names::HeaderNames;
use super::raw::latin1;
use super::tls::TlsKeys;
use super::value_cache::{LONGEST, LastValueCache, PortCache};
use crate::base::ablation::{Mechanism, is_off};
use crate::exchange::{RequestId, RequestView};
use crate::http::header_cache::{CachedBlockId, MOST_BLOCKS};
use crate::http::proxy::Origin;
use crate::http::request::{Scheme, Version, decode_path};
use crate::sys::socket::Peer;

/// The server's name and version, for every environ and for the process's environment.
pub const SERVER_SOFTWARE: &str = concat!("monoceros/", env!("CARGO_PKG_VERSION"));

/// The values of an environ that describe the listener and the server, the same for all requests of
/// the listener.
#[derive(Debug, Clone)]
pub struct ListenerInfo {
    /// `SERVER_NAME` and `SERVER_PORT`; `None` on a unix socket, where the Host header gives them.
    pub server: Option<(String, String)>,
    /// The path of a unix socket: `SERVER_NAME` without a Host header.
    pub socket_path: String,
    /// `wsgi.multithread`
    pub multithread: bool,
    /// `wsgi.multiprocess`
    pub multiprocess: bool,
    /// `SCRIPT_NAME` of the server's environment: the prefix under which the app is mounted.
    pub script_name: String,
}

/// Objects of the server that every environ contains.
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

/// The request's path does not begin with `SCRIPT_NAME`, because a proxy or the operator has set it
/// wrong. It is answered with 500, as in gunicorn.
#[derive(Debug)]
pub struct OutsideScriptName {
    path: String,
    script_name: String,
}

impl OutsideScriptName {
    /// gunicorn's sentence, for the error page.
    pub fn message(&self) -> String {
        format!("Request path '{}' does not start with SCRIPT_NAME '{}'", self.path, self.script_name)
    }
}

/// Why there is no environ.
pub enum EnvironError {
    /// The request's path does not begin with `SCRIPT_NAME`.
    Misplaced(OutsideScriptName),
    /// Python failed; `MemoryError` in practice.
    Python(PyErr),
}

impl From<PyErr> for EnvironError {
    fn from(error: PyErr) -> Self {
        EnvironError::Python(error)
    }
}

/// The templates of a listener's environs.
pub struct EnvironTemplates {
    listener: ListenerInfo,
    /// For requests whose headers must be added.
    plain: Template,
    /// For requests with a cached header block, at the block's place. The template is `None` for a
    /// block that sets a `SCRIPT_NAME`.
    of_blocks: Vec<Option<(CachedBlockId, Option<Template>)>>,
    /// How many of `of_blocks` have a template.
    blocks: usize,
}

/// An environ to be copied. It keeps the values of the last request, so that only values that
/// differ must be set before the copy.
struct Template {
    dict: Py<PyDict>,
    /// The template's values; `None` for a key that is set in each copy.
    shown: Volatile<Option<Py<PyString>>>,
}

/// One item for each of the [`VOLATILE_KEYS`], in their order.
type Volatile<T> = [T; VOLATILE_KEYS.len()];

/// The keys of an environ whose values may change from one request to the next.
const VOLATILE_KEYS: [&str; 8] = [
    "REQUEST_METHOD",
    "RAW_URI",
    "QUERY_STRING",
    "PATH_INFO",
    "SERVER_PROTOCOL",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "wsgi.url_scheme",
];

/// Places among the [`VOLATILE_KEYS`].
const PATH_INFO: usize = 3;
const REMOTE_PORT: usize = 6;

/// The values in one request's environ; `None` for a key that is missing, or set in the copy.
type VolatileValues<'py> = Volatile<Option<Bound<'py, PyString>>>;

impl EnvironTemplates {
    /// Makes the plain template.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn new(py: Python<'_>, listener: &ListenerInfo, fixtures: &Fixtures<'_>) -> PyResult<Self> {
        let dict = PyDict::new(py);
        dict.set_item("wsgi.version", PyTuple::new(py, [1, 0])?)?;
        dict.set_item("wsgi.input", fixtures.input)?;
        dict.set_item("wsgi.errors", fixtures.errors)?;
        dict.set_item("wsgi.multithread", listener.multithread)?;
        dict.set_item("wsgi.multiprocess", listener.multiprocess)?;
        dict.set_item("wsgi.run_once", false)?;
        dict.set_item("wsgi.file_wrapper", fixtures.file_wrapper)?;
        dict.set_item("wsgi.input_terminated", true)?;
        dict.set_item("wsgi.early_hints", fixtures.early_hints)?;
        dict.set_item("gunicorn.socket", fixtures.socket)?;
        dict.set_item("SERVER_SOFTWARE", facade::server_software(py)?)?;
        dict.set_item("SCRIPT_NAME", &listener.script_name)?;
        if let Some((name, port)) = &listener.server {
            dict.set_item("SERVER_NAME", name)?;
            dict.set_item("SERVER_PORT", port)?;
        }
        // The keys that every request sets are in the template already, so that the copies need not
        // grow.
        let has_port = listener.server.is_some();
        for key in VOLATILE_KEYS.into_iter().filter(|key| *key != VOLATILE_KEYS[REMOTE_PORT] || has_port) {
            dict.set_item(key, "")?;
        }
        let plain = Template { dict: dict.unbind(), shown: Volatile::default() };
        Ok(EnvironTemplates { listener: listener.clone(), plain, of_blocks: Vec::new(), blocks: 0 })
    }

    /// How many references these templates hold to each of the [`Fixtures`].
    pub fn count(&self) -> usize {
        1 + self.blocks
    }

    fn has_block(&self, block: CachedBlockId) -> bool {
        matches!(self.of_blocks.get(block.place()), Some(Some((known, _))) if *known == block)
    }

    fn keep(&mut self, block: CachedBlockId, dict: Option<Bound<'_, PyDict>>) {
        if self.of_blocks.is_empty() {
            self.of_blocks.resize_with(MOST_BLOCKS, || None);
        }
        let template = dict.map(|dict| Template { dict: dict.unbind(), shown: Volatile::default() });
        self.blocks += usize::from(template.is_some());
        let old = self.of_blocks[block.place()].replace((block, template));
        self.blocks -= usize::from(matches!(old, Some((_, Some(_)))));
    }
}

impl Template {
    /// A copy of the template, with these values.
    fn copy<'py>(
        &mut self,
        py: Python<'py>,
        keys: &Keys,
        values: &VolatileValues<'py>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let dict = self.dict.bind(py);
        let mut are_all_here = true;
        // Looking at an index costs a quarter of three iterators side by side.
        for (index, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let (key, shown) = (&keys.volatile[index], &mut self.shown[index]);
            if shown.as_ref().is_some_and(|shown| shown.is(value)) {
                continue;
            }
            if value.len()? > LONGEST {
                // A long value must not stay in memory for longer than its request.
                are_all_here = false;
                continue;
            }
            dict.set_item(key, value)?;
            *shown = Some(value.clone().unbind());
        }
        let copy = dict.copy()?;
        if !are_all_here {
            let items = keys.volatile.iter().zip(values);
            items
                .filter_map(|(key, value)| Some((key, value.as_ref()?)))
                .try_for_each(|(key, value)| copy.set_item(key, value))?;
        }
        Ok(copy)
    }
}

/// Turns requests into environs. Each application thread has one; greenlets share a few.
pub struct EnvironBuilder {
    keys: Keys,
    names: HeaderNames,
    query: LastValueCache,
    raw_uri: LastValueCache,
    path_info: LastValueCache,
    authority: LastValueCache,
    remote_addr: LastValueCache,
    remote_ports: PortCache,
    proxy_addr: LastValueCache,
    proxy_port: LastValueCache,
    tls: TlsKeys,
    /// The key of a request's id in the environ, once an id was set.
    id_key: Option<Py<PyString>>,
}

/// Constant keys and values, made once.
struct Keys {
    /// [`VOLATILE_KEYS`], interned.
    volatile: Volatile<Py<PyString>>,
    host: Py<PyString>,
    content_length: Py<PyString>,
    transfer_encoding: Py<PyString>,
    proxy_protocol: Py<PyString>,
    proxy_addr: Py<PyString>,
    proxy_port: Py<PyString>,
    queue_time: Py<PyString>,
    empty: Py<PyString>,
    http: Py<PyString>,
    https: Py<PyString>,
    http_10: Py<PyString>,
    http_11: Py<PyString>,
    get: Py<PyString>,
    post: Py<PyString>,
}

impl EnvironBuilder {
    /// An empty builder.
    pub fn new(py: Python<'_>) -> Self {
        let text = |text| PyString::intern(py, text).unbind();
        let keys = Keys {
            volatile: VOLATILE_KEYS.map(text),
            host: text("HTTP_HOST"),
            content_length: text("CONTENT_LENGTH"),
            transfer_encoding: text("HTTP_TRANSFER_ENCODING"),
            proxy_protocol: text("PROXY_PROTOCOL"),
            proxy_addr: text("PROXY_ADDR"),
            proxy_port: text("PROXY_PORT"),
            queue_time: text("monoceros.queue_time"),
            empty: text(""),
            http: text("http"),
            https: text("https"),
            http_10: text("HTTP/1.0"),
            http_11: text("HTTP/1.1"),
            get: text("GET"),
            post: text("POST"),
        };
        EnvironBuilder {
            keys,
            names: HeaderNames::default(),
            query: LastValueCache::new(),
            raw_uri: LastValueCache::new(),
            path_info: LastValueCache::new(),
            authority: LastValueCache::new(),
            remote_addr: LastValueCache::new(),
            remote_ports: PortCache::new(),
            proxy_addr: LastValueCache::new(),
            proxy_port: LastValueCache::new(),
            tls: TlsKeys::new(py),
            id_key: None,
        }
    }

    /// The environ of `request`. If `began` says when the application is called, the environ says
    /// how long the request has waited.
    ///
    /// # Errors
    /// The path does not begin with `SCRIPT_NAME`, or Python failed.
    pub fn build<'py>(
        &mut self,
        py: Python<'py>,
        templates: &mut EnvironTemplates,
        request: &RequestView<'_>,
        began: Option<Instant>,
    ) -> Result<Bound<'py, PyDict>, EnvironError> {
        let environ = match request.head.block {
            Some(block) if !is_off(Mechanism::EnvironTemplates) => self.build_known(py, templates, request, block)?,
            _ => None,
        };
        let environ = match environ {
            Some(environ) => environ,
            None => self.build_uncached(py, templates, request)?,
        };
        if !request.head.authority.is_empty() {
            // The authority replaces Host (RFC 9112, 3.2.2).
            let authority = self.authority.latin1(py, request.head.authority.of(request.buffer))?;
            environ.set_item(&self.keys.host, authority)?;
        }
        if let Some(length) = request.decoded_length {
            self.set_decoded_length(py, &environ, length)?;
        }
        if let Some(secured) = request.secured {
            self.tls.set(py, &environ, secured)?;
        }
        if let Some(origin) = request.client.proxied {
            self.set_proxy(py, &environ, origin)?;
        }
        if let Some(id) = request.id.filter(|id| id.is_made) {
            self.set_id(py, &environ, id)?;
        }
        if let Some(began) = began {
            let waited = began.saturating_duration_since(request.ready_at);
            environ.set_item(&self.keys.queue_time, waited.as_secs_f64())?;
        }
        if templates.listener.server.is_none() {
            self.set_names_on_unix(py, &environ, &templates.listener, request)?;
        }
        if request.head.version == Version::Uwsgi {
            self.set_vars(py, &environ, request)?;
        }
        Ok(environ)
    }

    /// Makes the environ from the template of the request's header block. The template is made
    /// first if there is none yet. `None` if the path depends on the headers.
    fn build_known<'py>(
        &mut self,
        py: Python<'py>,
        templates: &mut EnvironTemplates,
        request: &RequestView<'_>,
        block: CachedBlockId,
    ) -> Result<Option<Bound<'py, PyDict>>, EnvironError> {
        if !templates.has_block(block) {
            let dict = templates.plain.dict.bind(py).copy()?;
            let script_name = self.names.set_headers(py, &dict, request)?;
            templates.keep(block, script_name.is_none().then_some(dict));
        }
        // The template of this block was found or made above.
        let Some((_, Some(template))) = &mut templates.of_blocks[block.place()] else { return Ok(None) };
        let mut values = self.volatile_values(py, request, &templates.listener)?;
        values[PATH_INFO] = Some(self.path(py, request, templates.listener.script_name.as_bytes())?);
        Ok(Some(template.copy(py, &self.keys, &values)?))
    }

    fn build_uncached<'py>(
        &mut self,
        py: Python<'py>,
        templates: &mut EnvironTemplates,
        request: &RequestView<'_>,
    ) -> Result<Bound<'py, PyDict>, EnvironError> {
        let values = self.volatile_values(py, request, &templates.listener)?;
        let environ = templates.plain.copy(py, &self.keys, &values)?;
        let path = match self.names.set_headers(py, &environ, request)? {
            Some(script_name) => {
                environ.set_item("SCRIPT_NAME", latin1(py, &script_name)?)?;
                self.path(py, request, &script_name)?
            }
            // A proxy that speaks uwsgi has taken SCRIPT_NAME off the path itself.
            None if says_script_name(request) => self.path(py, request, b"")?,
            None => self.path(py, request, templates.listener.script_name.as_bytes())?,
        };
        environ.set_item(&self.keys.volatile[PATH_INFO], path)?;
        Ok(environ)
    }

    /// The values of the request line and the connection, except the path, which may depend on a
    /// header.
    fn volatile_values<'py>(
        &mut self,
        py: Python<'py>,
        request: &RequestView<'_>,
        listener: &ListenerInfo,
    ) -> PyResult<VolatileValues<'py>> {
        let (keys, head, buffer) = (&self.keys, request.head, request.buffer);
        let known = |text: &Py<PyString>| text.bind(py).clone();
        let method = match head.method.of(buffer) {
            b"GET" => known(&keys.get),
            b"POST" => known(&keys.post),
            method => latin1(py, method)?,
        };
        let query = match head.query.of(buffer) {
            b"" => known(&keys.empty),
            query => self.query.latin1(py, query)?,
        };
        let raw_uri = self.raw_uri.latin1(py, head.target.of(buffer))?;
        let protocol = match head.version_text.of(buffer) {
            b"HTTP/1.1" => known(&keys.http_11),
            b"HTTP/1.0" => known(&keys.http_10),
            other => latin1(py, other)?,
        };
        let remote_addr = match request.client.remote_addr {
            "" => known(&keys.empty),
            addr => self.remote_addr.latin1(py, addr.as_bytes())?,
        };
        // On a unix socket the templates do not have this key.
        let remote_port = listener.server.as_ref().map(|_| match request.client.peer {
            Peer::Ip(address) => self.remote_ports.text(py, address.port()),
            Peer::Unix => known(&keys.empty),
        });
        let url_scheme = known(if request.scheme == Scheme::Https { &keys.https } else { &keys.http });
        Ok([
            Some(method),
            Some(raw_uri),
            Some(query),
            None,
            Some(protocol),
            Some(remote_addr),
            remote_port,
            Some(url_scheme),
        ])
    }

    /// The chunks are decoded, so the body has a length. Most frameworks need one to find a body.
    fn set_decoded_length(&self, py: Python<'_>, environ: &Bound<'_, PyDict>, length: u64) -> PyResult<()> {
        environ.del_item(&self.keys.transfer_encoding)?;
        environ.set_item(&self.keys.content_length, PyString::new(py, itoa::Buffer::new().format(length)))
    }

    /// Puts an id that the server has made in the place of what the client has sent.
    fn set_id(&mut self, py: Python<'_>, environ: &Bound<'_, PyDict>, id: RequestId<'_>) -> PyResult<()> {
        let key = self.id_key.get_or_insert_with(|| PyString::new(py, &environ_key(id.header)).unbind());
        environ.set_item(&*key, latin1(py, id.value)?)
    }

    /// Adds what a PROXY header says besides the client: the address that the client has connected
    /// to.
    fn set_proxy(&mut self, py: Python<'_>, environ: &Bound<'_, PyDict>, origin: &Origin) -> PyResult<()> {
        environ.set_item(&self.keys.proxy_protocol, PyString::intern(py, origin.protocol()))?;
        if let Origin::Client { proxy, .. } = origin {
            let (address, port) = (proxy.ip().to_string(), proxy.port().to_string());
            environ.set_item(&self.keys.proxy_addr, self.proxy_addr.latin1(py, address.as_bytes())?)?;
            environ.set_item(&self.keys.proxy_port, self.proxy_port.latin1(py, port.as_bytes())?)?;
        }
        Ok(())
    }

    /// On a unix socket only the Host header names the server, and only a PROXY header names the
    /// client's port.
    fn set_names_on_unix(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        listener: &ListenerInfo,
        request: &RequestView<'_>,
    ) -> PyResult<()> {
        if let Peer::Ip(address) = request.client.peer {
            environ.set_item(&self.keys.volatile[REMOTE_PORT], self.remote_ports.text(py, address.port()))?;
        }
        set_server_from_host(py, environ, listener, request.scheme)
    }

    /// Adds the variables of a uwsgi packet. They tell more about the client and its request than
    /// the connection does.
    fn set_vars(&self, py: Python<'_>, environ: &Bound<'_, PyDict>, request: &RequestView<'_>) -> PyResult<()> {
        let (head, source) = (request.head, request.buffer);
        if head.var(source, b"REMOTE_ADDR").is_some() {
            // The client's port, if the packet has it, is set below. The connection's own port is
            // the proxy's.
            environ.call_method1("pop", (&self.keys.volatile[REMOTE_PORT], py.None()))?;
        }
        let named_script = says_script_name(request);
        for (name, value) in head.vars(source).filter(|(name, _)| *name != b"SCRIPT_NAME" || named_script) {
            environ.set_item(latin1(py, name)?, latin1(py, value)?)?;
        }
        Ok(())
    }

    /// `PATH_INFO`: the path below `prefix`.
    fn path<'py>(
        &mut self,
        py: Python<'py>,
        request: &RequestView<'_>,
        prefix: &[u8],
    ) -> Result<Bound<'py, PyString>, EnvironError> {
        let raw = request.head.path.of(request.buffer);
        // The prefix is removed from the path as sent, before decoding, as in gunicorn. Usually it
        // is empty, and comparing empty texts costs a call as well (see `value_cache`).
        let below = if prefix.is_empty() { Some(raw) } else { raw.strip_prefix(prefix) };
        let Some(below) = below else {
            let shown = |bytes| String::from_utf8_lossy(bytes).into_owned();
            return Err(EnvironError::Misplaced(OutsideScriptName { path: shown(raw), script_name: shown(prefix) }));
        };
        Ok(self.path_info.made_of(py, below, |below| latin1(py, &decode_path(below)))?)
    }
}

/// The key of a header in the environ.
fn environ_key(header: &str) -> String {
    format!("HTTP_{}", header.to_ascii_uppercase().replace('-', "_"))
}

/// Whether a uwsgi packet says where the application is mounted.
fn says_script_name(request: &RequestView<'_>) -> bool {
    request.head.var(request.buffer, b"SCRIPT_NAME").is_some_and(|name| !name.is_empty())
}

fn set_server_from_host(
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    listener: &ListenerInfo,
    scheme: Scheme,
) -> PyResult<()> {
    let host = environ.get_item("HTTP_HOST")?.map(|host| host.to_string()).filter(|host| !host.is_empty());
    let Some(host) = host else {
        environ.set_item("SERVER_NAME", &listener.socket_path)?;
        return environ.set_item("SERVER_PORT", "");
    };
    // The last colon outside the brackets of an IPv6 address separates name and port.
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host.as_str(), ""),
    };
    let default_port = if scheme == Scheme::Https { "443" } else { "80" };
    environ.set_item("SERVER_NAME", PyString::new(py, name))?;
    environ.set_item("SERVER_PORT", if port.is_empty() { default_port } else { port })
}
