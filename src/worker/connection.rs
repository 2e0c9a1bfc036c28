//! One client's connection: bytes in, requests out, response bytes back, and a deadline for every wait.
//!
//! Knows `http` and a wire; knows no interpreter and no event loop, so it is tested over a socket pair. The event loop tells it that
//! bytes may have arrived or may be sent, that time has passed, or that the application is done; it answers with a [`Step`].

use std::any::Any;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::body_store::{BodyStore, Room};
use super::desk::{Arrival, Desk};
use super::outgoing::{Flushed, Outgoing};
use super::pace::Pace;
use super::pump;
use super::rules::Rules;
use super::stall::Stall;
use super::wire::Wire;
use crate::exchange::{Body, Exchange, Piece, RequestView};
use crate::http::body::BodyDecoder;
use crate::http::date::DateCache;
use crate::http::error::{Error, error_page};
use crate::http::proxy::{self, Origin, Parsed};
use crate::http::request::{Framing, HeadParser, RequestHead, Scheme, Span, Status};
use crate::http::response;
use crate::sys::clock::unix_time;
use crate::sys::socket::{Peer, Push, Stream};
use crate::tls::{Acceptor, Failure, Secured, Session};

/// How often one connection reads before others have their turn.
const READS_PER_TURN: usize = 4;

/// How long a client that has just connected may say nothing before its place can be given to another: closed any earlier, a crowd that
/// connects before it speaks would only chase itself out.
const NEWCOMERS_TIME: Duration = Duration::from_secs(2);

/// A read of up to this many bytes goes to the input buffer as it is: looking for the end of the head first would not pay.
const SHORT_READ: usize = 2 * 1024;

/// What ends a head.
static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// An input buffer larger than this is given back when the connection falls idle.
const IDLE_BUFFER: usize = 4 * 1024;

/// After a refusal the client may still be sending, and closing at once would reset its connection before it has read the answer. So the
/// rest is read and dropped, this much of it...
const LINGER_BYTES: usize = 64 * 1024;

/// ...and this long (gunicorn's figures).
const LINGER_TIME: Duration = Duration::from_secs(2);

/// How often a client that does not read is looked at while the application waits for it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the event loop is to do next with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait for the client.
    Wait,
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
    /// Close it.
    Close,
}

/// A request that ends without the application, as far as it is known, for the access log.
pub struct Unserved {
    buffer: Vec<u8>,
    head: RequestHead,
    peer: Peer,
    remote_addr: String,
    site: usize,
    /// The status of the answer, or [`crate::exchange::CLIENT_CLOSED_REQUEST`].
    pub status: u16,
}

/// What of a connection goes to another worker besides its socket.
pub struct Luggage {
    /// What the client has sent, and nobody has answered; without the first request's body if that has a file of its own.
    pub bytes: Vec<u8>,
    /// The body of the first request, decoded.
    pub body: Option<File>,
}

/// A client's connection.
pub struct Connection {
    wire: Wire,
    /// What TLS is to be begun with, once a PROXY header is out of the way.
    acceptor: Option<Acceptor>,
    rules: Arc<Rules>,
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
    /// Whether `head` is the current request's: it was parsed whole.
    has_head: bool,
    body: Option<BodyStore>,
    /// The buffer of a body that the application is done with.
    returned: Vec<u8>,
    decoder: BodyDecoder,
    pace: Pace,
    /// Decoded body bytes that found no place in the store.
    unsaved: Vec<u8>,
    /// Decoded bytes of the current request's body.
    body_length: u64,
    outgoing: Outgoing,
    /// When the state's wait ends, if it does.
    deadline: Option<Instant>,
    /// When it was accepted, or its last request was answered.
    rests_since: Instant,
    has_been_served: bool,
    /// The wait for the client to read, if it is waited for.
    stall: Stall,
    watched: Watched,
    /// Whether the kernel keeps the last bytes until our side ends ([`Push::WithEnd`]).
    waits_for_end: bool,
    /// Whether the application has the socket, which is blocking then.
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
}

impl Connection {
    /// A connection just accepted on listener number `site`.
    pub fn new(stream: Stream, peer: Peer, site: usize, rules: Arc<Rules>, now: Instant) -> Self {
        let state = if rules.proxy_mode.is_some() { State::Proxy } else { State::Head };
        Connection {
            is_trusted: rules.trusts(&peer),
            proxied: None,
            remote_addr: address_text(&peer),
            deadline: Some(now + rules.head_timeout),
            rests_since: now,
            has_been_served: false,
            decoder: BodyDecoder::Length(0),
            pace: Pace::begin(now),
            wire: Wire::plain(stream),
            acceptor: None,
            rules,
            peer,
            site,
            state,
            unread: false,
            has_ended: false,
            input: Vec::new(),
            parser: HeadParser::new(),
            head: RequestHead::default(),
            has_head: false,
            body: None,
            returned: Vec::new(),
            unsaved: Vec::new(),
            body_length: 0,
            outgoing: Outgoing::default(),
            stall: Stall::default(),
            watched: Watched::Not,
            waits_for_end: false,
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

    /// Reads what has arrived, at `desk`, and goes as far as it leads. `ended` says that the client has ended its side, which by
    /// itself is no abort (RFC 9112, 9.6): what it asked for is still answered.
    pub fn on_readable(&mut self, desk: &mut Desk, ended: bool, now: Instant) -> Step {
        self.note_unread(ended);
        let answers = match self.state {
            State::Serving | State::Closing => true,
            State::Head => self.has_unsent(),
            State::Proxy | State::Body | State::Lingering(_) => false,
        };
        if answers {
            // Read when the response is out: till then the kernel keeps the bytes, and the client, waiting.
            return Step::Wait;
        }
        for _ in 0..READS_PER_TURN {
            let count = match self.read(&mut desk.scratch) {
                Ok(Some(0)) => return self.on_end(),
                Ok(Some(count)) => count,
                Ok(None) => {
                    self.unread = false;
                    return Step::Wait;
                }
                Err(error) => return self.on_broken(&error, now),
            };
            // A short read has emptied the socket, and the next arrival is a new event; the end is not, once it has been told.
            self.unread = self.has_ended || !self.wire.is_drained_by(count, desk.scratch.len());
            let step = self.on_bytes(Arrival::AtDesk(desk, 0..count), now);
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
        match self.flush(now) {
            Ok(Flushed::All) => self.after_flush(now),
            Ok(Flushed::Blocked) => Step::Wait,
            Ok(Flushed::Paused) => Step::Again,
            Err(_) => Step::Close,
        }
    }

    /// Ends waits that have lasted too long.
    pub fn on_time(&mut self, now: Instant) -> Step {
        if self.stall.is_over(self.wire.stream(), &self.rules, now) {
            // What the kernel still holds of the response is of no use to anybody.
            self.break_off();
            self.wire.stream().reset_on_close();
            return Step::Stalled;
        }
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Step::Wait;
        }
        match self.state {
            State::Head if self.input.is_empty() => Step::Close,
            // It would not understand a page.
            State::Proxy if self.acceptor.is_some() => Step::Close,
            State::Proxy | State::Head | State::Body => self.refuse(Error::RequestTimeout, now),
            State::Serving => Step::Wait,
            State::Closing | State::Lingering(_) => Step::Close,
        }
    }

    /// The application is done and everything it sent is handed over or queued; goes on with the next request if there may be one.
    pub fn finish(&mut self, keep_alive: bool, now: Instant) -> Step {
        // What of a streamed body the application did not read lies in the way of the next request.
        let keep_alive = keep_alive && self.decoder.is_done();
        if std::mem::take(&mut self.is_lent) && self.wire.stream().set_blocking(false).is_err() {
            return Step::Close;
        }
        self.body = None;
        self.unsaved = Vec::new();
        (self.rests_since, self.has_been_served) = (now, true);
        if keep_alive {
            self.input.drain(..self.head.len);
            self.has_head = false;
            self.parser.reset();
            self.state = State::Head;
        } else {
            self.state = State::Closing;
        }
        match self.flush(now) {
            Ok(Flushed::All) => self.after_flush(now),
            Ok(Flushed::Blocked) => Step::Wait,
            Ok(Flushed::Paused) => Step::Again,
            Err(_) => Step::Close,
        }
    }

    /// The response stays incomplete, and the client is to see it: the connection does not end in good order.
    pub fn break_off(&mut self) {
        self.wire.abandon();
    }

    /// Answers a health check; the application hears nothing of it.
    pub fn answer_check(&mut self, serves: bool, now: Instant) -> Step {
        // Who sends more without waiting for the answer is none of the checkers, and gets no turn after turn by it.
        let is_last = !serves || !self.input[self.head.len..].is_empty() || !self.may_keep_alive();
        let connection = if is_last { response::Connection::Close } else { response::Connection::KeepAlive };
        let is_head = self.head.method.of(self.head.source(&self.input)) == b"HEAD";
        let mut date = DateCache::new();
        let answer = response::health_answer(serves, is_head, connection, date.get(unix_time()));
        self.outgoing.push(Piece::Owned(answer));
        self.finish(!is_last, now)
    }

    /// Whether the client is known to be gone for good: it has reset the connection, or, on a unix socket, closed it. Over TCP a client
    /// that closes looks like one that has only finished sending, and that one wants its answer.
    pub fn client_has_left(&self) -> bool {
        // POLLHUP and POLLERR are told without being asked for (poll(2)).
        let mut descriptors = [PollFd::new(std::os::fd::AsFd::as_fd(self.wire.stream()), PollFlags::empty())];
        poll(&mut descriptors, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// The request that will not be served, taken out for the access log. Where its head is not whole, the request line if that can be read.
    pub fn take_unserved(&mut self, status: u16) -> Unserved {
        let mut buffer = std::mem::take(&mut self.input);
        let mut head = std::mem::take(&mut self.head);
        if !self.has_head {
            head = RequestHead::default();
            let start = if buffer.starts_with(b"\r\n") { 2 } else { 0 };
            let end = memchr::memchr2(b'\r', b'\n', &buffer[start..]).map_or(start, |length| start + length);
            buffer = buffer[start..end].to_vec();
            (head.method, head.target, head.version_text) = three_words(&buffer).unwrap_or_default();
        }
        let remote_addr = self.remote_addr.clone();
        Unserved { buffer, head, peer: self.peer, remote_addr, site: self.site, status }
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
        self.wire.is_shaking_hands()
    }

    /// Whether what it reads next is a head, and it does nothing else.
    pub fn awaits_head(&self) -> bool {
        self.state == State::Head && !self.has_unsent()
    }

    /// Whether it waits for a request of which nothing has arrived.
    pub fn is_idle(&self) -> bool {
        self.state == State::Head && self.input.is_empty() && !self.has_unsent()
    }

    /// Puts an earlier end to the wait for the next request.
    pub fn close_by(&mut self, time: Instant) {
        if self.is_idle() {
            self.deadline = Some(self.deadline.map_or(time, |deadline| deadline.min(time)));
        }
    }

    /// Since when it has been idle, if its place may be given to another client.
    pub fn idle_since(&self, now: Instant) -> Option<Instant> {
        let is_settled = self.has_been_served || now.duration_since(self.rests_since) >= NEWCOMERS_TIME;
        (self.is_idle() && is_settled).then_some(self.rests_since)
    }

    /// The client's address, empty on a unix socket.
    pub fn remote_addr(&self) -> &str {
        &self.remote_addr
    }

    /// What another worker needs to take this connection over, in at most `limit` bytes and a file. `None` where that cannot be: the
    /// request's body is gone by, an earlier response is still under way, or TLS has its state here.
    pub fn replayable(&mut self, limit: usize) -> Option<Luggage> {
        let is_whole = self.state == State::Serving && self.decoder.is_done() && self.unsaved.is_empty();
        if self.wire.is_tls() || !is_whole || !self.outgoing.is_empty() || self.input.len() > limit {
            return None;
        }
        let room = limit - self.input.len();
        let short = match &self.body {
            None => Some(&b""[..]),
            Some(store) => store.in_memory().filter(|bytes| bytes.len() <= room),
        };
        let body: Cow<[u8]> = match (short, self.head.framing) {
            (Some(bytes), Framing::Chunked) => Cow::Owned(response::in_one_chunk(bytes)),
            // A body of known length stands in the stream as it is.
            (Some(bytes), Framing::Length(_) | Framing::None) => Cow::Borrowed(bytes),
            (None, _) => {
                let body = self.body.as_mut()?.as_file().ok()?;
                return Some(Luggage { bytes: self.input.clone(), body: Some(body) });
            }
        };
        let (head, rest) = self.input.split_at(self.head.len);
        Some(Luggage { bytes: [head, &*body, rest].concat(), body: None })
    }

    /// Goes on where [`Connection::replayable`] left off in another worker.
    pub fn replay(&mut self, is_trusted: bool, proxied: Option<Origin>, luggage: Luggage, now: Instant) -> Step {
        (self.is_trusted, self.proxied) = (is_trusted, proxied);
        // A PROXY header has been read already.
        self.state = State::Head;
        // What arrived on the way has raised no event here.
        self.unread = true;
        match luggage.body {
            None => self.on_bytes(Arrival::Bytes(&luggage.bytes), now),
            Some(file) => self.replay_with_body(luggage.bytes, file, now),
        }
    }

    /// The same for a request whose body has been taken out of the stream: `bytes` are its head and what comes after the body.
    fn replay_with_body(&mut self, bytes: Vec<u8>, body: File, now: Instant) -> Step {
        self.input = bytes;
        match self.parser.parse(&self.input, &self.rules.policy, self.is_trusted, None, &mut self.head) {
            Ok(Status::Complete) => {}
            Ok(Status::Partial) => return Step::Close,
            // The rules of a newer generation may be other ones.
            Err(error) => return self.refuse(error, now),
        }
        self.has_head = true;
        match BodyStore::of_file(body) {
            Ok(store) => self.body = Some(store),
            Err(_) => return Step::Close,
        }
        self.serve()
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
        known.unwrap_or(self.wire.stream()).as_raw_fd()
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

    fn on_end(&self) -> Step {
        if self.state == State::Body { Step::Left } else { Step::Close }
    }

    /// The connection cannot be read any further.
    fn on_broken(&mut self, error: &io::Error, now: Instant) -> Step {
        let reason = match Failure::of(error) {
            None => return self.on_end(),
            Some(Failure::PlainText(arrived)) => return self.refuse_plain_text(arrived.clone(), now),
            Some(Failure::Protocol(reason)) => reason.clone(),
        };
        self.linger(now);
        match self.wire.stream().shutdown_write() {
            Ok(()) => Step::TlsFailed(reason),
            Err(_) => Step::Close,
        }
    }

    /// HTTP has come where TLS should: the client is told so in its own language.
    fn refuse_plain_text(&mut self, arrived: Vec<u8>, now: Instant) -> Step {
        self.wire.drop_tls();
        self.input = arrived;
        self.refuse(Error::PlainHttpOnTls, now)
    }

    /// From now on what goes over the wire is encrypted; `arrived` is what has been read from it already.
    fn begin_tls(&mut self, arrived: Vec<u8>) -> io::Result<()> {
        if let Some(acceptor) = self.acceptor.take() {
            self.wire.begin_tls(Session::new(&acceptor, arrived)?);
        }
        Ok(())
    }

    /// Puts one end of a socket pair in the session's place, and a thread behind the other that carries the bytes between the two: what
    /// the application gets is a real socket, and knows nothing of TLS.
    fn lend_session(&mut self) -> io::Result<()> {
        let (ours, theirs) = Stream::pair()?;
        let below = self.wire.stream().duplicate()?;
        let secured = self.wire.secured().cloned();
        let (stream, Some(session)) = self.wire.replace(ours) else { return Err(ErrorKind::NotConnected.into()) };
        self.lent = Some(Box::new(LentSession { stream: Some(stream), secured }));
        pump::start(below, session, theirs, self.rules.write_timeout)
    }

    fn has_unsent(&self) -> bool {
        !self.outgoing.is_empty() || self.wire.has_unsent()
    }

    fn read(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            let result = match self.state {
                // It is dropped unread.
                State::Lingering(_) => self.wire.stream().read(scratch),
                _ => self.wire.read(scratch),
            };
            match result {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn on_bytes(&mut self, arrival: Arrival<'_>, now: Instant) -> Step {
        let bytes = arrival.bytes();
        match self.state {
            State::Body => {
                let step = self.on_body_bytes(bytes, now);
                self.await_body(step, now)
            }
            State::Lingering(left) => self.drop_bytes(left, bytes.len()),
            _ => {
                if self.input.is_empty() {
                    self.deadline = Some(now + self.rules.head_timeout);
                }
                let end = self.end_of_head(bytes);
                self.input.extend_from_slice(&bytes[..end]);
                self.parse(arrival.behind(end), now)
            }
        }
    }

    /// How much of `bytes` goes to the input: a long body that came with its head is not to make a detour there.
    fn end_of_head(&self, bytes: &[u8]) -> usize {
        match self.state {
            State::Head if bytes.len() > SHORT_READ => {
                EMPTY_LINE.find(bytes).map_or(bytes.len(), |at| at + EMPTY_LINE.needle().len())
            }
            _ => bytes.len(),
        }
    }

    /// Looks for what comes next in the input; `behind` is what has come after it.
    fn parse(&mut self, mut behind: Arrival<'_>, now: Instant) -> Step {
        if self.state == State::Proxy
            && let Some(step) = self.parse_proxy_header(now)
        {
            return step;
        }
        let policy = &self.rules.policy;
        match self.parser.parse(&self.input, policy, self.is_trusted, behind.known(), &mut self.head) {
            Ok(Status::Partial) if behind.bytes().is_empty() => Step::Wait,
            Ok(Status::Partial) => {
                self.input.extend_from_slice(behind.bytes());
                self.parse(Arrival::Bytes(&[]), now)
            }
            Ok(Status::Complete) => self.begin_body(behind, now),
            Err(_) if is_tls_handshake(&self.input) => self.refuse(Error::TlsOnPlainHttp, now),
            Err(error) => self.refuse(error, now),
        }
    }

    /// Takes a PROXY header off the input; `None` when the first request begins.
    fn parse_proxy_header(&mut self, now: Instant) -> Option<Step> {
        let mode = self.rules.proxy_mode?;
        match proxy::parse(&self.input, mode) {
            Ok(Parsed::Partial) => return Some(Step::Wait),
            Ok(Parsed::Absent) if self.rules.requires_proxy_header => {
                return Some(self.refuse(Error::InvalidProxyHeader("missing"), now));
            }
            Ok(Parsed::Absent) => {}
            Ok(Parsed::Header { len, origin }) => {
                if !self.rules.takes_proxy_headers_from(&self.peer) {
                    let error = Error::ForbiddenProxyRequest(self.remote_addr.clone());
                    return Some(self.refuse(error, now));
                }
                self.input.drain(..len);
                self.proxied = Some(origin);
                if let Origin::Client { client, .. } = origin {
                    self.peer = Peer::Ip(client);
                    self.remote_addr = address_text(&self.peer);
                }
            }
            Err(error) => return Some(self.refuse(error, now)),
        }
        self.state = State::Head;
        self.acceptor.as_ref()?;
        let arrived = std::mem::take(&mut self.input);
        // The bytes behind the header are read again, through TLS, whether or not more of them come.
        self.unread = true;
        Some(if self.begin_tls(arrived).is_ok() { Step::Again } else { Step::Close })
    }

    /// The head is complete: decides how its body is gathered, and gathers what is there.
    fn begin_body(&mut self, behind: Arrival<'_>, now: Instant) -> Step {
        self.has_head = true;
        self.decoder = BodyDecoder::new(self.head.framing, &self.rules.policy);
        if self.decoder.is_done() {
            self.input.extend_from_slice(behind.bytes());
            let step = self.serve();
            return if self.is_health_check() { Step::Check } else { step };
        }
        let announced = self.decoder.remaining_length();
        if let (Some(length), Some(limit)) = (announced, self.rules.limit_request_body)
            && length > limit
        {
            return self.refuse(Error::ContentTooLarge, now);
        }
        match behind {
            // It is all there, and nothing else: where it was read to is as good a place as any.
            Arrival::AtDesk(desk, range) if self.is_whole_body(announced, range.len()) => {
                self.decoder = BodyDecoder::Length(0);
                self.body = Some(desk.take_body(range));
                self.serve()
            }
            behind => self.gather_body(announced, behind.bytes(), now),
        }
    }

    fn is_whole_body(&self, announced: Option<u64>, count: usize) -> bool {
        announced == Some(count as u64) && self.input.len() == self.head.len && count <= self.rules.body_buffer
    }

    fn gather_body(&mut self, announced: Option<u64>, behind: &[u8], now: Instant) -> Step {
        self.body = Some(BodyStore::new(announced));
        self.body_length = 0;
        self.state = State::Body;
        self.pace = Pace::begin(now);
        if self.input.len() == self.head.len && behind.is_empty() && self.head.expect_continue {
            self.outgoing.push(Piece::Owned(response::CONTINUE.to_vec()));
            if self.flush(now).is_err() {
                return Step::Close;
            }
        }
        let mut arrived = std::mem::take(&mut self.input);
        let mut step = self.on_body_bytes(&arrived[self.head.len..], now);
        if step == Step::Wait {
            step = self.on_body_bytes(behind, now);
        } else {
            self.input.extend_from_slice(behind);
        }
        // The head stays in front; behind it what the body did not use up.
        let rest = std::mem::take(&mut self.input);
        arrived.truncate(self.head.len);
        arrived.extend_from_slice(&rest);
        self.input = arrived;
        self.await_body(step, now)
    }

    fn is_health_check(&self) -> bool {
        let Some(path) = &self.rules.health_path else { return false };
        let source = self.head.source(&self.input);
        self.head.path.of(source) == path.as_bytes() && matches!(self.head.method.of(source), b"GET" | b"HEAD")
    }

    fn await_body(&mut self, step: Step, now: Instant) -> Step {
        if step == Step::Wait {
            self.deadline = Some(self.pace.deadline(now, &self.rules));
        }
        step
    }

    fn on_body_bytes(&mut self, mut bytes: &[u8], now: Instant) -> Step {
        while !bytes.is_empty() && !self.decoder.is_done() {
            let decoded = match self.decoder.decode(bytes) {
                Ok(decoded) => decoded,
                Err(error) => return self.refuse(error, now),
            };
            bytes = &bytes[decoded.consumed..];
            self.pace.add(decoded.data.len());
            let Some(store) = &mut self.body else { return Step::Close };
            let room = if decoded.data.is_empty() { Room::Left } else { store.add(decoded.data, &self.rules) };
            self.body_length += decoded.data.len() as u64;
            if self.body_is_too_long() {
                return self.refuse(Error::ContentTooLarge, now);
            }
            if room == Room::Refused {
                self.unsaved = decoded.data.to_vec();
            }
            if room != Room::Left && !self.decoder.is_done() {
                self.input.extend_from_slice(bytes);
                self.pace.pause(now);
                return self.serve();
            }
        }
        if !self.decoder.is_done() {
            return Step::Wait;
        }
        // Pipelined: the next request's first bytes.
        self.input.extend_from_slice(bytes);
        self.serve()
    }

    fn body_is_too_long(&self) -> bool {
        self.rules.limit_request_body.is_some_and(|limit| self.body_length > limit)
    }

    fn serve(&mut self) -> Step {
        self.state = State::Serving;
        self.deadline = None;
        Step::Call
    }

    /// Answers with the error's page and reads no further requests.
    fn refuse(&mut self, error: Error, now: Instant) -> Step {
        if self.state == State::Proxy {
            // No request has begun that could be logged.
            self.input = Vec::new();
        }
        self.body = None;
        self.outgoing.push(Piece::Owned(error_page(error.status(), error.reason(), &error.message())));
        self.linger(now);
        match self.flush(now) {
            Ok(Flushed::All) if self.wire.shutdown_write().is_ok() => Step::Refused(error),
            Ok(Flushed::Blocked | Flushed::Paused) => Step::Refused(error),
            _ => Step::Close,
        }
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

    fn flush(&mut self, now: Instant) -> io::Result<Flushed> {
        let before = self.outgoing.sent();
        let flushed = self.outgoing.flush(&mut self.wire)?;
        if flushed != Flushed::Blocked || self.outgoing.sent() > before {
            self.stall.end();
        }
        if flushed == Flushed::Blocked {
            self.stall.begin(self.wire.stream(), now);
        }
        Ok(flushed)
    }

    /// Everything is out: closes, or turns to the next request.
    fn after_flush(&mut self, now: Instant) -> Step {
        match self.state {
            State::Closing => self.close_gently(now),
            State::Lingering(_) => {
                self.deadline = Some(now + LINGER_TIME);
                if self.wire.shutdown_write().is_ok() { Step::Wait } else { Step::Close }
            }
            // What went out was TLS's own.
            State::Head if self.input.is_empty() && !self.has_been_served => Step::Wait,
            State::Head if self.input.is_empty() => {
                if self.input.capacity() > IDLE_BUFFER {
                    self.input = Vec::new();
                }
                if !self.rules.keeps_alive() {
                    return self.close_gently(now);
                }
                self.deadline = Some(now + self.rules.keepalive);
                if self.unread { Step::Again } else { Step::Wait }
            }
            State::Head => {
                self.deadline = Some(now + self.rules.head_timeout);
                match self.parse(Arrival::Bytes(&[]), now) {
                    // No event will tell of what is already there.
                    Step::Wait if self.unread => Step::Again,
                    step => step,
                }
            }
            State::Proxy | State::Body | State::Serving => Step::Wait,
        }
    }

    /// Closes at once where nothing unread can be lying in the kernel, else after our side only: closing over unread bytes would reset the
    /// connection and could take the response's end with it.
    fn close_gently(&mut self, now: Instant) -> Step {
        let nothing_unread = !self.unread && self.decoder.is_done() && self.input.len() <= self.head.len;
        if nothing_unread && self.waits_for_end {
            // Something may have come all the same: a reset would drop what the kernel has kept.
            let _ = self.wire.shutdown_write();
        }
        if nothing_unread || self.wire.shutdown_write().is_err() {
            return Step::Close;
        }
        self.input = Vec::new();
        self.linger(now);
        Step::Again
    }

    /// Waits for the client, at most `timeout`, with poll(2).
    fn wait(&self, events: PollFlags, timeout: Duration) -> io::Result<()> {
        let mut descriptors = [PollFd::new(std::os::fd::AsFd::as_fd(self.wire.stream()), events)];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut descriptors, timeout) {
            Ok(0) => Err(ErrorKind::TimedOut.into()),
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn wait_for_body(&mut self) -> io::Result<()> {
        let now = Instant::now();
        self.pace.resume(now);
        let deadline = self.pace.deadline(now, &self.rules);
        self.wait(PollFlags::POLLIN, deadline.saturating_duration_since(now))
    }

    /// Decodes streamed body bytes out of the input; `None` when more must be received first.
    fn decode_streamed(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        while !self.decoder.is_done() {
            let arrived = &self.input[self.head.len..];
            if arrived.is_empty() {
                return Ok(None);
            }
            let window = &arrived[..arrived.len().min(buffer.len())];
            let decoded = self.decoder.decode(window).map_err(io::Error::other)?;
            let count = decoded.data.len();
            buffer[..count].copy_from_slice(decoded.data);
            let used = self.head.len..self.head.len + decoded.consumed;
            self.input.drain(used);
            if count > 0 {
                return Ok(Some(count));
            }
        }
        Ok(Some(0))
    }
}

impl Exchange for Connection {
    fn request(&self) -> RequestView<'_> {
        let secured = match &self.lent {
            None => self.wire.secured(),
            Some(lent) => lent.secured.as_ref(),
        };
        RequestView {
            buffer: self.head.source(&self.input),
            head: &self.head,
            peer: &self.peer,
            remote_addr: &self.remote_addr,
            proxied: self.proxied.as_ref(),
            site: self.site,
            scheme: self.head.forwarded_scheme.unwrap_or(if secured.is_some() { Scheme::Https } else { Scheme::Http }),
            secured,
        }
    }

    fn take_body(&mut self) -> Body {
        let Some(store) = self.body.take() else { return Body::empty() };
        let whole = store.into_body().unwrap_or_else(|error| {
            log::error!("Cannot read a spooled request body: {error}");
            Body::empty()
        });
        let is_complete = self.decoder.is_done() && self.unsaved.is_empty();
        if is_complete { whole } else { Body::Stream(Box::new(whole)) }
    }

    fn take_back(&mut self, buffer: Vec<u8>) {
        self.returned = buffer;
    }

    fn write(&mut self, parts: &[&[u8]], push: Push) -> io::Result<usize> {
        if !self.outgoing.is_empty() {
            // Nobody else sends what is queued while the application runs; and this is how it learns that the client has gone.
            self.flush(Instant::now())?;
        }
        self.waits_for_end = push == Push::WithEnd && !self.wire.is_tls();
        self.outgoing.write(&mut self.wire, parts, push)
    }

    fn queue(&mut self, piece: Piece) {
        self.stall.begin(self.wire.stream(), Instant::now());
        self.outgoing.push(piece);
    }

    fn has_queued(&self) -> bool {
        self.has_unsent()
    }

    fn wait_for_client(&mut self) -> io::Result<()> {
        while self.has_unsent() {
            match self.wait(PollFlags::POLLOUT, LOOK_AGAIN) {
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    if self.stall.is_over(self.wire.stream(), &self.rules, Instant::now()) {
                        return Err(error);
                    }
                }
                result => result?,
            }
            self.flush(Instant::now())?;
        }
        Ok(())
    }

    fn read_body(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.unsaved.is_empty() {
            let count = self.unsaved.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.unsaved[..count]);
            self.unsaved.drain(..count);
            return Ok(count);
        }
        loop {
            if let Some(count) = self.decode_streamed(buffer)? {
                self.body_length += count as u64;
                if self.body_is_too_long() {
                    return Err(io::Error::other("the request body is longer than limit_request_body"));
                }
                return Ok(count);
            }
            match self.read(buffer)? {
                Some(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the request body ends early")),
                Some(count) => {
                    self.pace.add(count);
                    self.input.extend_from_slice(&buffer[..count]);
                }
                None => self.wait_for_body()?,
            }
            self.pace.pause(Instant::now());
        }
    }

    fn may_keep_alive(&self) -> bool {
        self.head.keep_alive && self.rules.keeps_alive()
    }

    fn lend_socket(&mut self) -> io::Result<RawFd> {
        if self.wire.is_tls() {
            self.lend_session()?;
        }
        self.wire.stream().set_blocking(true)?;
        self.is_lent = true;
        Ok(self.wire.stream().as_raw_fd())
    }
}

impl Unserved {
    /// What is known of it; what is not is empty.
    pub fn request(&self) -> RequestView<'_> {
        RequestView {
            buffer: self.head.source(&self.buffer),
            head: &self.head,
            peer: &self.peer,
            remote_addr: &self.remote_addr,
            proxied: None,
            site: self.site,
            scheme: Scheme::Http,
            secured: None,
        }
    }
}

/// Whether these bytes begin a TLS connection: a record with a handshake in it, of version 3.x (RFC 8446, section 5.1).
fn is_tls_handshake(input: &[u8]) -> bool {
    matches!(input, [22] | [22, 3, ..])
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

impl dyn Exchange {
    /// The connection that was given out as an exchange.
    pub fn into_connection(self: Box<Self>) -> Option<Box<Connection>> {
        (self as Box<dyn Any>).downcast().ok()
    }
}

fn address_text(peer: &Peer) -> String {
    match peer {
        Peer::Ip(address) => address.ip().to_string(),
        Peer::Unix => String::new(),
    }
}
