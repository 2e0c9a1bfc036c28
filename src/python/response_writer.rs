//! One response on its way out: turns the calls of `start_response` and `write()` and the iteration
//! of the result into HTTP.
//!
//! Decides what goes on the wire and when (framing, keep-alive, what is cut or missing), and hands
//! it to the [`Exchange`]. The objects that the application holds share the response writer behind
//! a mutex, which is never held while Python code runs or the kernel is waited for.

mod sending;
mod waiting;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use waiting::Waiting;

pub use waiting::Tried;

use super::header_line_cache::HeaderLineCache;
use super::request_context::ids_of;
use crate::exchange::{CLIENT_CLOSED_REQUEST, Exchange, Hint, RequestView};
use crate::files::{AppFiles, Piece};
use crate::http::date::DateCache;
use crate::http::encode::{BodyEncoder, LengthFault};
use crate::http::error::{ErrorPage, reason_phrase};
use crate::http::request::{RequestHead, Span, Version};
use crate::http::request_id::is_same_key;
use crate::http::response::{self, Asked, BodyPlan};
use crate::logging::RequestIds;
use crate::sys::clock::unix_time;
use crate::sys::fork;
use crate::sys::socket::Peer;
use crate::tls::Secured;

/// Most blocks that are handed to the kernel as they are; the writev(2) limit is 1024 on Linux, and
/// far before it copying is cheaper.
pub const MAX_BLOCKS: usize = 64;

/// The arguments of `start_response`, and what else is known of the response's head.
#[derive(Default)]
pub struct ResponseHead {
    /// The status line's text after the version: `200 OK`.
    pub status: Vec<u8>,
    /// Its number.
    pub code: u16,
    /// The application's header lines as they go out, hop-by-hop ones left out.
    pub headers: Vec<u8>,
    /// The value of `Content-Length`.
    pub content_length: Option<u64>,
    /// The application asked for `Connection: upgrade`.
    pub upgrade: bool,
    /// The application said `X-Accel-Buffering: no`: nothing is kept in a file for a slow client;
    /// the application waits instead.
    pub is_live: bool,
    /// What the request asked for.
    pub asked: Asked,
    /// The body that goes out instead of the application's blocks, if it has named a file.
    pub body: Option<Vec<Piece>>,
    /// The files that the application may name.
    pub files: Option<Arc<AppFiles>>,
    /// The status and headers of the response before.
    pub known: HeaderLineCache,
}

/// How far a response has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// `start_response` was not called yet.
    Waiting,
    /// `start_response` is reading its arguments, which may run the application's code.
    Drafting,
    /// The head is known; nothing was sent, so it can still be replaced.
    Started,
    /// The head is out.
    Sending,
    /// The last byte is out or queued.
    Complete,
}

/// What becomes of the connection after the response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// The next request may follow.
    KeepAlive,
    /// Close after the queued bytes have gone out.
    Close,
    /// The same, and the end of the connection ends the body, too (RFC 9112, 6.3).
    EndBody,
    /// The response is incomplete, and the client must be able to tell: close without completing
    /// the framing.
    Broken,
    /// The same, where the end of the connection is all that ends the body (RFC 9112, 8): it must
    /// not look like a proper one.
    CutShort,
    /// The client is gone.
    Gone,
}

/// What is remembered of a response for the access log.
pub struct ResponseSummary {
    /// The status code; 0 when nothing was sent, [`CLIENT_CLOSED_REQUEST`] when the client did not
    /// wait for all of it.
    pub status: u16,
    /// Body bytes sent, without framing.
    pub sent: u64,
    /// The application's header lines as sent, if they were asked for.
    pub headers: Vec<u8>,
}

/// A response as the request hooks and Python's access log see it.
pub struct ResponseView {
    /// The status line's text after the version: `200 OK`.
    pub status: Vec<u8>,
    /// Its number.
    pub code: u16,
    /// The application's header lines as they go out.
    pub headers: Vec<u8>,
    /// Body bytes sent, without framing.
    pub sent: u64,
    /// The value of `Content-Length`.
    pub content_length: Option<u64>,
    /// Whether the head is out.
    pub headers_sent: bool,
    /// Whether the body is framed in chunks.
    pub chunked: bool,
}

/// What a request says about its response.
#[derive(Clone, Copy)]
pub struct Wanted {
    asked: Asked,
    version: Version,
    /// The response is to show the request's id.
    with_id: bool,
}

impl Wanted {
    /// What `request` says.
    pub fn by(request: &RequestView<'_>) -> Self {
        let asked = Asked::by(request.head.method.of(request.buffer));
        Wanted { asked, version: request.head.version, with_id: request.id.is_some() }
    }
}

/// A response in the making and the exchange it goes out on.
pub struct ResponseWriter {
    exchange: Option<Box<dyn Exchange>>,
    progress: Progress,
    head: Box<ResponseHead>,
    /// A blank head, which stands in for the head while `start_response` fills that in.
    blank: Option<Box<ResponseHead>>,
    wanted: Wanted,
    encoder: BodyEncoder,
    connection: Outlook,
    /// Python code runs after the response's last byte, before the connection goes on or ends.
    is_followed: bool,
    /// See [`response::server_line`].
    server: Arc<[u8]>,
    /// The files that the application may name.
    files: Option<Arc<AppFiles>>,
    date: DateCache,
    /// Scratch space of a call that puts bytes together.
    buffer: Vec<u8>,
    waiting: Waiting,
}

/// What is known of the connection's future while the response is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// The connection ends behind the response. Also the outlook until the head is made.
    Close,
    /// The next request may follow.
    KeepAlive,
    /// The application has the socket; the connection ends with the request.
    Lent,
    /// The client is gone.
    Gone,
}

impl ResponseWriter {
    fn new(server: Arc<[u8]>, files: Option<Arc<AppFiles>>) -> Self {
        ResponseWriter {
            exchange: None,
            progress: Progress::Complete,
            head: Box::default(),
            blank: None,
            wanted: Wanted { asked: Asked::Whole, version: Version::Http11, with_id: false },
            encoder: BodyEncoder::without_body(),
            connection: Outlook::Close,
            is_followed: false,
            server,
            files,
            date: DateCache::new(),
            buffer: Vec::new(),
            waiting: Waiting::default(),
        }
    }

    /// Begins the response to the request in `exchange`; `wanted` is what the request says about
    /// it. `is_observed` says that Python code runs once the response is out.
    pub fn begin(&mut self, exchange: Box<dyn Exchange>, wanted: Wanted, is_observed: bool) {
        self.wanted = wanted;
        self.progress = Progress::Waiting;
        self.encoder = BodyEncoder::without_body();
        self.connection = Outlook::Close;
        self.is_followed = is_observed;
        self.waiting.is_ending = false;
        // Whatever became of the last response, nothing of it may go out with this one.
        self.buffer.clear();
        self.waiting.backlog.clear();
        self.head.body = None;
        self.exchange = Some(exchange);
    }

    /// How far the response has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether the client went away while the response was being sent.
    pub fn client_is_gone(&self) -> bool {
        self.connection == Outlook::Gone
    }

    /// Whether what the application yields is sent.
    pub fn sends_body(&self) -> bool {
        self.head.body.is_none() && self.encoder.plan() != BodyPlan::None
    }

    /// The response as it stands; `None` where there is none.
    pub fn view(&self) -> Option<ResponseView> {
        if matches!(self.progress, Progress::Waiting | Progress::Drafting) || self.head.code == 0 {
            return None;
        }
        // Bytes that the kernel does not have yet do not count as sent.
        let unsent = self.exchange.as_ref().map_or(0, |exchange| exchange.unsent());
        Some(ResponseView {
            status: self.head.status.clone(),
            code: self.head.code,
            headers: self.head.headers.clone(),
            sent: self.encoder.admitted().saturating_sub(unsent),
            content_length: self.head.content_length,
            headers_sent: self.is_head_out(),
            chunked: self.encoder.plan() == BodyPlan::Chunked,
        })
    }

    /// The request line's method and target, for log lines.
    pub fn describe_request(&self) -> String {
        self.exchange.as_ref().map_or_else(String::new, |exchange| {
            let view = exchange.request();
            let text = |span: Span| String::from_utf8_lossy(span.of(view.buffer));
            format!("{} {}", text(view.head.method), text(view.head.target))
        })
    }

    /// The request that is being answered, with its client and its ids; `None` between requests.
    pub fn describe_exchange(&self) -> Option<(String, RequestIds)> {
        let exchange = self.exchange.as_ref()?;
        Some((format!("{} from {}", self.describe_request(), exchange.request().client.remote_addr), self.ids()))
    }

    /// The request's id, and its place in a trace, by which other hops know it.
    pub fn ids(&self) -> RequestIds {
        self.exchange.as_ref().map(|exchange| ids_of(&exchange.request())).unwrap_or_default()
    }

    /// Whether a request waits for the first byte of its answer.
    pub fn is_under_way(&self) -> bool {
        self.exchange.is_some() && !self.is_head_out()
    }

    /// Whether the head is out, so that no other response can replace this one.
    pub fn is_head_out(&self) -> bool {
        matches!(self.progress, Progress::Sending | Progress::Complete)
    }

    /// Goes back to the state before `start_response`, whose arguments could not be read.
    pub fn unstart(&mut self) {
        if self.progress == Progress::Drafting {
            self.progress = Progress::Waiting;
        }
    }

    /// Begins the response anew, for a new call of the application, unless the head is out.
    pub fn begin_again(&mut self) {
        if !self.is_head_out() {
            self.progress = Progress::Waiting;
            self.head.body = None;
        }
    }

    /// Leaves the response as it stands, and says what becomes of the connection. If nothing was
    /// sent there is no response: the client sees its connection end.
    pub fn leave(&mut self) -> Disposition {
        match self.progress {
            _ if self.client_is_gone() => Disposition::Gone,
            Progress::Complete => self.finish(),
            Progress::Sending => self.broken(),
            Progress::Waiting | Progress::Drafting | Progress::Started => {
                self.begin_again();
                Disposition::Close
            }
        }
    }

    /// What becomes of the connection where bytes of the body are missing.
    fn broken(&self) -> Disposition {
        match self.encoder.plan() {
            BodyPlan::UntilClose => Disposition::CutShort,
            BodyPlan::None | BodyPlan::Length(_) | BodyPlan::Chunked => Disposition::Broken,
        }
    }

    /// A head for `start_response` to fill in. Its buffers, and its status until that is set, are
    /// those of an earlier response. Nothing can be sent until the head comes
    /// [back](ResponseWriter::start).
    pub fn take_draft(&mut self) -> Box<ResponseHead> {
        self.progress = Progress::Drafting;
        let mut head = std::mem::replace(&mut self.head, self.blank.take().unwrap_or_default());
        head.headers.clear();
        (head.content_length, head.upgrade, head.is_live, head.asked) = (None, false, false, self.wanted.asked);
        head.body = None;
        head.files.clone_from(&self.files);
        head
    }

    /// A copy of the request's head, and of the bytes that its spans point into.
    pub fn request_head(&self) -> Option<(RequestHead, Vec<u8>)> {
        let request = self.exchange.as_ref()?.request();
        Some((request.head.clone(), request.buffer.to_vec()))
    }

    /// Sets or replaces the head. Nothing is sent yet. Does nothing if the request has been
    /// answered meanwhile.
    pub fn start(&mut self, mut head: Box<ResponseHead>) {
        if self.progress != Progress::Drafting {
            return;
        }
        self.encoder = BodyEncoder::new(self.wanted.asked, self.wanted.version, head.code, head.content_length);
        if head.is_live
            && let Some(exchange) = &mut self.exchange
        {
            exchange.avoid_files();
            if comes_from_a_proxy(&exchange.request()) {
                // A proxy buffers too, unless it is told not to.
                response::write_live(&mut head.headers);
            }
        }
        if self.wanted.with_id {
            self.show_id(&mut head.headers);
        }
        self.blank = Some(std::mem::replace(&mut self.head, head));
        self.progress = Progress::Started;
    }

    /// Adds the request's id to the header lines, unless the application has set one.
    fn show_id(&self, lines: &mut Vec<u8>) {
        let Some(id) = self.exchange.as_ref().and_then(|exchange| exchange.request().id) else { return };
        let name = id.header.as_bytes();
        if !response::header_lines(lines).any(|(found, _)| is_same_key(found, name)) {
            response::write_header(lines, name, id.value);
        }
    }

    /// As [`Exchange::flush_due`].
    pub fn flush_due(&mut self, now: Instant) -> bool {
        self.exchange.as_mut().is_some_and(|exchange| exchange.flush_due(now))
    }

    /// As [`Exchange::hurry`].
    pub fn hurry(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.hurry();
        }
    }

    /// Sends nothing more: a fault of the server may have left part of the bytes unsent, or the
    /// worker ends. To the application the client is gone.
    pub fn give_up_after_fault(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.give_up();
        }
    }

    /// Whether blocks of the response may be sent: its head is known, and neither the response nor
    /// the request has ended.
    pub fn takes_blocks(&self) -> bool {
        self.exchange.is_some() && matches!(self.progress, Progress::Started | Progress::Sending)
    }

    /// Completes the response with whatever framing is due. `is_followed` says that more of the
    /// application's code comes before the connection goes on.
    ///
    /// # Errors
    /// The client is gone.
    pub fn complete(&mut self, is_followed: bool) -> io::Result<()> {
        if self.progress == Progress::Complete {
            return Ok(());
        }
        self.is_followed |= is_followed;
        self.send(&[], true)
    }

    /// Completes the response, and says what becomes of the connection.
    pub fn finish(&mut self) -> Disposition {
        if self.client_is_gone() || self.complete(false).is_err() {
            return Disposition::Gone;
        }
        if self.encoder.is_short() {
            return self.broken();
        }
        match (self.connection, self.encoder.plan()) {
            (Outlook::KeepAlive, _) => Disposition::KeepAlive,
            (_, BodyPlan::UntilClose) => Disposition::EndBody,
            _ => Disposition::Close,
        }
    }

    /// Answers with a page of the server's own instead, if the head is not out yet, else leaves the
    /// response visibly incomplete.
    pub fn fail(&mut self, status: u16, message: &str) -> Disposition {
        if self.client_is_gone() || self.flush().is_err() {
            return Disposition::Gone;
        }
        self.waiting.backlog.clear();
        if self.is_head_out() {
            self.progress = Progress::Complete;
            return self.broken();
        }
        self.progress = Progress::Complete;
        self.head.body = None;
        if self.speaks_websocket() {
            // There was no response that the log could show.
            self.head.code = 0;
            return Disposition::Gone;
        }
        self.head.code = status;
        self.head.status = format!("{status} {}", reason_phrase(status)).into_bytes();
        self.head.known.set_status(None);
        self.head.headers.clear();
        // The page brings its own framing. A view must not show the length or the framing that the
        // application, or an earlier response, has set.
        (self.head.content_length, self.encoder) = (None, BodyEncoder::without_body());
        if self.wanted.with_id {
            let mut lines = std::mem::take(&mut self.head.headers);
            self.show_id(&mut lines);
            self.head.headers = lines;
        }
        let is_head = self.wanted.asked == Asked::Head;
        let page = ErrorPage { status, message, is_head, lines: &self.head.headers };
        let page = page.render(self.date.get(unix_time()));
        match self.transmit_one(&page, Hint::Now) {
            Ok(()) => Disposition::Close,
            Err(_) => {
                self.connection = Outlook::Gone;
                Disposition::Gone
            }
        }
    }

    /// Whether the application has the socket to speak WebSocket over it (RFC 6455, 4.1): the
    /// client would take an error page for a frame.
    fn speaks_websocket(&self) -> bool {
        let asks_for_it = |exchange: &dyn Exchange| {
            let request = exchange.request();
            let mut headers = request.head.headers(request.buffer);
            headers
                .any(|(name, value)| name.eq_ignore_ascii_case(b"upgrade") && value.eq_ignore_ascii_case(b"websocket"))
        };
        self.connection == Outlook::Lent && self.exchange.as_deref().is_some_and(asks_for_it)
    }

    /// Why the body did not fit its `Content-Length`, if it did not.
    pub fn length_complaint(&self) -> Option<String> {
        Some(match self.encoder.length_fault()? {
            LengthFault::Excess(bytes) => {
                format!("the application produced {bytes} bytes more than its Content-Length; they were not sent")
            }
            LengthFault::Missing(bytes) => {
                format!("the application produced {bytes} bytes less than its Content-Length; the connection is closed")
            }
        })
    }

    /// Gives back the exchange, and the summary for the access log, which has the headers if
    /// `with_headers`. `None` while a thread of the application waits for the client: the thread is
    /// told that the request is over, and the caller is to ask again.
    pub fn end(&mut self, with_headers: bool) -> Option<(Box<dyn Exchange>, ResponseSummary)> {
        let status = match self.progress {
            _ if self.client_is_gone() => CLIENT_CLOSED_REQUEST,
            Progress::Waiting | Progress::Drafting => 0,
            _ => self.head.code,
        };
        if self.waiting.waiters > 0 {
            self.waiting.is_ending = true;
            return None;
        }
        let exchange = self.exchange.take()?;
        // Before `start_response` the head is that of an earlier response.
        let has_headers = with_headers && self.progress != Progress::Waiting;
        let headers = if has_headers { self.head.headers.clone() } else { Vec::new() };
        Some((exchange, ResponseSummary { status, sent: self.encoder.admitted(), headers }))
    }

    /// Lends the client's socket to the application; the connection ends with the request.
    ///
    /// # Errors
    /// The request is over, or the kernel refused.
    pub fn lend_socket(&mut self) -> io::Result<std::os::fd::RawFd> {
        self.connection = Outlook::Lent;
        self.exchange.as_mut().ok_or_else(request_is_over)?.lend_socket()
    }

    /// What TLS has settled for the request's connection, where it is under TLS.
    pub fn secured(&self) -> Option<Arc<Secured>> {
        self.exchange.as_ref()?.request().secured.cloned()
    }

    /// Whether the body is complete: what the application may add is not sent.
    fn is_whole(&self) -> bool {
        match self.progress {
            Progress::Waiting | Progress::Drafting | Progress::Started => false,
            Progress::Sending => self.encoder.is_whole(),
            Progress::Complete => true,
        }
    }
}

/// Locks a response. A panic while the lock was held leaves plain data behind, so poisoning is
/// ignored.
pub fn lock(shared: &Mutex<ResponseWriter>) -> MutexGuard<'_, ResponseWriter> {
    fork::lock(shared)
}

/// A shared response writer, whose responses have `server` (a [`response::server_line`]) in their
/// heads, and may send these `files`.
pub fn shared(server: &Arc<[u8]>, files: Option<&Arc<AppFiles>>) -> Arc<Mutex<ResponseWriter>> {
    Arc::new(Mutex::new(ResponseWriter::new(server.clone(), files.cloned())))
}

fn comes_from_a_proxy(request: &RequestView<'_>) -> bool {
    *request.client.peer == Peer::Unix || request.client.proxied.is_some() || request.head.names_a_proxy(request.buffer)
}

fn request_is_over() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the request is over")
}

#[cfg(test)]
mod tests;
