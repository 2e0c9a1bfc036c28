//! One client's connection: bytes in, requests out, response bytes back, and a deadline for every wait.
//!
//! Knows `http` and a wire; knows no interpreter and no event loop, so it is tested over a socket pair. The event loop tells it that
//! bytes may have arrived or may be sent, that time has passed, or that the application is done; it answers with a [`Step`].

mod arriving;
mod handoff;
mod serving;
mod standing;
mod unserved_request;

pub use handoff::HandoffBytes;
pub use standing::{Standing, UNHURRIED};
pub use unserved_request::UnservedRequest;

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::batching::{Batching, Waits};
use super::body_rate::BodyRate;
use super::body_store::BodyStore;
use super::connection_limits::ConnectionLimits;
use super::holdings::Held;
use super::read_context::{Incoming, ReadContext};
use super::transport::Transport;
use super::write_queue::{Flushed, WriteQueue};
use super::write_timeout::WriteTimeout;
use crate::exchange::Exchange;
use crate::http::body::BodyDecoder;
use crate::http::date::DateCache;
use crate::http::error::{Error, ErrorPage};
use crate::http::proxy::Origin;
use crate::http::request::{HeadParser, RequestHead};
use crate::http::response::{self, Asked};
use crate::sys::clock::unix_time;
use crate::sys::socket::{Peer, Stream};
use crate::tls::{Acceptor, HandshakeFailure, Secured, Session};

/// How a request begins that wants no body in its answer.
const HEAD: &[u8] = b"HEAD ";

/// An input buffer larger than this is given back when the connection falls idle.
const IDLE_BUFFER: usize = 4 * 1024;

/// After a refusal the client may still be sending, and closing at once would reset its connection before it has read the answer. So the
/// rest is read and dropped, this much of it...
const LINGER_BYTES: usize = 64 * 1024;

/// ...and this long (gunicorn's figures).
const LINGER_TIME: Duration = Duration::from_secs(2);

/// What the event loop is to do next with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait for the client.
    Wait,
    /// Send its response, which was deferred, together with those of other connections.
    Send,
    /// There is more to do here at once, when others have had their turn.
    Again,
    /// Call the application with the request that is ready.
    Call,
    /// Answer, by [`Connection::answer_check`], whether the server serves.
    Check,
    /// The request was refused and the answer is on its way: log it, then wait.
    Refused(Error),
    /// The client has gone before its request could be run: log it, and close.
    Left,
    /// The client does not read its response: log it, and close.
    Stalled,
    /// The client's TLS came to nothing, and why: log it, then wait.
    TlsFailed(String),
    /// Its wait is over: read once more, and close it if nothing has come.
    LastLook,
    /// Close it, by way of [`Connection::end`].
    Close,
}

/// A client's connection.
pub struct Connection {
    transport: Transport,
    /// What TLS is to be begun with, once a PROXY header is out of the way.
    acceptor: Option<Acceptor>,
    limits: Arc<ConnectionLimits>,
    peer: Peer,
    remote_addr: String,
    site: usize,
    is_trusted: bool,
    /// What a PROXY header said, if there was one.
    proxied: Option<Origin>,
    state: State,
    /// Whether the kernel may hold bytes, or the end, that no new event will tell of.
    unread: bool,
    /// Whether the client has said that it sends nothing more; told once, while the bytes before it may still be unread.
    has_ended: bool,
    /// Received and not used up; the current request's head is in front while it is served.
    input: Vec<u8>,
    parser: HeadParser,
    head: RequestHead,
    /// What the current request asks for; `None` until `head` is that request's, parsed whole.
    asked: Option<Asked>,
    body: Option<BodyStore>,
    /// The buffer of a body that the application is done with.
    returned: Vec<u8>,
    decoder: BodyDecoder,
    body_rate: BodyRate,
    /// Decoded body bytes that found no place in the store.
    unsaved: Vec<u8>,
    /// Decoded bytes of the current request's body.
    body_length: u64,
    /// What of that, and of its head, has been written down as held.
    held: Held,
    write_queue: WriteQueue,
    /// When the state's wait ends, if it does.
    deadline: Option<Instant>,
    /// When it was accepted, or its last request was answered.
    rests_since: Instant,
    has_been_served: bool,
    /// The wait for the client to read, if it is waited for.
    write_timeout: WriteTimeout,
    watched: Watched,
    /// What of the response waits for more to come.
    batching: Batching,
    /// Why nothing can be sent any more, once that is so.
    output_failure: Option<ErrorKind>,
    /// Whether the application was given the socket, which is blocking as long as it has the request.
    is_lent: bool,
    /// What was left behind when the application was lent a socket in place of a TLS session.
    lent: Option<Box<LentSession>>,
}

/// A TLS session that went to a pump, as far as the connection needs it still.
struct LentSession {
    /// The descriptor that the poll knows, until it knows it no more.
    stream: Option<Stream>,
    secured: Option<Arc<Secured>>,
}

/// What the event loop's poll tells of a connection. It is told more only when that is needed, and never less again: each change is a
/// system call, each needless event a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watched {
    /// Nothing.
    Not,
    /// Bytes that arrive.
    ForReading,
    /// Those, and room for bytes to be sent.
    ForBoth,
}

/// What the connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A PROXY header may come before the first request.
    Proxy,
    /// Waiting for a request, or reading its head.
    Head,
    /// Reading its body.
    Body,
    /// The request is ready, or with the application.
    Serving,
    /// Nothing follows but the queued bytes.
    Closing,
    /// The answer is out and our side closed; so many bytes of what still comes are dropped.
    Lingering(usize),
    /// Our side is closed, and nothing that has come lies unread.
    Over,
}

impl Connection {
    /// A connection just accepted on listener number `site`.
    pub fn new(stream: Stream, peer: Peer, site: usize, limits: Arc<ConnectionLimits>, now: Instant) -> Self {
        let state = if limits.proxy_mode.is_some() { State::Proxy } else { State::Head };
        Connection {
            is_trusted: limits.trusts(&peer),
            proxied: None,
            remote_addr: address_text(&peer),
            deadline: Some(now + limits.head_timeout),
            rests_since: now,
            has_been_served: false,
            decoder: BodyDecoder::Length(0),
            body_rate: BodyRate::begin(now),
            transport: Transport::plain(stream),
            acceptor: None,
            limits,
            peer,
            site,
            state,
            unread: false,
            has_ended: false,
            input: Vec::new(),
            parser: HeadParser::new(),
            head: RequestHead::default(),
            asked: None,
            body: None,
            returned: Vec::new(),
            unsaved: Vec::new(),
            body_length: 0,
            held: Held::default(),
            write_queue: WriteQueue::default(),
            write_timeout: WriteTimeout::default(),
            watched: Watched::Not,
            batching: Batching::default(),
            output_failure: None,
            is_lent: false,
            lent: None,
        }
    }

    /// The same under TLS, which begins at once, or behind a PROXY header.
    ///
    /// # Errors
    /// Those of [`Session::new`].
    pub fn under_tls(mut self, acceptor: Acceptor) -> io::Result<Self> {
        self.acceptor = Some(acceptor);
        if self.state == State::Head {
            self.begin_tls(Vec::new())?;
        }
        Ok(self)
    }

    /// Reads what has arrived, at `read_context`, at most `reads` times, and goes as far as it leads. `ended` says that the client has ended its
    /// side, which by itself is no abort (RFC 9112, 9.6): what it asked for is still answered.
    pub fn on_readable(&mut self, read_context: &mut ReadContext, ended: bool, reads: usize, now: Instant) -> Step {
        let step = self.read_on(read_context, ended, reads, now);
        // What came whole, and is about to be served, is not worth the writing; nor would it stay for long.
        if step != Step::Call || matches!(self.body, Some(BodyStore::Memory(_) | BodyStore::Spooled(..))) {
            self.note_held();
        }
        step
    }

    fn read_on(&mut self, read_context: &mut ReadContext, ended: bool, reads: usize, now: Instant) -> Step {
        self.note_unread(ended);
        let answers = match self.state {
            State::Serving | State::Closing | State::Over => true,
            State::Head => self.has_unsent(),
            State::Proxy | State::Body | State::Lingering(_) => false,
        };
        if answers {
            // Read when the response is out: till then the kernel keeps the bytes, and the client, waiting.
            return Step::Wait;
        }
        for _ in 0..reads {
            let count = match self.read(&mut read_context.scratch) {
                Ok(Some(0)) => return self.on_end(now),
                Ok(Some(count)) => count,
                Ok(None) => {
                    self.unread = false;
                    return Step::Wait;
                }
                Err(error) => return self.on_broken(&error, now),
            };
            // A short read has emptied the socket, and the next arrival is a new event; the end is not, once it has been told.
            self.unread = self.has_ended || !self.transport.is_drained_by(count, read_context.scratch.len());
            let step = self.on_bytes(Incoming::InScratch(read_context, 0..count), now);
            if step != Step::Wait || !self.unread {
                return step;
            }
        }
        Step::Again
    }

    /// Notes that bytes may have arrived, or the end.
    pub fn note_unread(&mut self, ended: bool) {
        self.unread = true;
        self.has_ended |= ended;
    }

    /// Sends what is queued; goes on once it is out.
    pub fn on_writable(&mut self, now: Instant) -> Step {
        if !self.has_unsent() {
            return Step::Wait;
        }
        match self.flush_output(now) {
            Ok(Flushed::All) => self.after_flush(now),
            Ok(Flushed::Blocked) => Step::Wait,
            Ok(Flushed::Paused) => Step::Again,
            Err(_) => Step::Close,
        }
    }

    /// Ends waits that have lasted too long.
    pub fn on_time(&mut self, now: Instant) -> Step {
        if self.write_timeout.has_expired(self.transport.stream(), &self.limits, now) {
            // What the kernel still holds of the response is of no use to anybody.
            self.break_off();
            self.transport.stream().reset_on_close();
            return Step::Stalled;
        }
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Step::Wait;
        }
        match self.state {
            State::Head if self.input.is_empty() => Step::LastLook,
            // It would not understand a page.
            State::Proxy if self.acceptor.is_some() => Step::Close,
            State::Proxy | State::Head | State::Body => self.refuse(Error::RequestTimeout, now),
            State::Serving => Step::Wait,
            State::Closing | State::Lingering(_) | State::Over => Step::Close,
        }
    }

    /// The application is done and everything it sent is handed over or queued; goes on with the next request if there may be one.
    pub fn finish(&mut self, keep_alive: bool, now: Instant) -> Step {
        // What of a streamed body the application did not read lies in the way of the next request.
        let keep_alive = keep_alive && self.decoder.is_done();
        if self.is_lent && self.transport.stream().set_blocking(false).is_err() {
            return Step::Close;
        }
        self.body = None;
        self.unsaved = Vec::new();
        self.deadline = None;
        if self.held != Held::default() {
            self.limits.holdings.replace(std::mem::take(&mut self.held), Held::default());
        }
        (self.rests_since, self.has_been_served) = (now, true);
        if keep_alive {
            self.input.drain(..self.head.len);
            self.asked = None;
            self.parser.reset();
            self.state = State::Head;
        } else {
            self.state = State::Closing;
        }
        if self.output_failure.is_some() {
            return Step::Close;
        }
        self.write_queue.set_avoids_files(false);
        if self.batching.waits() == Waits::ForResponses && keep_alive && self.input.is_empty() {
            return Step::Send;
        }
        match self.flush_output(now) {
            Ok(Flushed::All) => self.after_flush(now),
            Ok(Flushed::Blocked) => Step::Wait,
            Ok(Flushed::Paused) => Step::Again,
            Err(_) => Step::Close,
        }
    }

    /// The response stays incomplete, and the client is to see it: the connection does not end in good order.
    pub fn break_off(&mut self) {
        self.transport.abandon();
    }

    /// Answers a health check; the application hears nothing of it.
    pub fn answer_check(&mut self, serves: bool, now: Instant) -> Step {
        // Who sends more without waiting for the answer is none of the checkers, and gets no turn after turn by it.
        let is_last = !serves || !self.input[self.head.len..].is_empty() || !self.may_keep_alive();
        let connection =
            if is_last { response::ConnectionHeader::Close } else { response::ConnectionHeader::KeepAlive };
        let is_head = self.asks_for_head();
        let mut date = DateCache::new();
        let answer = response::health_answer(serves, is_head, connection, date.get(unix_time()));
        self.write_queue.push(&answer);
        self.finish(!is_last, now)
    }

    /// Whether the client is known to be gone for good: it has reset the connection, or, on a unix socket, closed it. Over TCP a client
    /// that closes looks like one that has only finished sending, and that one wants its answer.
    pub fn client_has_left(&self) -> bool {
        // POLLHUP and POLLERR are told without being asked for (poll(2)).
        let mut descriptors = [PollFd::new(std::os::fd::AsFd::as_fd(self.transport.stream()), PollFlags::empty())];
        poll(&mut descriptors, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// The buffer of a body that the application is done with; empty if there is none.
    pub fn take_returned(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.returned)
    }

    /// Whether it has a request for the application.
    pub fn is_ready(&self) -> bool {
        self.state == State::Serving
    }

    /// Whether what it reads next is part of a TLS handshake.
    pub fn is_shaking_hands(&self) -> bool {
        self.transport.is_shaking_hands()
    }

    /// Whether what it reads next is a head, and it does nothing else.
    pub fn awaits_head(&self) -> bool {
        self.state == State::Head && !self.has_unsent()
    }

    /// Whether it waits for a request of which nothing has arrived.
    pub fn is_idle(&self) -> bool {
        self.state == State::Head && self.input.is_empty() && !self.has_unsent()
    }

    /// The application is about to be called. `has_company` says that other requests are ready, whose responses this one's may wait for.
    pub fn begin_response(&mut self, has_company: bool) {
        self.batching.begin(has_company);
    }

    /// Ends our side, which the client is told whoever else holds the socket: a close alone says nothing while a child of the application
    /// has a copy. What has come meanwhile is read, and so is, for a moment, what still comes: closing over unread bytes would reset the
    /// connection, and could take the response's end with it. `Step::Close` when it can be closed.
    pub fn end(&mut self, now: Instant) -> Step {
        if matches!(self.state, State::Lingering(_) | State::Over) || !self.end_our_side() {
            return Step::Close;
        }
        let is_all_known = !self.unread && self.decoder.is_done() && self.input.len() <= self.head.len;
        if is_all_known && self.has_nothing_unread() {
            return Step::Close;
        }
        self.input = Vec::new();
        self.linger(now);
        Step::Again
    }

    /// The process ends: whatever the connection was at stays as it is, which its client is told.
    pub fn abandon(&mut self) {
        if self.has_unsent() || self.state == State::Serving {
            self.break_off();
        }
        self.end_our_side();
    }

    /// Says whether there is somebody to read on for: the socket is neither broken nor the application's.
    fn end_our_side(&mut self) -> bool {
        let was_open = !matches!(self.state, State::Lingering(_) | State::Over);
        self.state = State::Over;
        was_open && !self.is_lent && self.transport.shutdown_write().is_ok()
    }

    /// Drops a little of what has come, if something has.
    fn has_nothing_unread(&self) -> bool {
        !self.transport.stream().read(&mut [0; 256]).is_ok_and(|count| count > 0)
    }

    /// Puts an earlier end to the wait for the next request.
    pub fn close_by(&mut self, time: Instant) {
        if self.is_idle() {
            self.deadline = Some(self.deadline.map_or(time, |deadline| deadline.min(time)));
        }
    }

    /// The client's address, empty on a unix socket.
    pub fn remote_addr(&self) -> &str {
        &self.remote_addr
    }

    /// The number of its listener among the worker's.
    pub fn site(&self) -> usize {
        self.site
    }

    /// The client.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether the socket's peer may speak for others.
    pub fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// What a PROXY header said of the connection, if there was one.
    pub fn proxied(&self) -> Option<Origin> {
        self.proxied
    }

    /// The socket's number, for the poll.
    pub fn descriptor(&self) -> RawFd {
        let known = self.lent.as_ref().and_then(|lent| lent.stream.as_ref());
        known.unwrap_or(self.transport.stream()).as_raw_fd()
    }

    /// Whether the application has put another descriptor in the place of the one that the poll knows.
    pub fn is_exchanged(&self) -> bool {
        self.lent.as_ref().is_some_and(|lent| lent.stream.is_some())
    }

    /// The poll knows the old descriptor no more: goes on over the other one.
    pub fn drop_old_descriptor(&mut self) {
        if let Some(lent) = &mut self.lent {
            lent.stream = None;
        }
    }

    /// What the poll watches it for.
    pub fn watched(&self) -> Watched {
        self.watched
    }

    /// Notes what the poll watches it for.
    pub fn set_watched(&mut self, watched: Watched) {
        self.watched = watched;
    }

    /// What the poll has to watch it for.
    pub fn to_be_watched(&self) -> Watched {
        if self.has_unsent() { Watched::ForBoth } else { Watched::ForReading }
    }

    /// The client sends nothing more. It may still read, so it is told of a body whose end is malformed; where data is missing it has
    /// broken off.
    fn on_end(&mut self, now: Instant) -> Step {
        let ended = match self.state {
            State::Body => match self.decoder.missing_line_end().map(|error| self.refuse(error, now)) {
                None | Some(Step::Close) => Step::Left,
                Some(step) => return step,
            },
            // The page that it is to read still waits for room in the kernel.
            State::Lingering(_) if self.has_unsent() => return Step::Wait,
            _ => Step::Close,
        };
        self.end_our_side();
        ended
    }

    fn on_reset(&self) -> Step {
        if self.state == State::Body { Step::Left } else { Step::Close }
    }

    /// The connection cannot be read any further.
    fn on_broken(&mut self, error: &io::Error, now: Instant) -> Step {
        let reason = match HandshakeFailure::of(error) {
            None => return self.on_reset(),
            Some(HandshakeFailure::PlainText(arrived)) => return self.refuse_plain_text(arrived.clone(), now),
            Some(HandshakeFailure::Protocol(reason)) => reason.clone(),
        };
        self.linger(now);
        match self.transport.stream().shutdown_write() {
            Ok(()) => Step::TlsFailed(reason),
            Err(_) => Step::Close,
        }
    }

    /// HTTP has come where TLS should: the client is told so in its own language.
    fn refuse_plain_text(&mut self, arrived: Vec<u8>, now: Instant) -> Step {
        self.transport.drop_tls();
        self.input = arrived;
        self.refuse(Error::PlainHttpOnTls, now)
    }

    /// From now on what goes over the wire is encrypted; `arrived` is what has been read from it already.
    fn begin_tls(&mut self, arrived: Vec<u8>) -> io::Result<()> {
        if let Some(acceptor) = self.acceptor.take() {
            self.transport.begin_tls(Session::new(&acceptor, arrived)?);
        }
        Ok(())
    }

    /// Whether something waits for the client to read.
    pub fn has_unsent(&self) -> bool {
        !self.write_queue.is_empty() || self.transport.has_unsent()
    }

    fn read(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            let result = match self.state {
                // It is dropped unread.
                State::Lingering(_) => self.transport.stream().read(scratch),
                _ => self.transport.read(scratch),
            };
            match result {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn serve(&mut self) -> Step {
        self.state = State::Serving;
        self.deadline = None;
        Step::Call
    }

    /// Answers with the error's page and reads no further requests.
    fn refuse(&mut self, error: Error, now: Instant) -> Step {
        let page = ErrorPage { status: error.status(), message: &error.message(), is_head: self.asks_for_head() };
        self.write_queue.push(&page.render(DateCache::new().get(unix_time())));
        if self.state == State::Proxy {
            // No request has begun that could be logged.
            self.input = Vec::new();
        }
        self.body = None;
        self.linger(now);
        match self.flush_output(now) {
            Ok(Flushed::All) if self.transport.shutdown_write().is_ok() => Step::Refused(error),
            Ok(Flushed::Blocked | Flushed::Paused) => Step::Refused(error),
            _ => Step::Close,
        }
    }

    /// Whether the request wants no body in its answer, as far as it has arrived.
    fn asks_for_head(&self) -> bool {
        if let Some(asked) = self.asked {
            return asked == Asked::Head;
        }
        // An empty line may come before it.
        let start = self.input.strip_prefix(b"\r\n").unwrap_or(&self.input);
        let method = start.get(..HEAD.len()).unwrap_or_default();
        method == HEAD || (self.limits.policy.casefold_http_method && method.eq_ignore_ascii_case(HEAD))
    }

    fn linger(&mut self, now: Instant) {
        self.state = State::Lingering(LINGER_BYTES);
        self.deadline = Some(now + LINGER_TIME);
    }

    fn drop_bytes(&mut self, left: usize, count: usize) -> Step {
        match left.checked_sub(count) {
            Some(left) => {
                self.state = State::Lingering(left);
                Step::Wait
            }
            None => Step::Close,
        }
    }

    fn flush_output(&mut self, now: Instant) -> io::Result<Flushed> {
        let before = self.write_queue.sent();
        let flushed = self.write_queue.flush(&mut self.transport)?;
        self.batching.end_wait();
        if flushed != Flushed::Blocked || self.write_queue.sent() > before {
            self.write_timeout.end();
        }
        if flushed == Flushed::Blocked {
            self.write_timeout.begin(self.transport.stream(), now);
        }
        Ok(flushed)
    }

    /// Everything is out: closes, or turns to the next request.
    fn after_flush(&mut self, now: Instant) -> Step {
        match self.state {
            State::Closing => self.end(now),
            State::Lingering(_) => {
                self.deadline = Some(now + LINGER_TIME);
                if self.transport.shutdown_write().is_ok() { Step::Wait } else { Step::Close }
            }
            // What went out was TLS's own.
            State::Head if self.input.is_empty() && !self.has_been_served => Step::Wait,
            State::Head if self.input.is_empty() => {
                if self.input.capacity() > IDLE_BUFFER {
                    self.input = Vec::new();
                }
                self.deadline = Some(now + self.limits.idle_time());
                if self.unread { Step::Again } else { Step::Wait }
            }
            State::Head => {
                self.deadline = Some(now + self.limits.head_timeout);
                match self.parse(Incoming::Bytes(&[]), now) {
                    // No event will tell of what is already there.
                    Step::Wait if self.unread => Step::Again,
                    step => step,
                }
            }
            State::Proxy | State::Body | State::Serving | State::Over => Step::Wait,
        }
    }
}

fn address_text(peer: &Peer) -> String {
    match peer {
        Peer::Ip(address) => address.ip().to_string(),
        Peer::Unix => String::new(),
    }
}
