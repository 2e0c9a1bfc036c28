//! One response on its way out: what `start_response`, `write()` and the iteration of the result add up to, in HTTP.
//!
//! Decides what goes on the wire and when (framing, keep-alive, what is cut or missing), and hands it to the [`Exchange`]. The objects
//! that the application holds share it behind a mutex, which is never held while Python code runs or the kernel is waited for.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::header_line_cache::HeaderLineCache;
use super::request_context::ids_of;
use crate::base::ablation::{Mechanism, is_off};
use crate::base::unpoisoned::Unpoisoned;
use crate::exchange::{CLIENT_CLOSED_REQUEST, Exchange, Hint, RequestView, Wait};
use crate::files::{AppFiles, Piece};
use crate::http::date::DateCache;
use crate::http::encode::{BodyEncoder, Framed, LengthFault};
use crate::http::error::{ErrorPage, reason_phrase};
use crate::http::request::{RequestHead, Span, Version};
use crate::http::request_id::is_same_key;
use crate::http::response::{self, Asked, BodyPlan, ConnectionHeader};
use crate::logging::RequestIds;
use crate::sys::clock::unix_time;
use crate::sys::socket::Peer;
use crate::tls::Secured;

/// Responses of up to this many bytes are put together and sent as one piece, which costs the kernel less than a list of them.
const GATHER_LIMIT: usize = 8 * 1024;

/// Most blocks that are handed to the kernel as they are; the writev(2) limit is 1024 on Linux, and far before it copying is cheaper.
pub const MAX_BLOCKS: usize = 64;

/// What `start_response` was told.
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
    /// The application said `X-Accel-Buffering: no`: what its client does not take slows it down.
    pub is_live: bool,
    /// What the request asked for.
    pub asked: Asked,
    /// What goes out instead of what the application sends: the file that it has named.
    pub body: Option<Vec<Piece>>,
    /// The files that it may name.
    pub files: Option<Arc<AppFiles>>,
    /// What the response before it said.
    pub known: HeaderLineCache,
}

/// How far a response has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// `start_response` was not called yet.
    Waiting,
    /// It is reading the head that it was given, which may run the application's code.
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
    /// The response is incomplete, and the client must be able to tell: close without completing the framing.
    Broken,
    /// The client is gone.
    Gone,
}

/// What is remembered of a response for the access log.
pub struct ResponseSummary {
    /// The status code; 0 when nothing was sent, [`CLIENT_CLOSED_REQUEST`] when the client did not wait for all of it.
    pub status: u16,
    /// Body bytes sent, without framing.
    pub sent: u64,
    /// The application's header lines as sent, if they were asked for.
    pub headers: Vec<u8>,
}

/// A response as those who look at requests see it.
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

/// What a request says of the response to it.
#[derive(Clone, Copy)]
pub struct Wanted {
    asked: Asked,
    version: Version,
    /// The response is to show the request's id.
    with_id: bool,
}

impl Wanted {
    /// What this one says.
    pub fn by(request: RequestView<'_>) -> Self {
        let asked = Asked::by(request.head.method.of(request.buffer));
        Wanted { asked, version: request.head.version, with_id: request.id.is_some() }
    }
}

/// A response in the making and the exchange it goes out on.
pub struct ResponseWriter {
    exchange: Option<Box<dyn Exchange>>,
    progress: Progress,
    head: ResponseHead,
    wanted: Wanted,
    encoder: BodyEncoder,
    connection: Outlook,
    /// Python code runs between the response's last byte and what becomes of the connection.
    is_followed: bool,
    /// See [`response::server_line`].
    server: Arc<[u8]>,
    /// The files that the application may name.
    files: Option<Arc<AppFiles>>,
    date: DateCache,
    /// What is being put together, within a call.
    buffer: Vec<u8>,
    waiting: Waiting,
}

/// What is known of the connection's future while the response is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// It ends behind the response. So it is, too, before the head is made.
    Close,
    /// The next request may follow.
    KeepAlive,
    /// The application has its socket; it ends with the request.
    Lent,
    /// The client is gone.
    Gone,
}

/// What waits for the client.
#[derive(Default)]
struct Waiting {
    /// What the exchange has not taken over, which the application waits for.
    backlog: VecDeque<Unsent>,
    /// Threads that wait.
    waiters: usize,
    /// The request is over: the threads are to give it up.
    is_ending: bool,
}

/// What came of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tried<T> {
    /// What was attempted.
    Done(T),
    /// It has to wait for the client.
    NotYet(Wait),
}

/// Bytes that wait until the exchange takes them over; those up to `start` it has.
struct Unsent {
    bytes: Box<dyn AsRef<[u8]> + Send>,
    start: usize,
}

impl ResponseWriter {
    fn new(server: Arc<[u8]>, files: Option<Arc<AppFiles>>) -> Self {
        ResponseWriter {
            exchange: None,
            progress: Progress::Complete,
            head: ResponseHead::default(),
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

    /// Begins the response to the request in `exchange`, which is `wanted` so; `is_observed` says that somebody looks at
    /// it when it is out.
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
        // What the client has not taken is not sent.
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

    /// The request that is being answered, and whose it is; `None` between requests.
    pub fn describe_exchange(&self) -> Option<(String, RequestIds)> {
        let exchange = self.exchange.as_ref()?;
        Some((format!("{} from {}", self.describe_request(), exchange.request().client.remote_addr), self.ids()))
    }

    /// By what the request is known here and at other hops.
    pub fn ids(&self) -> RequestIds {
        self.exchange.as_ref().map(|exchange| ids_of(exchange.request())).unwrap_or_default()
    }

    /// Whether a request waits for the first byte of its answer.
    pub fn is_under_way(&self) -> bool {
        self.exchange.is_some() && !self.is_head_out()
    }

    /// Whether nothing else can be answered any more.
    pub fn is_head_out(&self) -> bool {
        matches!(self.progress, Progress::Sending | Progress::Complete)
    }

    /// After a head that could not be read: there is none.
    pub fn unstart(&mut self) {
        if self.progress == Progress::Drafting {
            self.progress = Progress::Waiting;
        }
    }

    /// As long as nothing is sent: the response begins anew, with a new call of the application.
    pub fn begin_again(&mut self) {
        if !self.is_head_out() {
            self.progress = Progress::Waiting;
            self.head.body = None;
        }
    }

    /// Whoever was to make the response has left off. One of which nothing is sent is none; the client sees its connection end.
    pub fn leave(&mut self) -> Disposition {
        match self.progress {
            _ if self.client_is_gone() => Disposition::Gone,
            Progress::Complete => self.finish(),
            Progress::Sending => Disposition::Broken,
            Progress::Waiting | Progress::Drafting | Progress::Started => {
                self.begin_again();
                Disposition::Close
            }
        }
    }

    /// A draft for `start_response` to fill in; its buffers, and the status until it is told, are those of an earlier response. Until it
    /// comes [back](Transmission::start) nothing can be sent.
    pub fn take_draft(&mut self) -> ResponseHead {
        self.progress = Progress::Drafting;
        let mut head = std::mem::take(&mut self.head);
        head.headers.clear();
        (head.content_length, head.upgrade, head.is_live, head.asked) = (None, false, false, self.wanted.asked);
        head.body = None;
        head.files.clone_from(&self.files);
        head
    }

    /// The head of the request, and what its spans point into, to keep.
    pub fn request_head(&self) -> Option<(RequestHead, Vec<u8>)> {
        let request = self.exchange.as_ref()?.request();
        Some((request.head.clone(), request.buffer.to_vec()))
    }

    /// Sets or replaces the head. Nothing is sent yet; and nothing will be, if the request has been answered meanwhile.
    pub fn start(&mut self, mut head: ResponseHead) {
        if self.progress != Progress::Drafting {
            return;
        }
        self.encoder = BodyEncoder::new(self.wanted.asked, self.wanted.version, head.code, head.content_length);
        if head.is_live
            && let Some(exchange) = &mut self.exchange
        {
            exchange.avoid_files();
            if comes_from_a_proxy(exchange.request()) {
                // It buffers, too, unless it is told.
                response::write_live(&mut head.headers);
            }
        }
        if self.wanted.with_id {
            self.show_id(&mut head.headers);
        }
        self.head = head;
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

    /// Sends a block of an iteration. It may wait a moment for the next.
    ///
    /// # Errors
    /// The client is gone.
    pub fn stream(&mut self, block: &Bound<'_, PyBytes>) -> io::Result<()> {
        self.send_with(&[block], false, Hint::MoreSoon)
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

    /// A fault of the server's has come between what was to be sent and the client: nobody knows how much of it is out. The application
    /// hears of it as of a client that is gone.
    pub fn give_up_after_fault(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.give_up();
        }
    }

    /// Whether the application has to wait until the client has taken more.
    pub fn has_backlog(&self) -> bool {
        !self.waiting.backlog.is_empty()
    }

    /// Whether blocks of the response may be sent: its head is known, its end has not come, and neither has the request's.
    pub fn takes_blocks(&self) -> bool {
        self.exchange.is_some() && matches!(self.progress, Progress::Started | Progress::Sending)
    }

    /// Sends `blocks` at once, after the head if that is still to go and whatever is held back; `last` says that nothing follows.
    ///
    /// # Errors
    /// The client is gone, or the response does not [take blocks](Transmission::takes_blocks).
    pub fn send(&mut self, blocks: &[&Bound<'_, PyBytes>], last: bool) -> io::Result<()> {
        self.send_with(blocks, last, Hint::Now)
    }

    /// As [`ResponseWriter::send`]; `hint` is what is said of the bytes where nothing better is known.
    fn send_with(&mut self, blocks: &[&Bound<'_, PyBytes>], last: bool, hint: Hint) -> io::Result<()> {
        if !self.takes_blocks() {
            return Err(io::Error::other("the response takes no blocks now"));
        }
        if self.head.body.is_some() {
            // What the application sends besides a file that it has named is dropped.
            return if last { self.send_pieces() } else { Ok(()) };
        }
        let mut front = std::mem::take(&mut self.buffer);
        let is_first = self.progress == Progress::Started;
        if is_first {
            self.render_head(&mut front);
            self.progress = Progress::Sending;
        }
        let offered = blocks.iter().map(|block| block.as_bytes().len()).sum();
        let Framed { admitted, tail } = self.encoder.frame(&mut front, offered, last);
        if last {
            self.progress = Progress::Complete;
        }
        let hint = self.hint(is_first, last).unwrap_or(hint);
        let is_short = front.len() + admitted + tail.len() <= GATHER_LIMIT && !is_off(Mechanism::Gathering);
        let result = if let ([block], true, Hint::MoreSoon) = (blocks, is_short, hint) {
            // It is likely to be put together with others, which is done once.
            self.transmit_short(&[&front, &block.as_bytes()[..admitted], tail], hint)
        } else if is_short {
            gather(&mut front, blocks, admitted);
            front.extend_from_slice(tail);
            self.transmit_one(&front, hint)
        } else {
            self.transmit(&front, blocks, admitted, tail, hint)
        };
        front.clear();
        self.buffer = front;
        if self.has_backlog() && result.is_ok() && self.is_whole() {
            self.leave_backlog();
        }
        result.inspect_err(|_| self.connection = Outlook::Gone)
    }

    /// Sends the rest of a regular file from `offset` on, by the kernel alone, as the whole body.
    ///
    /// # Errors
    /// The client is gone, or the descriptor could not be used.
    pub fn send_file(&mut self, file: std::os::fd::OwnedFd, offset: u64, length: u64) -> io::Result<()> {
        if self.head.body.is_some() {
            return self.send_pieces();
        }
        let mut front = std::mem::take(&mut self.buffer);
        front.clear();
        self.render_head(&mut front);
        self.progress = Progress::Complete;
        let offered = usize::try_from(length).unwrap_or(usize::MAX);
        let Framed { admitted, tail } = self.encoder.frame(&mut front, offered, true);
        self.transmit_one(&front, Hint::Now)?;
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        exchange.send_file(Arc::new(file), offset, admitted as u64);
        if tail.is_empty() { Ok(()) } else { self.transmit_one(tail, Hint::Now) }
    }

    /// Sends head and body of a response whose body is a file that the application has named.
    fn send_pieces(&mut self) -> io::Result<()> {
        let pieces = self.head.body.take().unwrap_or_default();
        let mut front = std::mem::take(&mut self.buffer);
        self.render_head(&mut front);
        self.progress = Progress::Complete;
        let length = self.head.content_length.unwrap_or(0);
        let offered = usize::try_from(length).unwrap_or(usize::MAX);
        let Framed { admitted, .. } = self.encoder.frame(&mut front, offered, true);
        let sent = self.transmit_one(&front, Hint::Now);
        front.clear();
        self.buffer = front;
        let pieces = if admitted > 0 { pieces } else { Vec::new() };
        let sent = sent.and_then(|()| pieces.into_iter().try_for_each(|piece| self.send_piece(piece)));
        self.leave_backlog();
        sent.inspect_err(|_| self.connection = Outlook::Gone)
    }

    fn send_piece(&mut self, piece: Piece) -> io::Result<()> {
        match piece {
            Piece::Bytes(bytes) => self.transmit_one(&bytes, Hint::Now),
            Piece::File(file, range) => {
                // It goes behind what was handed over, so all of that must have been.
                self.leave_backlog();
                let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
                exchange.send_file(file, range.start, range.end - range.start);
                Ok(())
            }
        }
    }

    /// Sends an informational response (103 Early Hints, RFC 8297). Does nothing once the final head is out, or for a client that
    /// knows none: in HTTP/1.0, and under uwsgi, where nginx takes it for the answer.
    ///
    /// # Errors
    /// The client is gone.
    pub fn send_interim(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_head_out() || self.wanted.version != Version::Http11 {
            return Ok(());
        }
        self.transmit_one(bytes, Hint::Now).inspect_err(|_| self.connection = Outlook::Gone)
    }

    /// Completes the response with whatever framing is due. `is_followed` says that more of the application's code comes before the
    /// connection goes on.
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
            return Disposition::Broken;
        }
        if self.connection == Outlook::KeepAlive { Disposition::KeepAlive } else { Disposition::Close }
    }

    /// Answers with a page of the server's own instead, if the head is not out yet, else leaves the response visibly incomplete.
    pub fn fail(&mut self, status: u16, message: &str) -> Disposition {
        if self.client_is_gone() || self.flush().is_err() {
            return Disposition::Gone;
        }
        self.waiting.backlog.clear();
        if self.is_head_out() {
            self.progress = Progress::Complete;
            return Disposition::Broken;
        }
        self.progress = Progress::Complete;
        self.head.body = None;
        self.head.code = status;
        self.head.status = format!("{status} {}", reason_phrase(status)).into_bytes();
        self.head.known.set_status(None);
        self.head.headers.clear();
        // The page is framed by itself: those who look at the response must not see what the application, or the last one, had in mind.
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

    /// Gives the exchange back, with what the access log wants to know: the headers among it if `with_headers`. `None` while a thread of
    /// the application waits for the client: it is told that the request is over, and this to be asked again.
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
        // While there was no response, what the draft has is an earlier one's.
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

    /// One attempt at something that may have to wait for the client; where it has to, the caller is counted among those who
    /// [wait](Transmission::leave_wait).
    ///
    /// # Errors
    /// The request is over, or that of `action`.
    pub fn attempt<T>(&mut self, action: impl FnOnce(&mut Self) -> io::Result<Tried<T>>) -> io::Result<Tried<T>> {
        if self.is_over() {
            return Err(request_is_over());
        }
        let tried = action(self)?;
        if matches!(tried, Tried::NotYet(_)) {
            self.waiting.waiters += 1;
        }
        Ok(tried)
    }

    /// Somebody has waited, and has let go of the exchange's descriptor.
    pub fn leave_wait(&mut self) {
        self.waiting.waiters -= 1;
    }

    /// Whether who waits for the client is to give it up.
    pub fn is_over(&self) -> bool {
        self.waiting.is_ending || self.exchange.is_none()
    }

    /// Sends everything that was kept, as far as the client takes it.
    ///
    /// # Errors
    /// The client is gone, or has stopped reading.
    pub fn try_send_all(&mut self) -> io::Result<Tried<()>> {
        if let Tried::NotYet(wait) = self.try_send_backlog()? {
            return Ok(Tried::NotYet(wait));
        }
        self.flush()?;
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        if exchange.unsent() == 0 {
            return Ok(Tried::Done(()));
        }
        exchange.wait_to_write().map(Tried::NotYet).inspect_err(|_| self.connection = Outlook::Gone)
    }

    /// Hands over what the exchange had no room for, as far as it has by now.
    ///
    /// # Errors
    /// As [`ResponseWriter::try_send_all`].
    pub fn try_send_backlog(&mut self) -> io::Result<Tried<()>> {
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        let backlog = &mut self.waiting.backlog;
        let mut tried = || {
            while let Some(Unsent { bytes, start }) = backlog.front_mut() {
                let left = &(**bytes).as_ref()[*start..];
                let taken = exchange.send(&[left], Hint::Now)?;
                if taken < left.len() {
                    *start += taken;
                    return exchange.wait_to_write().map(Tried::NotYet);
                }
                backlog.pop_front();
            }
            Ok(Tried::Done(()))
        };
        tried().inspect_err(|_| self.connection = Outlook::Gone)
    }

    /// Sends what waits for more to come, and goes on with what the client has not taken.
    fn flush(&mut self) -> io::Result<()> {
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        exchange.flush().inspect_err(|_| self.connection = Outlook::Gone)
    }

    /// Reads what is there of a streamed body. What the application has produced goes out before: the client may be waiting for that before
    /// it sends more.
    ///
    /// # Errors
    /// Those of [`Exchange::read_body`].
    pub fn try_read_body(&mut self, buffer: &mut [u8]) -> io::Result<Tried<usize>> {
        if let Tried::NotYet(wait) = self.try_send_backlog()? {
            return Ok(Tried::NotYet(wait));
        }
        self.flush()?;
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        match exchange.read_body(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => exchange.wait_to_read().map(Tried::NotYet),
            read => read.map(Tried::Done),
        }
    }

    /// Whether all of it has been given: what the application may add is not sent.
    fn is_whole(&self) -> bool {
        match self.progress {
            Progress::Waiting | Progress::Drafting | Progress::Started => false,
            Progress::Sending => self.encoder.is_whole(),
            Progress::Complete => true,
        }
    }

    fn render_head(&mut self, out: &mut Vec<u8>) {
        let may_keep_alive = self.exchange.as_ref().is_some_and(|exchange| exchange.may_keep_alive());
        if self.connection == Outlook::Close && may_keep_alive && self.encoder.plan() != BodyPlan::UntilClose {
            self.connection = Outlook::KeepAlive;
        }
        let connection = match (self.head.upgrade, self.connection == Outlook::KeepAlive) {
            (true, _) => ConnectionHeader::Upgrade,
            (false, true) => ConnectionHeader::KeepAlive,
            (false, false) => ConnectionHeader::Close,
        };
        let chunked = self.encoder.plan() == BodyPlan::Chunked;
        let date = self.date.get(unix_time());
        response::write_head_start(
            out,
            self.wanted.version,
            &self.head.status,
            &self.server,
            date,
            connection,
            chunked,
        );
        out.extend_from_slice(&self.head.headers);
        response::write_head_end(out);
    }

    /// Leaves what the exchange has no room for to it all the same: the application has made all of its response, and need not wait.
    fn leave_backlog(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            self.waiting.backlog.drain(..).for_each(|Unsent { bytes, start }| exchange.send_object(bytes, start));
        }
    }

    /// What is known of the bytes that are about to be sent: whether they are all of the response, or the last before the end of the
    /// connection. That must come at once then: what is called in between could hold them up. (What is left are destructors of the
    /// application's objects, and a full access log; for them the kernel's patience is short.)
    fn hint(&self, is_first: bool, last: bool) -> Option<Hint> {
        if self.head.upgrade {
            return None;
        }
        match self.connection {
            Outlook::KeepAlive => (is_first && self.is_whole()).then_some(Hint::LastOfResponse),
            Outlook::Close => (last && !self.is_followed).then_some(Hint::LastOfConnection),
            Outlook::Lent | Outlook::Gone => None,
        }
    }

    fn transmit_one(&mut self, bytes: &[u8], hint: Hint) -> io::Result<()> {
        self.transmit_short(&[bytes], hint)
    }

    /// Sends parts, of which what waits to be handed over is copied.
    fn transmit_short(&mut self, parts: &[&[u8]], hint: Hint) -> io::Result<()> {
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        // Nothing overtakes what waits to be handed over.
        let taken = if self.waiting.backlog.is_empty() { exchange.send(parts, hint)? } else { 0 };
        if taken < parts.iter().map(|part| part.len()).sum() {
            self.waiting.backlog.push_back(Unsent { bytes: Box::new(parts.concat()), start: taken });
        }
        Ok(())
    }

    fn transmit(
        &mut self,
        front: &[u8],
        blocks: &[&Bound<'_, PyBytes>],
        admitted: usize,
        tail: &[u8],
        hint: Hint,
    ) -> io::Result<()> {
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        let mut parts: Vec<&[u8]> = Vec::with_capacity(blocks.len() + 2);
        let mut room = admitted;
        parts.push(front);
        for block in blocks {
            let bytes = block.as_bytes();
            let part = &bytes[..bytes.len().min(room)];
            room -= part.len();
            parts.push(part);
        }
        parts.push(tail);
        let mut taken = if self.waiting.backlog.is_empty() { exchange.send(&parts, hint)? } else { 0 };
        for (index, part) in parts.iter().enumerate() {
            let start = taken.min(part.len());
            taken -= start;
            if start == part.len() {
                continue;
            }
            let owner = index.checked_sub(1).and_then(|index| blocks.get(index));
            self.waiting.backlog.push_back(match owner {
                // Nothing of it is copied: the object is the application's.
                Some(block) if part.len() == block.as_bytes().len() => {
                    Unsent { bytes: Box::new(PyBackedBytes::from((*block).clone())), start }
                }
                _ => Unsent { bytes: Box::new(part[start..].to_vec()), start: 0 },
            });
        }
        Ok(())
    }
}

/// Locks a response. A panic while it was held leaves plain data behind, so poisoning carries no news.
pub fn lock(shared: &Mutex<ResponseWriter>) -> MutexGuard<'_, ResponseWriter> {
    shared.lock().unpoisoned()
}

/// A shared response writer, whose responses name the server by `server` (a [`response::server_line`]), and may be of these `files`.
pub fn shared(server: &Arc<[u8]>, files: Option<&Arc<AppFiles>>) -> Arc<Mutex<ResponseWriter>> {
    Arc::new(Mutex::new(ResponseWriter::new(server.clone(), files.cloned())))
}

/// Copies the first `admitted` bytes of `blocks` behind `front`.
fn gather(front: &mut Vec<u8>, blocks: &[&Bound<'_, PyBytes>], admitted: usize) {
    let end = front.len() + admitted;
    for block in blocks {
        let bytes = block.as_bytes();
        front.extend_from_slice(&bytes[..bytes.len().min(end - front.len())]);
    }
}

fn comes_from_a_proxy(request: RequestView<'_>) -> bool {
    *request.client.peer == Peer::Unix || request.client.proxied.is_some() || request.head.names_a_proxy(request.buffer)
}

fn request_is_over() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the request is over")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::recording::{Received, RecordingExchange};

    /// What the application says of a response to which there is nothing to say.
    fn ok(content_length: Option<u64>) -> ResponseHead {
        ResponseHead { status: b"200 OK".to_vec(), code: 200, content_length, ..ResponseHead::default() }
    }

    /// A response of which only the head is known, and its client.
    fn started(head: ResponseHead) -> (ResponseWriter, Arc<Mutex<Received>>) {
        let (exchange, received) = RecordingExchange::new();
        let mut response = ResponseWriter::new(b"".as_slice().into(), None);
        begin(&mut response, Box::new(exchange));
        response.take_draft();
        response.start(head);
        (response, received)
    }

    fn begin(response: &mut ResponseWriter, exchange: Box<dyn Exchange>) {
        let wanted = Wanted::by(exchange.request());
        response.begin(exchange, wanted, false);
    }

    /// A response whose head is out, and its client, who has taken nothing of a body.
    fn begun(content_length: Option<u64>) -> (ResponseWriter, Arc<Mutex<Received>>) {
        let (mut response, received) = started(ok(content_length));
        response.send(&[], false).unwrap();
        assert_eq!(std::mem::take(&mut received.lock().unwrap().hints).len(), 1, "the head");
        received.lock().unwrap().bytes.clear();
        (response, received)
    }

    #[test]
    fn an_end_without_bytes_is_not_written() {
        for (content_length, writes) in [(Some(0), 0), (None, 1)] {
            let (mut response, received) = begun(content_length);
            assert_eq!(response.finish(), Disposition::KeepAlive);
            assert_eq!(received.lock().unwrap().hints.len(), writes, "{content_length:?}");
        }
    }

    #[test]
    fn what_is_sent_says_what_comes_behind_it() {
        let with_upgrade = ResponseHead { upgrade: true, ..ok(Some(0)) };
        let rows = [
            ("whole", ok(Some(0)), true, Hint::LastOfResponse),
            ("not whole", ok(Some(1)), false, Hint::Now),
            ("a last chunk", ok(None), true, Hint::LastOfResponse),
            ("more to come", ok(None), false, Hint::Now),
            ("another protocol", with_upgrade, true, Hint::Now),
        ];
        for (name, head, last, hint) in rows {
            let (mut response, received) = started(head);
            response.send(&[], last).unwrap();
            assert_eq!(received.lock().unwrap().hints, [hint], "{name}");
        }
    }

    #[test]
    fn the_end_of_the_connection_comes_with_the_last_bytes_where_nothing_is_called_between() {
        for (is_observed, is_followed, hint) in
            [(false, false, Hint::LastOfConnection), (true, false, Hint::Now), (false, true, Hint::Now)]
        {
            let (mut response, received) = started(ok(None));
            response.wanted.version = Version::Http10;
            response.start_again(ok(None));
            response.is_followed = is_observed;
            response.complete(is_followed).unwrap();
            assert_eq!(received.lock().unwrap().hints, [hint], "{is_observed} {is_followed}");
        }
    }

    #[test]
    fn what_the_exchange_has_no_room_for_is_handed_over_later() {
        let (mut response, received) = begun(Some(10));
        received.lock().unwrap().room = 4;
        response.transmit_one(b"0123456789", Hint::Now).unwrap();
        assert!(response.has_backlog());
        assert!(matches!(response.try_send_backlog().unwrap(), Tried::NotYet(_)));
        received.lock().unwrap().room = 3;
        assert!(matches!(response.try_send_backlog().unwrap(), Tried::NotYet(_)));
        received.lock().unwrap().room = usize::MAX;
        assert_eq!(response.try_send_backlog().unwrap(), Tried::Done(()));
        assert!(!response.has_backlog());
        assert_eq!(received.lock().unwrap().bytes, b"0123456789");
    }

    #[test]
    fn nothing_overtakes_what_waits_and_the_end_leaves_it_to_the_exchange() {
        let (mut response, received) = begun(None);
        received.lock().unwrap().room = 4;
        response.transmit_one(b"0123456789", Hint::Now).unwrap();
        received.lock().unwrap().room = usize::MAX;
        response.transmit_one(b" and more ", Hint::Now).unwrap();
        assert_eq!(received.lock().unwrap().bytes, b"0123");
        assert_eq!(response.finish(), Disposition::KeepAlive);
        assert!(!response.has_backlog());
        assert_eq!(received.lock().unwrap().bytes, b"0123456789 and more 0\r\n\r\n");
    }

    #[test]
    fn an_error_behind_the_head_leaves_the_response_incomplete() {
        let (mut response, received) = begun(Some(5));
        assert_eq!(response.fail(500, "a page"), Disposition::Broken);
        assert_eq!(received.lock().unwrap().bytes, b"");
        assert!(response.length_complaint().is_some());
    }

    #[test]
    fn a_client_that_is_gone_is_the_end_of_its_request_only() {
        let (mut response, received) = begun(Some(3));
        received.lock().unwrap().is_gone = true;
        assert_eq!(response.finish(), Disposition::Gone);
        assert!(response.client_is_gone());
        let (exchange, summary) = response.end(false).unwrap();
        assert_eq!(summary.status, CLIENT_CLOSED_REQUEST);
        received.lock().unwrap().is_gone = false;
        begin(&mut response, exchange);
        response.take_draft();
        response.start(ok(Some(0)));
        assert_eq!(response.finish(), Disposition::KeepAlive);
    }

    #[test]
    fn a_live_response_keeps_out_of_files() {
        for is_live in [false, true] {
            let (_, received) = started(ResponseHead { is_live, ..ok(None) });
            assert_eq!(received.lock().unwrap().avoids_files, is_live);
        }
    }

    impl ResponseWriter {
        /// As after a second `start_response` with `exc_info`.
        fn start_again(&mut self, head: ResponseHead) {
            self.take_draft();
            self.start(head);
        }
    }
}
