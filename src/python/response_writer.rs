//! One response on its way out: what `start_response`, `write()` and the iteration of the result add up to, in HTTP.
//!
//! Decides what goes on the wire and when (framing, keep-alive, what is cut or missing), and hands it to the [`Exchange`]. The objects
//! that the application holds share it behind a mutex, which is never held while Python code runs or the kernel is waited for.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::header_line_cache::HeaderLineCache;
use crate::exchange::{CLIENT_CLOSED_REQUEST, Exchange, Wait, WriteChunk};
use crate::http::date::DateCache;
use crate::http::encode::{BodyEncoder, Framed, LengthFault};
use crate::http::error::{ErrorPage, reason_phrase};
use crate::http::request::{Span, Version};
use crate::http::response::{self, Asked, BodyPlan, ConnectionHeader};
use crate::sys::clock::unix_time;
use crate::sys::fork;
use crate::sys::socket::Cork;
use crate::tls::Secured;

/// Unsent bytes of a block up to this many are copied; longer ones keep the application's object alive instead.
const COPY_LIMIT: usize = 16 * 1024;

/// Responses of up to this many bytes are put together and sent as one piece, which costs the kernel less than a list of them.
const GATHER_LIMIT: usize = 8 * 1024;

/// A block that comes this soon after the one before it may wait for company. At that pace a send for each costs a tenth of the time; at
/// a faster one it would soon cost more than the application.
const FAST: Duration = Duration::from_micros(50);

/// How much may wait, of blocks that are no longer than [`GATHER_LIMIT`].
const HOLD_LIMIT: usize = 32 * 1024;

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
    /// The application asked for `ConnectionHeader: upgrade`.
    pub upgrade: bool,
    /// What the request asked for.
    pub asked: Asked,
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

/// A response in the making and the exchange it goes out on.
pub struct ResponseWriter {
    exchange: Option<Box<dyn Exchange>>,
    progress: Progress,
    head: ResponseHead,
    asked: Asked,
    version: Version,
    encoder: BodyEncoder,
    keep_alive: bool,
    client_gone: bool,
    socket_lent: bool,
    /// Python code runs between the response's last byte and what becomes of the connection.
    is_observed: bool,
    /// So it does, because the result of the application is still to be closed.
    is_followed: bool,
    /// See [`response::server_line`].
    server: Arc<[u8]>,
    date: DateCache,
    /// What waits for company, framed, if anything does; what is being put together, within a call.
    buffer: Vec<u8>,
    /// When the last block of an iteration was sent, or held back.
    last_block: Option<Instant>,
    /// The flusher looks after this response.
    is_attended: bool,
    /// It must wait for no others ([`Exchange::put_by`]): it has taken long already.
    is_late: bool,
    /// The flusher has found the client gone, which the application has yet to hear.
    flush_failed: bool,
    /// Threads that wait for the client.
    waiters: usize,
    /// Whether those are to give it up: the request is over.
    is_ending: bool,
}

/// What the flusher has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing to send.
    Nothing,
    /// Something, of which the client has taken some or all.
    Something,
    /// Something, of which the client takes nothing.
    SlowClient,
}

/// What came of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tried<T> {
    /// What was attempted.
    Done(T),
    /// It has to wait for the client.
    NotYet(Wait),
}

/// What became of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "what waits must be sent by somebody"]
pub enum Streamed {
    /// It was sent, as far as the client takes it.
    Sent,
    /// It waits, for company or for the client, and the [flusher](super::flusher) looks after it.
    Attended,
    /// It waits, and the flusher is to be asked to look after it.
    Unattended,
}

impl ResponseWriter {
    fn new(server: Arc<[u8]>) -> Self {
        ResponseWriter {
            exchange: None,
            progress: Progress::Complete,
            head: ResponseHead::default(),
            asked: Asked::Whole,
            version: Version::Http11,
            encoder: BodyEncoder::without_body(),
            keep_alive: false,
            client_gone: false,
            socket_lent: false,
            is_observed: false,
            is_followed: false,
            server,
            date: DateCache::new(),
            buffer: Vec::new(),
            last_block: None,
            is_attended: false,
            is_late: false,
            flush_failed: false,
            waiters: 0,
            is_ending: false,
        }
    }

    /// Begins the response to the request in `exchange`; `is_observed` says that somebody looks at it when it is out.
    pub fn begin(&mut self, exchange: Box<dyn Exchange>, is_observed: bool) {
        let view = exchange.request();
        self.asked = Asked::by(view.head.method.of(view.buffer));
        self.version = view.head.version;
        self.progress = Progress::Waiting;
        self.encoder = BodyEncoder::without_body();
        (self.keep_alive, self.client_gone, self.socket_lent) = (false, false, false);
        (self.is_observed, self.is_followed, self.is_ending) = (is_observed, false, false);
        (self.last_block, self.flush_failed) = (None, false);
        // Whatever became of the last response, nothing of it may go out with this one.
        self.buffer.clear();
        self.exchange = Some(exchange);
    }

    /// How far the response has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether the client went away while the response was being sent.
    pub fn client_is_gone(&self) -> bool {
        self.client_gone
    }

    /// Whether the client asked for the head only.
    pub fn sends_body(&self) -> bool {
        self.encoder.plan() != BodyPlan::None
    }

    /// The response as it stands; `None` where there is none.
    pub fn view(&self) -> Option<ResponseView> {
        if matches!(self.progress, Progress::Waiting | Progress::Drafting) || self.head.code == 0 {
            return None;
        }
        Some(ResponseView {
            status: self.head.status.clone(),
            code: self.head.code,
            headers: self.head.headers.clone(),
            sent: self.encoder.admitted(),
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
    pub fn describe_exchange(&self) -> Option<String> {
        let exchange = self.exchange.as_ref()?;
        Some(format!("{} from {}", self.describe_request(), exchange.request().remote_addr))
    }

    /// Whether a request waits for the first byte of its answer.
    pub fn is_under_way(&self) -> bool {
        self.exchange.is_some() && !self.is_head_out()
    }

    /// Whether nothing else can be answered any more.
    fn is_head_out(&self) -> bool {
        matches!(self.progress, Progress::Sending | Progress::Complete)
    }

    /// After a head that could not be read: there is none.
    pub fn unstart(&mut self) {
        if self.progress == Progress::Drafting {
            self.progress = Progress::Waiting;
        }
    }

    /// A draft for `start_response` to fill in; its buffers, and the status until it is told, are those of an earlier response. Until it
    /// comes [back](Transmission::start) nothing can be sent.
    pub fn take_draft(&mut self) -> ResponseHead {
        self.progress = Progress::Drafting;
        let mut head = std::mem::take(&mut self.head);
        head.headers.clear();
        (head.content_length, head.upgrade, head.asked) = (None, false, self.asked);
        head
    }

    /// Sets or replaces the head. Nothing is sent yet; and nothing will be, if the request has been answered meanwhile.
    pub fn start(&mut self, head: ResponseHead) {
        if self.progress != Progress::Drafting {
            return;
        }
        self.encoder = BodyEncoder::new(self.asked, self.version, head.code, head.content_length);
        self.head = head;
        self.progress = Progress::Started;
    }

    /// Sends a block of an iteration, or holds it back for a moment where it follows the one before it so fast that more may be about to.
    ///
    /// # Errors
    /// The client is gone.
    pub fn stream(&mut self, block: &Bound<'_, PyBytes>) -> io::Result<Streamed> {
        let bytes = block.as_bytes();
        if let Some(before) = self.last_block {
            let now = Instant::now();
            if now.duration_since(before) < FAST && self.may_hold(bytes.len()) {
                self.last_block = Some(now);
                return Ok(self.hold(bytes));
            }
        }
        self.send(&[block], false)?;
        self.last_block = Some(Instant::now());
        // No block will be sent after this one, so nobody need wait until the client has taken it.
        let is_left = self.is_whole() && self.has_queued() && !self.is_put_by();
        Ok(if is_left { self.attend() } else { Streamed::Sent })
    }

    fn may_hold(&self, length: usize) -> bool {
        let is_short = length <= GATHER_LIMIT && self.buffer.len() + length <= HOLD_LIMIT;
        is_short && !self.socket_lent && !self.flush_failed && !self.has_queued()
    }

    fn hold(&mut self, block: &[u8]) -> Streamed {
        let mut held = std::mem::take(&mut self.buffer);
        let framed = self.encoder.frame(&mut held, block.len(), false);
        held.extend_from_slice(&block[..framed.admitted]);
        held.extend_from_slice(framed.tail);
        self.buffer = held;
        self.attend()
    }

    fn attend(&mut self) -> Streamed {
        if std::mem::replace(&mut self.is_attended, true) { Streamed::Attended } else { Streamed::Unattended }
    }

    /// For the flusher: sends what is held back, or goes on with what the client has not taken.
    pub fn flush_for_application(&mut self) -> Found {
        // A lent socket blocks, and it is the application's; nothing is held then.
        if self.socket_lent || self.client_gone || self.flush_failed {
            return Found::Nothing;
        }
        let has_sent = match &mut self.exchange {
            Some(exchange) if exchange.has_queued() => exchange.flush_queued(),
            Some(_) if !self.buffer.is_empty() => self.flush().map(|()| true),
            _ => return Found::Nothing,
        };
        match has_sent {
            Ok(true) => Found::Something,
            Ok(false) => Found::SlowClient,
            Err(_) => {
                // The application hears of it with its next block. Until then an error of its own is no consequence of this one.
                (self.flush_failed, self.client_gone) = (true, false);
                Found::Nothing
            }
        }
    }

    /// For the spare thread, while the application is at the request: the response waits for no others from now on.
    pub fn hurry(&mut self) {
        self.is_late = true;
        if let Some(exchange) = &mut self.exchange
            && exchange.is_put_by()
            && exchange.flush_queued().is_err()
        {
            self.flush_failed = true;
        }
    }

    /// A fault of the server's has come between what was to be sent and the client: nobody knows how much of it is out. The application
    /// hears of it as of a client that is gone.
    pub fn give_up_after_fault(&mut self) {
        self.flush_failed = true;
        self.buffer.clear();
        self.leave_to_itself();
    }

    /// The flusher looks at this response no more.
    pub fn leave_to_itself(&mut self) {
        self.is_attended = false;
    }

    /// Sends what is held back.
    fn flush(&mut self) -> io::Result<()> {
        if fork::is_copy() {
            // It goes out from where it was produced.
            self.buffer.clear();
        }
        if self.buffer.is_empty() { Ok(()) } else { self.send(&[], false) }
    }

    /// Whether the client has not taken everything that was sent so far.
    pub fn has_queued(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.has_queued())
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
        if self.flush_failed {
            self.client_gone = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !self.takes_blocks() {
            return Err(io::Error::other("the response takes no blocks now"));
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
        let push = self.push(last);
        let result = if front.len() + admitted + tail.len() <= GATHER_LIMIT {
            gather(&mut front, blocks, admitted);
            front.extend_from_slice(tail);
            if is_first && self.put_by(&front) { Ok(()) } else { self.transmit_one(&front, push) }
        } else {
            self.transmit(&front, blocks, admitted, tail, push)
        };
        front.clear();
        self.buffer = front;
        result.inspect_err(|_| self.client_gone = true)
    }

    /// Sends the rest of a regular file from `offset` on, by the kernel alone, as the whole body.
    ///
    /// # Errors
    /// The client is gone, or the descriptor could not be used.
    pub fn send_file(&mut self, file: std::os::fd::OwnedFd, offset: u64, length: u64) -> io::Result<()> {
        let mut front = std::mem::take(&mut self.buffer);
        front.clear();
        self.render_head(&mut front);
        self.progress = Progress::Complete;
        let offered = usize::try_from(length).unwrap_or(usize::MAX);
        let Framed { admitted, tail } = self.encoder.frame(&mut front, offered, true);
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        exchange.queue(WriteChunk::Owned(front));
        if admitted > 0 {
            exchange.queue(WriteChunk::File { file, offset, remaining: admitted as u64 });
        }
        if !tail.is_empty() {
            exchange.queue(WriteChunk::Owned(tail.to_vec()));
        }
        Ok(())
    }

    /// Sends an informational response (103 Early Hints, RFC 8297). Does nothing once the final head is out, or for HTTP/1.0.
    ///
    /// # Errors
    /// The client is gone.
    pub fn send_interim(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_head_out() || self.version == Version::Http10 {
            return Ok(());
        }
        self.transmit_one(bytes, Cork::No).inspect_err(|_| self.client_gone = true)
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
        self.client_gone |= self.flush_failed;
        if self.client_gone || self.complete(false).is_err() {
            return Disposition::Gone;
        }
        if self.encoder.is_short() {
            return Disposition::Broken;
        }
        if self.keep_alive && !self.socket_lent { Disposition::KeepAlive } else { Disposition::Close }
    }

    /// Answers with a page of the server's own instead, if the head is not out yet, else leaves the response visibly incomplete.
    pub fn fail(&mut self, status: u16, message: &str) -> Disposition {
        if self.client_gone || self.flush().is_err() {
            return Disposition::Gone;
        }
        if self.is_head_out() {
            self.progress = Progress::Complete;
            return Disposition::Broken;
        }
        self.progress = Progress::Complete;
        self.head.code = status;
        self.head.status = format!("{status} {}", reason_phrase(status)).into_bytes();
        self.head.known.set_status(None);
        self.head.headers.clear();
        // The page is framed by itself: those who look at the response must not see what the application, or the last one, had in mind.
        (self.head.content_length, self.encoder) = (None, BodyEncoder::without_body());
        let page = ErrorPage { status, message, is_head: self.asked == Asked::Head };
        let page = page.render(self.date.get(unix_time()));
        match self.transmit_one(&page, Cork::No) {
            Ok(()) => Disposition::Close,
            Err(_) => {
                self.client_gone = true;
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
            _ if self.client_gone => CLIENT_CLOSED_REQUEST,
            Progress::Waiting | Progress::Drafting => 0,
            _ => self.head.code,
        };
        if self.waiters > 0 {
            self.is_ending = true;
            return None;
        }
        let exchange = self.exchange.take()?;
        // Not when the next one begins: the spare thread looks at what is about to begin as well.
        self.is_late = false;
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
        self.socket_lent = true;
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
            self.waiters += 1;
        }
        Ok(tried)
    }

    /// Somebody has waited, and has let go of the exchange's descriptor.
    pub fn leave_wait(&mut self) {
        self.waiters -= 1;
    }

    /// Whether who waits for the client is to give it up.
    pub fn is_over(&self) -> bool {
        self.is_ending || self.exchange.is_none()
    }

    /// Sends what is held back and what is queued, as far as the client takes it.
    ///
    /// # Errors
    /// The client is gone, or has stopped reading.
    pub fn try_send_all(&mut self) -> io::Result<Tried<()>> {
        self.flush()?;
        self.try_send_queued()
    }

    /// Sends what is queued, as far as the client takes it.
    ///
    /// # Errors
    /// As [`ResponseWriter::try_send_all`].
    pub fn try_send_queued(&mut self) -> io::Result<Tried<()>> {
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        let mut tried = || {
            exchange.flush_queued()?;
            if exchange.has_queued() { exchange.wait_to_write().map(Tried::NotYet) } else { Ok(Tried::Done(())) }
        };
        tried().inspect_err(|_| self.client_gone = true)
    }

    /// Reads what is there of a streamed body, once the client has all that the application has produced: it may be waiting for that
    /// before it sends more.
    ///
    /// # Errors
    /// Those of [`Exchange::read_body`].
    pub fn try_read_body(&mut self, buffer: &mut [u8]) -> io::Result<Tried<usize>> {
        if let Tried::NotYet(wait) = self.try_send_all()? {
            return Ok(Tried::NotYet(wait));
        }
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

    /// Leaves a whole response to be sent with others, if there are any.
    fn put_by(&mut self, response: &[u8]) -> bool {
        let may_wait = self.is_whole() && self.keep_alive && !self.head.upgrade && !self.is_late;
        may_wait && !fork::is_copy() && self.exchange.as_mut().is_some_and(|exchange| exchange.put_by(response))
    }

    /// Whether the response waits for others, with which somebody else sends it.
    pub fn is_put_by(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.is_put_by())
    }

    fn render_head(&mut self, out: &mut Vec<u8>) {
        let may_keep_alive = self.exchange.as_ref().is_some_and(|exchange| exchange.may_keep_alive());
        self.keep_alive = may_keep_alive && self.encoder.plan() != BodyPlan::UntilClose && !self.socket_lent;
        let connection = match (self.head.upgrade, self.keep_alive) {
            (true, _) => ConnectionHeader::Upgrade,
            (false, true) => ConnectionHeader::KeepAlive,
            (false, false) => ConnectionHeader::Close,
        };
        let chunked = self.encoder.plan() == BodyPlan::Chunked;
        let date = self.date.get(unix_time());
        response::write_head_start(out, self.version, &self.head.status, &self.server, date, connection, chunked);
        out.extend_from_slice(&self.head.headers);
        response::write_head_end(out);
    }

    /// The last bytes may travel with the end of the connection, if that comes at once: what is called in between could hold them up. (What
    /// is left are destructors of the application's objects, and a full access log; for them the kernel's patience is short.)
    fn push(&self, last: bool) -> Cork {
        let ends = last && !self.keep_alive && !self.head.upgrade && !self.socket_lent;
        if ends && !self.is_observed && !self.is_followed { Cork::UntilShutdown } else { Cork::No }
    }

    /// One write, and the rest queued; no write of nothing, which costs the kernel as much.
    fn transmit_one(&mut self, bytes: &[u8], push: Cork) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        let sent = exchange.write(&[bytes], push)?;
        if sent < bytes.len() {
            exchange.queue(WriteChunk::Owned(bytes[sent..].to_vec()));
        }
        Ok(())
    }

    /// One write of everything, and the rest queued.
    fn transmit(
        &mut self,
        front: &[u8],
        blocks: &[&Bound<'_, PyBytes>],
        admitted: usize,
        back: &[u8],
        push: Cork,
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
        if !back.is_empty() {
            parts.push(back);
        }
        let mut sent = exchange.write(&parts, push)?;
        for (index, part) in parts.iter().enumerate() {
            if sent >= part.len() {
                sent -= part.len();
                continue;
            }
            let left = &part[sent..];
            let start = std::mem::take(&mut sent);
            let owner = index.checked_sub(1).and_then(|index| blocks.get(index));
            exchange.queue(match owner {
                Some(block) if left.len() > COPY_LIMIT && part.len() == block.as_bytes().len() => {
                    WriteChunk::Shared { bytes: Box::new(PyBackedBytes::from((*block).clone())), start }
                }
                _ => WriteChunk::Owned(left.to_vec()),
            });
        }
        Ok(())
    }
}

/// Locks a transmission. A panic while it was held leaves plain data behind, so poisoning carries no news.
pub fn lock(shared: &Mutex<ResponseWriter>) -> MutexGuard<'_, ResponseWriter> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A shared transmission, whose responses name the server by `server` (a [`response::server_line`]).
pub fn shared(server: &Arc<[u8]>) -> Arc<Mutex<ResponseWriter>> {
    Arc::new(Mutex::new(ResponseWriter::new(server.clone())))
}

/// Copies the first `admitted` bytes of `blocks` behind `front`.
fn gather(front: &mut Vec<u8>, blocks: &[&Bound<'_, PyBytes>], admitted: usize) {
    let end = front.len() + admitted;
    for block in blocks {
        let bytes = block.as_bytes();
        front.extend_from_slice(&bytes[..bytes.len().min(end - front.len())]);
    }
}

fn request_is_over() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the request is over")
}

#[cfg(test)]
mod tests {
    use std::os::fd::RawFd;

    use super::*;
    use crate::exchange::{Body, RequestView};
    use crate::http::request::RequestHead;
    use crate::sys::socket::Peer;

    /// What a client has taken and in how many writes, and how much more it takes.
    struct RecordingExchange {
        taken: Vec<u8>,
        writes: usize,
        room: usize,
        is_broken: bool,
    }

    /// A client.
    struct Reader {
        head: RequestHead,
        wire: Arc<Mutex<RecordingExchange>>,
        queue: Vec<u8>,
        has_company: bool,
        is_put_by: bool,
    }

    impl Reader {
        fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut wire = self.wire.lock().unwrap();
            if wire.is_broken {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let count = bytes.len().min(wire.room);
            wire.room -= count;
            wire.writes += 1;
            wire.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
    }

    impl Exchange for Reader {
        fn request(&self) -> RequestView<'_> {
            RequestView {
                buffer: b"",
                head: &self.head,
                peer: &Peer::Unix,
                remote_addr: "",
                proxied: None,
                decoded_length: None,
                site: 0,
                scheme: crate::http::request::Scheme::Http,
                secured: None,
            }
        }

        fn take_body(&mut self) -> Body {
            Body::empty()
        }

        fn return_buffer(&mut self, _: Vec<u8>) {}

        fn write(&mut self, parts: &[&[u8]], _: Cork) -> io::Result<usize> {
            self.flush_queued()?;
            if self.has_queued() { Ok(0) } else { self.take(&parts.concat()) }
        }

        fn put_by(&mut self, response: &[u8]) -> bool {
            self.is_put_by = self.has_company;
            if self.is_put_by {
                self.queue.extend_from_slice(response);
            }
            self.is_put_by
        }

        fn is_put_by(&self) -> bool {
            self.is_put_by
        }

        fn queue(&mut self, piece: WriteChunk) {
            let WriteChunk::Owned(bytes) = piece else { panic!("only bytes come here") };
            self.queue.extend_from_slice(&bytes);
        }

        fn flush_queued(&mut self) -> io::Result<bool> {
            let queue = std::mem::take(&mut self.queue);
            let count = if queue.is_empty() { 0 } else { self.take(&queue)? };
            self.queue = queue[count..].to_vec();
            self.is_put_by &= self.has_queued();
            Ok(count > 0)
        }

        fn has_queued(&self) -> bool {
            !self.queue.is_empty()
        }

        fn wait_to_write(&mut self) -> io::Result<Wait> {
            Err(io::ErrorKind::TimedOut.into())
        }

        fn read_body(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }

        fn wait_to_read(&mut self) -> io::Result<Wait> {
            Err(io::ErrorKind::TimedOut.into())
        }

        fn may_keep_alive(&self) -> bool {
            true
        }

        fn lend_socket(&mut self) -> io::Result<RawFd> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// What the application says of a response to which there is nothing to say.
    fn ok(content_length: Option<u64>) -> ResponseHead {
        ResponseHead { status: b"200 OK".to_vec(), code: 200, content_length, ..ResponseHead::default() }
    }

    /// A response of which only the head is known, and its client.
    fn started(content_length: Option<u64>, has_company: bool) -> (ResponseWriter, Arc<Mutex<RecordingExchange>>) {
        let wire = RecordingExchange { taken: Vec::new(), writes: 0, room: usize::MAX, is_broken: false };
        let wire = Arc::new(Mutex::new(wire));
        let mut response = ResponseWriter::new(b"".as_slice().into());
        let reader = Reader {
            head: RequestHead::default(),
            wire: wire.clone(),
            queue: Vec::new(),
            has_company,
            is_put_by: false,
        };
        response.begin(Box::new(reader), false);
        response.take_draft();
        response.start(ok(content_length));
        (response, wire)
    }

    /// A response whose head is out, and its client, who has taken nothing of a body.
    fn begun(content_length: Option<u64>) -> (ResponseWriter, Arc<Mutex<RecordingExchange>>) {
        let (mut response, wire) = started(content_length, false);
        response.send(&[], false).unwrap();
        assert_eq!(wire.lock().unwrap().writes, 1, "the head");
        wire.lock().unwrap().taken.clear();
        (response, wire)
    }

    fn text(wire: &Mutex<RecordingExchange>) -> String {
        String::from_utf8(wire.lock().unwrap().taken.clone()).unwrap()
    }

    #[test]
    fn an_end_that_is_no_byte_is_not_written() {
        for (content_length, writes_in_all) in [(Some(0), 1), (None, 2)] {
            let (mut response, wire) = begun(content_length);
            assert_eq!(response.finish(), Disposition::KeepAlive);
            assert_eq!(wire.lock().unwrap().writes, writes_in_all, "{content_length:?}");
        }
    }

    #[test]
    fn short_blocks_wait_while_there_is_room() {
        let (mut response, _) = begun(None);
        assert!(response.may_hold(GATHER_LIMIT));
        assert!(!response.may_hold(GATHER_LIMIT + 1), "long");
        for _ in 0..HOLD_LIMIT / GATHER_LIMIT - 1 {
            let _ = response.hold(&[b'x'; GATHER_LIMIT]);
        }
        assert!(response.may_hold(1));
        assert!(!response.may_hold(GATHER_LIMIT), "no room");
    }

    #[test]
    fn blocks_that_wait_leave_together_with_what_comes_next() {
        let (mut response, wire) = begun(None);
        assert_eq!(response.hold(b"one"), Streamed::Unattended);
        assert_eq!(response.hold(b"two"), Streamed::Attended);
        assert_eq!(text(&wire), "");
        assert_eq!(response.finish(), Disposition::KeepAlive);
        assert_eq!(text(&wire), "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");
        assert_eq!(wire.lock().unwrap().writes, 2);
    }

    #[test]
    fn a_length_bounds_what_waits_and_an_error_lets_it_go() {
        let (mut response, wire) = begun(Some(5));
        let _ = response.hold(b"one");
        let _ = response.hold(b"two");
        assert_eq!(response.fail(500, "a page"), Disposition::Broken);
        assert_eq!(text(&wire), "onetw");
        assert!(response.length_complaint().is_some());
    }

    #[test]
    fn the_flusher_goes_on_until_the_client_has_all_of_it() {
        let (mut response, wire) = begun(None);
        wire.lock().unwrap().room = 4;
        let _ = response.hold(b"one");
        assert_eq!(response.flush_for_application(), Found::Something);
        assert_eq!(text(&wire), "3\r\no");
        assert!(!response.may_hold(1), "the application is to wait for the client");
        assert_eq!(response.flush_for_application(), Found::SlowClient);
        wire.lock().unwrap().room = usize::MAX;
        assert!(!response.may_hold(1), "still");
        assert_eq!(response.flush_for_application(), Found::Something);
        assert_eq!(text(&wire), "3\r\none\r\n");
        assert!(response.may_hold(1));
        assert_eq!(response.flush_for_application(), Found::Nothing);
        assert_eq!(response.hold(b"two"), Streamed::Attended);
        assert_eq!(response.flush_for_application(), Found::Something);
        response.leave_to_itself();
        assert_eq!(response.hold(b"six"), Streamed::Unattended);
    }

    #[test]
    fn that_the_flusher_finds_the_client_gone_is_the_end() {
        let (mut response, wire) = begun(Some(3));
        wire.lock().unwrap().is_broken = true;
        let _ = response.hold(b"one");
        assert_eq!(response.flush_for_application(), Found::Nothing);
        assert!(!response.client_is_gone(), "an error of the application's would be taken for that");
        assert_eq!(response.flush_for_application(), Found::Nothing, "once is enough");
        assert_eq!(response.finish(), Disposition::Gone);
        assert!(response.client_is_gone());
        let (exchange, summary) = response.end(false).unwrap();
        assert_eq!(summary.status, CLIENT_CLOSED_REQUEST);
        // The next one is another client's.
        wire.lock().unwrap().is_broken = false;
        response.begin(exchange, false);
        response.take_draft();
        response.start(ok(Some(0)));
        assert_eq!(response.finish(), Disposition::KeepAlive);
    }

    #[test]
    fn a_whole_response_may_wait_for_others_until_somebody_sends_it() {
        let (mut response, wire) = started(Some(0), true);
        response.send(&[], false).unwrap();
        assert_eq!(wire.lock().unwrap().writes, 0);
        assert!(response.is_whole());
        response.hurry();
        assert!(text(&wire).ends_with("\r\n\r\n"));
        response.hurry();
        assert_eq!(response.finish(), Disposition::KeepAlive);
        assert_eq!(wire.lock().unwrap().writes, 1);
    }

    #[test]
    fn that_the_client_of_a_response_that_was_put_by_is_gone_is_the_end_of_it() {
        let (mut response, wire) = started(Some(0), true);
        response.send(&[], false).unwrap();
        wire.lock().unwrap().is_broken = true;
        response.hurry();
        assert_eq!(response.finish(), Disposition::Gone);
    }

    #[test]
    fn what_is_not_whole_or_is_to_be_followed_by_something_else_does_not_wait() {
        for (content_length, upgrade) in [(Some(1), false), (None, false), (Some(0), true)] {
            let (mut response, wire) = started(content_length, true);
            response.head.upgrade = upgrade;
            response.send(&[], false).unwrap();
            assert_eq!(wire.lock().unwrap().writes, 1, "{content_length:?} {upgrade}");
        }
    }

    #[test]
    fn a_response_that_comes_late_does_not_wait() {
        let (mut response, wire) = started(Some(0), true);
        let (exchange, _) = response.end(false).unwrap();
        // Also where the spare thread has looked just before it began.
        response.hurry();
        response.begin(exchange, false);
        response.take_draft();
        response.start(ok(Some(0)));
        response.send(&[], false).unwrap();
        assert_eq!(wire.lock().unwrap().writes, 1);
    }
}
