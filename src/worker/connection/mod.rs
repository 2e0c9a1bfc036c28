//! One client's connection: bytes in, requests out, response bytes back, and a deadline for every
//! wait.
//!
//! The connection has the transport, the write queue and the input buffer. [`Http1`] has the state:
//! it says what is to be done about bytes that come and time that passes, and the connection does
//! so. The event loop tells the connection that bytes may have arrived or may be sent, that time
//! has passed, or that the application is done; the connection answers with a [`Step`].
//!
//! The module must not know an interpreter or the event loop. So it is tested over a socket pair.

mod arrivals;
mod arriving;
mod client;
mod files;
mod handoff;
mod logged_request;
mod output;
mod request;
mod serving;
mod standing;

pub use client::address_text;
pub use files::FileTerms;
pub use handoff::{HandoffBytes, HandoffState};
pub use logged_request::{LateLog, LoggedRequest};
pub use request::Request;
pub use serving::GivenBack;
pub use standing::{ConnectionStanding, UNHURRIED};

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use self::arrivals::Arrivals;
use self::client::Client;
use self::output::Output;
use self::serving::Present;
use super::body_store::BodyStore;
use super::connection_limits::ConnectionLimits;
use super::connection_poll::Watched;
use super::holdings::Held;
use super::read_context::{Incoming, ReadContext};
use super::transport::Transport;
use super::write_queue::Flushed;
use crate::http::connection::{Action, ClientProtocol, Http1, Stage};
use crate::http::date::DateCache;
use crate::http::error::Error;
use crate::http::proxy::Origin;
use crate::http::response;
use crate::sys::clock::unix_time;
use crate::sys::fork;
use crate::sys::poll::is_hung_up;
use crate::sys::retry::retry;
use crate::sys::socket::{Peer, Stream};
use crate::tls::{Acceptor, HandshakeFailure, Session};

/// What the event loop is to do next with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait for the client.
    Wait,
    /// Nothing: the poll tells of the client already, and the request has left nothing to be done.
    Settled,
    /// Send its response, which was put off, together with those of other connections.
    Send,
    /// Go on with the connection without another event, after others have had their turn.
    Again,
    /// Call the application with the request that is ready.
    Call,
    /// Answer, by [`Connection::answer_check`], whether the server serves.
    Check,
    /// Answer, by [`Connection::answer_check`], that the server is there.
    LiveCheck,
    /// Answer with a file, by [`Connection::answer_with_file`].
    File,
    /// The request was refused and the answer is on its way: log it, then wait.
    Refused(Error),
    /// The client has gone before its request could be run: log it, and close.
    Left,
    /// The client does not read its response: log it, and close.
    Stalled,
    /// TLS has failed, for this reason: log it, then wait.
    TlsFailed(String),
    /// Its wait for a request is over: read once more, and close it if nothing has come.
    LastLook,
    /// Close it, by way of [`Connection::end`].
    Close,
}

/// A client's connection.
pub struct Connection {
    transport: Transport,
    /// What TLS is to begin with behind a PROXY header.
    acceptor: Option<Acceptor>,
    limits: Arc<ConnectionLimits>,
    client: Arc<Client>,
    /// The state of the protocol.
    http: Http1,
    arrivals: Arrivals,
    /// Bytes received and not used up. The head of a request that is on its way is in front.
    input: Vec<u8>,
    /// The request that is on its way, or ready; the application has it while it is served.
    request: Present,
    /// The memory and disk space that are recorded for the input and the request.
    held: Held,
    output: Output,
    /// What is logged once the response has been sent.
    late_log: Option<Box<LateLog>>,
    watched: Watched,
    /// Whether the end of the connection ends the response's body, too.
    ends_body: bool,
    /// How long the first bytes had waited at the accept, in the kernel or for another worker; zero
    /// once they are read.
    waited_before: Duration,
}

/// A connection that the event loop shares with the application while that has its request.
pub type SharedConnection = Arc<Mutex<Connection>>;

/// Makes a connection one that can be shared.
pub fn share(connection: Connection) -> SharedConnection {
    Arc::new(Mutex::new(connection))
}

/// Locks a connection. A panic while it was held leaves plain data behind, so poisoning carries no
/// news.
pub fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    fork::lock(connection)
}

impl Connection {
    /// A connection just accepted on listener number `site`.
    pub fn new(stream: Stream, peer: Peer, site: usize, limits: Arc<ConnectionLimits>, now: Instant) -> Self {
        Connection {
            client: Arc::new(Client::new(peer, site, &limits)),
            http: Http1::new(&limits.http, now),
            transport: Transport::plain(stream),
            acceptor: None,
            request: Present::new(&limits),
            limits,
            arrivals: Arrivals::default(),
            input: Vec::new(),
            held: Held::default(),
            output: Output::default(),
            late_log: None,
            watched: Watched::Not,
            ends_body: false,
            waited_before: Duration::ZERO,
        }
    }

    /// Asks the kernel how long it has had the bytes of a connection that was just accepted. A
    /// request that is whole then counts as having waited for that time.
    pub fn note_wait_in_kernel(&mut self) {
        self.waited_before = self.transport.stream().since_last_arrival().unwrap_or_default();
    }

    /// Puts the connection under TLS, which begins at once, or behind a PROXY header.
    ///
    /// # Errors
    /// Those of [`Session::new`].
    pub fn under_tls(mut self, acceptor: Acceptor) -> io::Result<Self> {
        self.acceptor = Some(acceptor);
        if !self.http.expect_tls() {
            self.begin_tls(Vec::new())?;
        }
        Ok(self)
    }

    /// Reads what has arrived into `read_context`, at most `reads` times, and acts on it. `ended`
    /// says that the client has ended its side, which by itself is no abort (RFC 9112, 9.6): its
    /// request is still answered.
    pub fn on_readable(&mut self, read_context: &mut ReadContext, ended: bool, reads: usize, now: Instant) -> Step {
        let step = self.read_on(read_context, ended, reads, now);
        self.waited_before = Duration::ZERO;
        if let Some(settled) = self.transport.take_settled() {
            self.limits.count_handshake(settled);
        }
        // A request that came whole is served next: what it holds is not worth recording.
        if !matches!(step, Step::Call | Step::File)
            || matches!(self.request.store, Some(BodyStore::Memory(_) | BodyStore::Spooled(..)))
        {
            self.note_held();
        }
        step
    }

    fn read_on(&mut self, read_context: &mut ReadContext, ended: bool, reads: usize, now: Instant) -> Step {
        self.note_unread(ended);
        if !self.http.takes_bytes(self.has_unsent()) {
            return Step::Wait;
        }
        for _ in 0..reads {
            let count = match self.read(&mut read_context.scratch) {
                Ok(Some(0)) => return self.on_end(now),
                Ok(Some(count)) => count,
                Ok(None) => {
                    self.arrivals.note_nothing();
                    return Step::Wait;
                }
                Err(error) => return self.on_broken(&error, now),
            };
            self.arrivals.note_read(self.transport.is_drained_by(count, read_context.scratch.len()));
            let step = self.on_bytes(Incoming::InScratch(read_context, 0..count), now);
            if step != Step::Wait || !self.arrivals.may_be_unread() {
                return step;
            }
        }
        Step::Again
    }

    /// Notes that bytes may have arrived, or the end.
    pub fn note_unread(&mut self, ended: bool) {
        self.arrivals.note(ended);
    }

    /// Sends what is queued; goes on once it is out.
    pub fn on_writable(&mut self, now: Instant) -> Step {
        if !self.has_unsent() {
            return Step::Wait;
        }
        self.flush(now)
    }

    /// Goes on sending while the application has the request. Says whether there is more to do at
    /// once.
    pub fn send_on(&mut self, now: Instant) -> bool {
        // The application hears of a failure with its next call.
        let flushed = self.output.flush(&mut self.transport, now);
        self.output.note_held(&self.limits);
        matches!(flushed, Ok(Flushed::Paused))
    }

    /// Ends waits that have lasted too long.
    pub fn on_time(&mut self, now: Instant) -> Step {
        if self.output.has_stalled(self.transport.stream(), &self.limits, now) {
            // What the kernel still holds of the response is of no use to anybody.
            self.break_off();
            self.transport.stream().reset_on_close();
            self.output.fail(ErrorKind::TimedOut);
            self.output.note_held(&self.limits);
            return Step::Stalled;
        }
        let action = self.http.on_time(&mut self.input, &self.limits.http, now);
        self.take_action(action, now)
    }

    /// The application is done and everything it sent is handed over or queued; goes on with the
    /// next request if there may be one. A socket that the application was lent is the server's
    /// again.
    pub fn finish(&mut self, keep_alive: bool, now: Instant) -> Step {
        // The unread rest of a streamed body lies in the way of the next request.
        let keep_alive = keep_alive && self.request.has_come_whole();
        if self.transport.set_lent(false).is_err() || self.output.check().is_err() {
            self.break_off();
            return Step::Close;
        }
        self.request.drop_body();
        if self.held != Held::default() {
            self.limits.holdings.replace(std::mem::take(&mut self.held), Held::default());
        }
        if keep_alive {
            self.request.end(&mut self.input);
        }
        self.http.finish(keep_alive, &self.input, now);
        if self.output.waits_for_responses() && keep_alive && self.input.is_empty() {
            return Step::Send;
        }
        self.flush(now)
    }

    /// Sends what is queued; goes on once it is out.
    fn flush(&mut self, now: Instant) -> Step {
        if !self.has_unsent() {
            return self.after_flush(now);
        }
        let flushed = self.output.flush(&mut self.transport, now);
        self.output.note_held(&self.limits);
        match flushed {
            Ok(Flushed::All) => self.after_flush(now),
            Ok(Flushed::Blocked) => Step::Wait,
            Ok(Flushed::Paused) => Step::Again,
            Err(_) => {
                self.break_off();
                Step::Close
            }
        }
    }

    /// Lets the client see that the response stays incomplete: the connection will not end in good
    /// order.
    pub fn break_off(&mut self) {
        if self.ends_body { self.transport.cut_short() } else { self.transport.abandon() }
    }

    /// The same, where only the end of the connection would tell the client that bytes are missing.
    pub fn cut_short(&mut self) {
        self.transport.cut_short();
    }

    /// Notes that the end of the connection ends the response's body, too.
    pub fn note_end_of_body(&mut self) {
        self.ends_body = true;
    }

    /// Answers a health check without the application.
    pub fn answer_check(&mut self, serves: bool, now: Instant) -> Step {
        // A health checker waits for the answer before it sends more. A client that does not must
        // not get turn after turn by it.
        let is_last = !serves || !self.input.is_empty() || !self.request.may_be_kept();
        let connection =
            if is_last { response::ConnectionHeader::Close } else { response::ConnectionHeader::KeepAlive };
        let is_head = self.http.asks_for_head(&self.input, &self.limits.http);
        let mut date = DateCache::new();
        let answer = response::health_answer(serves, is_head, connection, date.get(unix_time()));
        self.output.push(&answer);
        self.finish(!is_last, now)
    }

    /// Whether the client is known to be gone for good: it has reset the connection, or, on a unix
    /// socket, closed it. Over TCP a client that closes looks like one that has only finished
    /// sending, and that one wants its answer.
    pub fn client_has_left(&self) -> bool {
        is_hung_up(self.transport.stream().as_raw_fd())
    }

    /// The buffer of a body that the application is done with; empty if there is none.
    pub fn take_returned(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.request.returned)
    }

    /// Whether the application has its request.
    pub fn is_served(&self) -> bool {
        !self.request.is_here()
    }

    /// Whether bytes may have come that nobody has read.
    pub fn may_be_unread(&self) -> bool {
        self.arrivals.may_be_unread()
    }

    /// Whether its request is ready, or with the application.
    pub fn is_ready(&self) -> bool {
        self.http.is_serving()
    }

    /// Whether what it reads next is part of a TLS handshake.
    pub fn is_shaking_hands(&self) -> bool {
        self.transport.is_shaking_hands()
    }

    /// Whether what it reads next is a head, and it does nothing else.
    pub fn awaits_head(&self) -> bool {
        self.http.awaits_head() && !self.has_unsent()
    }

    /// Whether it waits for a request of which nothing has arrived.
    pub fn is_idle(&self) -> bool {
        matches!(self.http.stage(), Stage::Idle { .. }) && !self.has_unsent()
    }

    /// Ends our side by a shutdown: a close alone tells the client nothing while a child of the
    /// application has a copy of the socket. What has come, and for a moment what still comes, is
    /// then read: closing over unread bytes would reset the connection, and could take the
    /// response's end with it. Returns `Step::Close` when the connection can be closed.
    pub fn end(&mut self, now: Instant) -> Step {
        if self.output.check().is_err() {
            self.cut_short();
        }
        if !self.end_our_side() {
            return Step::Close;
        }
        let is_all_known = !self.arrivals.may_be_unread() && self.input.is_empty() && !self.request.has_more();
        if is_all_known && self.has_nothing_unread() {
            return Step::Close;
        }
        self.input = Vec::new();
        self.http.linger(now);
        Step::Again
    }

    /// Ends our side because the process ends. A client whose response is unfinished can see that.
    pub fn abandon(&mut self) {
        if self.has_unsent() || self.http.is_serving() {
            self.break_off();
        }
        self.end_our_side();
    }

    /// Ends our side. Returns whether this told the client anything: not where our side had ended
    /// before, the socket is the application's, or it is broken.
    fn end_our_side(&mut self) -> bool {
        self.http.close() && !self.transport.is_lent() && self.transport.shutdown_write().is_ok()
    }

    /// Whether nothing has come that is unread. Looks by a read, which drops a little of what has
    /// come.
    fn has_nothing_unread(&self) -> bool {
        !self.transport.stream().read(&mut [0; 256]).is_ok_and(|count| count > 0)
    }

    /// Puts an earlier end to the wait for the next request.
    pub fn close_by(&mut self, time: Instant) {
        if !self.has_unsent() {
            self.http.close_by(time, &self.input);
        }
    }

    /// The client's address, empty on a unix socket.
    pub fn remote_addr(&self) -> &str {
        &self.client.remote_addr
    }

    /// The number of its listener among the worker's.
    pub fn site(&self) -> usize {
        self.client.site
    }

    /// The client.
    pub fn peer(&self) -> &Peer {
        &self.client.peer
    }

    /// The protocol that is spoken.
    pub fn protocol(&self) -> ClientProtocol {
        self.http.protocol()
    }

    /// Whether the socket's peer may speak for others.
    pub fn is_trusted(&self) -> bool {
        self.client.is_trusted
    }

    /// What a PROXY header said of the connection, if there was one.
    pub fn proxied(&self) -> Option<Origin> {
        self.client.proxied
    }

    /// The descriptor that the poll watches.
    pub fn descriptor(&self) -> RawFd {
        self.transport.stream().as_raw_fd()
    }

    /// Whether its request, which is back, has left nothing to the event loop: no buffer, no line
    /// of the log, and nothing that the poll does not tell of.
    pub(super) fn is_settled(&self) -> bool {
        let has_left_nothing = self.request.returned.is_empty() && self.late_log.is_none();
        has_left_nothing && self.watched >= self.to_be_watched()
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

    /// The client has ended its side.
    fn on_end(&mut self, now: Instant) -> Step {
        let has_unsent = self.has_unsent();
        let ended = match self.http.on_eof(has_unsent, &mut self.input, &self.limits.http, now) {
            Action::Wait => return Step::Wait,
            Action::Refuse(refusal) => match self.refuse(refusal, now) {
                Step::Close => Step::Left,
                step => return step,
            },
            action => self.take_action(action, now),
        };
        self.end_our_side();
        ended
    }

    /// The connection cannot be read any further.
    fn on_broken(&mut self, error: &io::Error, now: Instant) -> Step {
        let reason = match HandshakeFailure::of(error) {
            None => return self.take_action(self.http.on_broken(), now),
            Some(HandshakeFailure::PlainText(arrived)) => return self.refuse_plain_text(arrived.clone(), now),
            Some(HandshakeFailure::Protocol(reason)) => reason.clone(),
        };
        self.http.linger(now);
        match self.transport.stream().shutdown_write() {
            Ok(()) => Step::TlsFailed(reason),
            Err(_) => Step::Close,
        }
    }

    /// Plain HTTP has come where TLS should: refuses it, in plain HTTP.
    fn refuse_plain_text(&mut self, arrived: Vec<u8>, now: Instant) -> Step {
        self.transport.drop_tls();
        self.input = arrived;
        self.refuse_as(Error::PlainHttpOnTls, now)
    }

    /// Begins TLS, if there is to be any. `arrived` is what has already been read from the socket.
    fn begin_tls(&mut self, arrived: Vec<u8>) -> io::Result<()> {
        if let Some(acceptor) = self.acceptor.take() {
            self.transport.begin_tls(Session::new(&acceptor, arrived)?);
        }
        Ok(())
    }

    /// Whether bytes wait to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.output.is_empty() || self.transport.has_unsent()
    }

    fn read(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        match self.http.stage() {
            // These bytes are dropped: TLS need not decrypt them.
            Stage::Lingering { .. } => retry(|| self.transport.stream().read(scratch)),
            _ => retry(|| self.transport.read(scratch)),
        }
    }

    /// Everything is out: closes, or turns to the next request.
    fn after_flush(&mut self, now: Instant) -> Step {
        let is_at_head = matches!(self.http.stage(), Stage::Head { .. });
        let idle_time = self.limits.idle_time();
        let (http, context) = self.split(None);
        let (step, reads_on) = match http.on_flushed(idle_time, context, now) {
            Action::Close => return self.end(now),
            Action::Rest => {
                self.shrink();
                (Step::Wait, true)
            }
            action => (self.take_action(action, now), is_at_head),
        };
        // No event will tell of what is already there.
        if matches!(step, Step::Wait) && reads_on && self.arrivals.may_be_unread() { Step::Again } else { step }
    }
}
