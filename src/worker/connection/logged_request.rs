//! Requests that are logged by the event loop: those that end without the application, and those
//! whose responses are sent after the application is done with them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Connection;
use super::client::Client;
use super::request::Request;
use crate::exchange::{CLIENT_CLOSED_REQUEST, RequestId, RequestView};
use crate::http::connection::ClientProtocol;
use crate::http::request::{RequestHead, Scheme, Span};
use crate::http::uwsgi;
use crate::python::response_writer::ResponseSummary;
use crate::worker::connection_limits::ConnectionLimits;
use crate::worker::request_ids::{AssignedId, IdSource};

/// A request for the access log, as far as it is known. It needs nothing of the connection.
pub struct LoggedRequest {
    buffer: Vec<u8>,
    head: RequestHead,
    client: Arc<Client>,
    scheme: Scheme,
    id: Option<AssignedId>,
    received: u64,
    ready_at: Instant,
    limits: Arc<ConnectionLimits>,
    /// How long it waited before the application was called, if it was.
    pub queue: Option<Duration>,
    /// The response.
    pub summary: ResponseSummary,
    /// Values of the format's environ keys.
    pub environ_values: Vec<Option<String>>,
    /// How long it took.
    pub duration: Duration,
}

impl LoggedRequest {
    /// The request; what is not known of it is empty.
    pub fn request(&self) -> RequestView<'_> {
        RequestView {
            buffer: self.head.source(&self.buffer),
            head: &self.head,
            client: self.client.view(),
            decoded_length: None,
            scheme: self.scheme,
            secured: None,
            id: self.named_id(),
            ready_at: self.ready_at,
            received: self.received,
        }
    }

    fn named_id(&self) -> Option<RequestId<'_>> {
        let (id, ids) = (self.id.as_ref()?, self.limits.request_ids.as_ref()?);
        Some(ids.named(id, self.head.source(&self.buffer)))
    }
}

/// A request that is logged when its response has been sent.
pub struct LateLog {
    request: LoggedRequest,
    started: Instant,
}

impl LateLog {
    /// For a request that was begun at `started`.
    pub(super) fn new(mut request: LoggedRequest, environ_values: Vec<Option<String>>, started: Instant) -> LateLog {
        request.environ_values = environ_values;
        LateLog { request, started }
    }
}

impl LoggedRequest {
    /// A request of this client's, which is ready or served.
    pub(super) fn of(
        request: &Request,
        client: &Arc<Client>,
        is_secured: bool,
        summary: ResponseSummary,
    ) -> LoggedRequest {
        let (ready_at, received) = request.ready();
        LoggedRequest {
            buffer: request.bytes().to_vec(),
            head: request.head.clone(),
            client: client.clone(),
            scheme: request.scheme(is_secured),
            id: request.id(),
            received,
            ready_at,
            limits: request.limits().clone(),
            queue: None,
            summary,
            environ_values: Vec::new(),
            duration: Duration::ZERO,
        }
    }
}

impl Request {
    /// What is to be logged of the request, begun at `started`, once its response has been sent.
    pub fn late_log(&self, summary: ResponseSummary, environ_values: Vec<Option<String>>, started: Instant) -> LateLog {
        let mut request = LoggedRequest::of(self, self.client(), self.is_secured(), summary);
        request.queue = Some(started.saturating_duration_since(request.ready_at));
        LateLog::new(request, environ_values, started)
    }
}

impl Connection {
    /// Has the served request logged when its response has been sent.
    pub fn log_when_sent(&mut self, log: LateLog) {
        self.late_log = Some(Box::new(log));
    }

    /// Takes the request of [`Connection::log_when_sent`] out, if its response has been sent, or if
    /// `is_over` says that no more of it will be.
    pub fn take_late_log(&mut self, is_over: bool, now: Instant) -> Option<LoggedRequest> {
        if self.late_log.is_none() || !is_over && self.has_unsent() {
            return None;
        }
        let LateLog { mut request, started } = *self.late_log.take()?;
        request.duration = now.saturating_duration_since(started);
        // Of what TLS has encrypted the kernel may lack some, too.
        let unsent = self.output.unsent().max(u64::from(self.transport.has_unsent()));
        if unsent > 0 {
            request.summary.status = CLIENT_CLOSED_REQUEST;
            request.summary.sent = request.summary.sent.saturating_sub(unsent);
        }
        Some(request)
    }

    /// Takes the request that will not be served out, for the access log. Of a head that is not
    /// whole the log shows the request line, if that can be read.
    pub fn take_unserved(&mut self, status: u16) -> LoggedRequest {
        let is_ready = !self.request.bytes().is_empty();
        let mut buffer = if is_ready { self.request.take_bytes() } else { std::mem::take(&mut self.input) };
        let mut head = std::mem::take(&mut self.request.head);
        if !self.http.has_whole_head() {
            head = RequestHead::default();
            let start = if buffer.starts_with(b"\r\n") { 2 } else { 0 };
            let end = memchr::memchr2(b'\r', b'\n', &buffer[start..]).map_or(start, |length| start + length);
            buffer = buffer[start..end].to_vec();
            // A part of a uwsgi packet is no request line, whatever bytes it has.
            if self.http.protocol() == ClientProtocol::Http || uwsgi::is_http(&buffer) {
                (head.method, head.target, head.version_text) = three_words(&buffer).unwrap_or_default();
            }
        }
        let made = |ids: &Arc<IdSource>| ids.of(&head, head.source(&buffer), self.client.is_trusted);
        let id = match (self.http.has_whole_head(), is_ready) {
            (false, _) => None,
            (true, true) => self.request.id(),
            // Its head was whole, but the request never became ready: it has no id yet.
            (true, false) => self.limits.request_ids.as_ref().map(made),
        };
        let is_secured = self.transport.is_tls();
        LoggedRequest {
            id,
            scheme: head.forwarded_scheme.unwrap_or(if is_secured { Scheme::Https } else { Scheme::Http }),
            received: buffer.len() as u64,
            ready_at: Instant::now(),
            limits: self.limits.clone(),
            queue: None,
            buffer,
            head,
            client: self.client.clone(),
            summary: ResponseSummary { status, sent: 0, headers: Vec::new() },
            environ_values: Vec::new(),
            duration: Duration::ZERO,
        }
    }
}

/// The words of a line that could be a request line.
fn three_words(line: &[u8]) -> Option<(Span, Span, Span)> {
    let first = memchr::memchr(b' ', line)? as u32;
    let last = memchr::memrchr(b' ', line)? as u32;
    let is_three = !line[first as usize + 1..].is_empty() && memchr::memchr_iter(b' ', line).count() == 2;
    let end = line.len() as u32;
    is_three.then_some((
        Span { start: 0, end: first },
        Span { start: first + 1, end: last },
        Span { start: last + 1, end },
    ))
}
