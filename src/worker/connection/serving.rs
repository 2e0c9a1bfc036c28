//! What the application may ask of the connection while it has the request.
//!
//! The connection stays with the event loop, which goes on sending, and notices a client that
//! leaves or does not read. The application has the request, with a link to the connection. It
//! locks the connection only for as long as a system call takes that does not wait.

use std::any::Any;
use std::io::{self, ErrorKind};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::Client;
use super::request::{Link, Request};
use super::{Connection, SharedConnection, Step, lock};
use crate::base::ablation::{Mechanism, is_off};
use crate::exchange::{Body, Exchange, Hint, RequestView, Wait};
use crate::sys::fork;
use crate::sys::retry::retry;
use crate::sys::socket::{Readiness, Stream};
use crate::worker::connection_limits::ConnectionLimits;
use crate::worker::connection_poll::Watched;
use crate::worker::relay;
use crate::worker::relay_link::RelayLink;

/// How often a client that does not read, or send, is looked at while the application waits for it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A connection whose request has been served.
pub struct GivenBack {
    /// The connection.
    pub connection: SharedConnection,
    /// Its key in the event loop.
    pub key: usize,
    /// What the event loop does next with it.
    pub step: Step,
}

/// A connection's request, which is here unless the application has it.
pub(super) struct Present(Option<Box<Request>>);

impl Present {
    pub(super) fn new(limits: &Arc<ConnectionLimits>) -> Self {
        Present(Some(Box::new(Request::new(limits.clone()))))
    }

    pub(super) fn is_here(&self) -> bool {
        self.0.is_some()
    }
}

impl Deref for Present {
    type Target = Request;

    fn deref(&self) -> &Request {
        self.0.as_deref().expect("nothing happens to a request that the application has, but what it asks for")
    }
}

impl DerefMut for Present {
    fn deref_mut(&mut self) -> &mut Request {
        self.0.as_deref_mut().expect("as above")
    }
}

impl Connection {
    /// Gives out the request that is ready, to be served. `connection` is this one, with this `key`
    /// in the event loop. `has_company` says that other requests are ready, whose responses this
    /// one's may wait for.
    pub fn check_out(&mut self, connection: &SharedConnection, key: usize, has_company: bool) -> Box<Request> {
        self.output.begin(has_company);
        let mut request = self.request.0.take().expect("a request is served once");
        let secured = self.transport.secured().cloned();
        request.link = Some(Link { connection: connection.clone(), key, client: self.client.clone(), secured });
        request
    }

    /// Has the poll tell when the client takes more, where bytes wait for it.
    fn await_client(&mut self, key: usize, limits: &ConnectionLimits) {
        // A copy of the process shares the original's poll, and must not change it.
        if !self.output.waits_for_client(&self.transport) || fork::is_copy() {
            return;
        }
        let is_told = self.watched == Watched::ForBoth && self.output.is_blocked();
        let Some(poll) = limits.poll().filter(|_| !is_told) else { return };
        match poll.watch_anew(key, self.descriptor(), self.watched, Watched::ForBoth) {
            Ok(()) => self.watched = Watched::ForBoth,
            Err(error) => self.output.fail(error.kind()),
        }
    }

    /// Puts one end of a socket pair in the TLS session's place. A thread carries bytes between the
    /// other end and the session, so that the application gets a real socket, and sees nothing of
    /// TLS.
    fn lend_session(&mut self) -> io::Result<()> {
        let (ours, theirs) = Stream::pair()?;
        if !fork::is_copy() {
            // The relay watches the client's stream from now on, and the poll the other end.
            self.limits.poll().iter().for_each(|poll| poll.forget(self.descriptor()));
            self.watched = Watched::Not;
        }
        let link = Arc::new(RelayLink::new(&self.limits.relays));
        let (stream, Some(session)) = self.transport.replace(ours, link.clone()) else {
            return Err(ErrorKind::NotConnected.into());
        };
        relay::start(stream, session, theirs, link, self.limits.write_timeout)
    }
}

impl Request {
    fn link(&self) -> &Link {
        self.link.as_ref().expect("a request that is served has a link to its connection")
    }

    /// The client that has sent the request.
    pub(super) fn client(&self) -> &Arc<Client> {
        &self.link().client
    }

    /// Whether its connection is under TLS.
    pub(super) fn is_secured(&self) -> bool {
        self.link().secured.is_some()
    }

    /// Locks the connection for `ask`. Then records what its queue holds, and has the poll tell
    /// when the client takes more, if bytes wait for it.
    fn with_connection<T>(&self, ask: impl FnOnce(&mut Connection) -> T) -> T {
        let Link { connection, key, .. } = self.link();
        let mut connection = lock(connection);
        let answer = ask(&mut connection);
        // Bytes that wait a moment for more wait for no client, and are not worth recording.
        if !connection.output.waits_for_block() {
            connection.output.note_held(self.limits());
            connection.await_client(*key, self.limits());
        }
        answer
    }

    /// The request is served: gives it back to its connection, which goes on as `go_on` says.
    pub fn give_back(mut self: Box<Self>, go_on: impl FnOnce(&mut Connection) -> Step) -> GivenBack {
        let Link { connection, key, .. } = self.link.take().expect("a request is given back once");
        let step = {
            let mut connection = lock(&connection);
            connection.request.0 = Some(self);
            match go_on(&mut connection) {
                Step::Wait if connection.is_settled() => Step::Settled,
                step => step,
            }
        };
        GivenBack { connection, key, step }
    }

    /// The key of its connection in the event loop.
    pub fn key(&self) -> usize {
        self.link().key
    }
}

impl Exchange for Request {
    fn request(&self) -> RequestView<'_> {
        let Link { client, secured, .. } = self.link();
        self.view(client, secured.as_ref())
    }

    fn take_body(&mut self) -> Body {
        self.take_stored_body()
    }

    fn return_buffer(&mut self, buffer: Vec<u8>) {
        if !is_off(Mechanism::BodyBuffers) {
            self.returned = buffer;
        }
    }

    fn send(&mut self, parts: &[&[u8]], hint: Hint) -> io::Result<usize> {
        self.with_connection(|Connection { output, transport, limits, watched, .. }| {
            if *watched == Watched::ForBoth && output.is_blocked() && output.waits_for_client(transport) {
                // The event loop learns when the client takes more.
                return output.keep_more(limits, parts);
            }
            // A lent socket blocks, and it is the application's: nothing waits on it.
            let hint = if transport.is_lent() { Hint::Now } else { hint };
            output.send(transport, limits, parts, hint)
        })
    }

    fn send_object(&mut self, object: Box<dyn AsRef<[u8]> + Send>, start: usize) {
        self.with_connection(|connection| connection.output.push_object(object, start));
    }

    fn send_file(&mut self, file: Arc<OwnedFd>, offset: u64, length: u64) {
        self.with_connection(|connection| connection.output.push_file(file, offset, length));
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with_connection(|Connection { output, transport, .. }| output.flush(transport, Instant::now()).map(drop))
    }

    fn flush_due(&mut self, now: Instant) -> bool {
        self.with_connection(|Connection { output, transport, .. }| output.flush_due(transport, now))
    }

    fn hurry(&mut self) {
        self.with_connection(|Connection { output, transport, .. }| output.hurry(transport, Instant::now()));
    }

    fn unsent(&self) -> u64 {
        self.with_connection(|Connection { output, transport, .. }| output.unsent_to_client(transport))
    }

    fn avoid_files(&mut self) {
        self.with_connection(|connection| connection.output.avoid_files());
    }

    fn give_up(&mut self) {
        self.with_connection(|connection| connection.output.fail(ErrorKind::BrokenPipe));
    }

    fn wait_to_write(&mut self) -> io::Result<Wait> {
        // The application waits for the client, whose time `write_timeout` bounds: the worker is
        // not stuck.
        self.limits().beat();
        self.with_connection(|Connection { output, transport, limits, .. }| {
            output.check()?;
            let now = Instant::now();
            if output.has_stalled(transport.stream(), limits, now) {
                transport.stream().reset_on_close();
                output.fail(ErrorKind::TimedOut);
                return Err(ErrorKind::TimedOut.into());
            }
            let descriptor = transport.stream().as_raw_fd();
            Ok(Wait { descriptor, readiness: Readiness::ToWrite, until: now + LOOK_AGAIN })
        })
    }

    fn read_body(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let connection = self.link().connection.clone();
        self.read_rest(buffer, |buffer| {
            let mut connection = lock(&connection);
            retry(|| connection.transport.read(buffer))
        })
    }

    fn wait_to_read(&mut self) -> io::Result<Wait> {
        // As above: the application waits for the client.
        self.limits().beat();
        let now = Instant::now();
        let until = self.wait_for_body(now)?;
        let descriptor = self.with_connection(|connection| connection.transport.stream().as_raw_fd());
        Ok(Wait { descriptor, readiness: Readiness::ToRead, until: until.min(now + LOOK_AGAIN) })
    }

    fn may_keep_alive(&self, is_last: bool) -> bool {
        self.may_be_kept() && (!is_last || self.has_come_whole())
    }

    fn lend_socket(&mut self) -> io::Result<RawFd> {
        self.with_connection(|connection| {
            if connection.transport.is_tls() {
                connection.lend_session()?;
            }
            connection.transport.set_lent(true)?;
            Ok(connection.transport.stream().as_raw_fd())
        })
    }
}

impl dyn Exchange {
    /// The request that was given out as an exchange.
    pub fn into_request(self: Box<Self>) -> Option<Box<Request>> {
        (self as Box<dyn Any>).downcast().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::settings::Config;
    use crate::sys::socket::Peer;
    use crate::worker::connection::share;
    use crate::worker::read_context::ReadContext;

    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// A request that is served, with company or without, its connection, and its client, which has
    /// sent the request and then `behind`.
    fn served(behind: &str, has_company: bool) -> (Box<Request>, SharedConnection, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        theirs.write_all(format!("{REQUEST}{behind}").as_bytes()).unwrap();
        let (limits, now) = (Arc::new(ConnectionLimits::new(&Config::default())), Instant::now());
        let connection = share(Connection::new(Stream::from(OwnedFd::from(ours)), Peer::Unix, 0, limits, now));
        assert_eq!(lock(&connection).on_readable(&mut ReadContext::new(), false, 1, now), Step::Call);
        let request = lock(&connection).check_out(&connection, 0, has_company);
        assert!(lock(&connection).is_served());
        (request, connection, theirs)
    }

    /// The request is answered.
    fn finish(request: Box<Request>, keep_alive: bool, now: Instant) -> Step {
        request.give_back(|connection| connection.finish(keep_alive, now)).step
    }

    fn received(client: &mut UnixStream) -> String {
        let mut buffer = [0; 100];
        let count = client.read(&mut buffer).unwrap_or(0);
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    #[test]
    fn a_response_is_put_off_only_in_company() {
        let now = Instant::now();
        for has_company in [false, true] {
            let (mut request, connection, mut client) = served("", has_company);
            assert_eq!(request.send(&[b"response"], Hint::LastOfResponse).unwrap(), 8);
            assert_eq!(lock(&connection).output.waits_for_responses(), has_company);
            assert_eq!(finish(request, true, now), if has_company { Step::Send } else { Step::Wait });
            let mut connection = lock(&connection);
            assert_eq!(connection.is_idle(), !has_company);
            assert_eq!(received(&mut client), if has_company { "" } else { "response" });
            assert_eq!(connection.on_writable(now), Step::Wait);
            assert_eq!(received(&mut client), if has_company { "response" } else { "" });
            assert!(connection.is_idle());
        }
    }

    #[test]
    fn what_nobody_has_told_of_is_read_before_a_close() {
        let now = Instant::now();
        for late in ["", "more"] {
            let (mut request, connection, mut client) = served("", false);
            client.write_all(late.as_bytes()).unwrap();
            assert_eq!(request.send(&[b"response"], Hint::LastOfConnection).unwrap(), 8);
            assert_eq!(finish(request, false, now), if late.is_empty() { Step::Close } else { Step::Again });
            assert_eq!(received(&mut client), "response");
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "the end is told before the descriptor is closed");
            drop(client);
            let mut connection = lock(&connection);
            assert_eq!(
                connection.on_readable(&mut ReadContext::new(), false, 1, now),
                if late.is_empty() { Step::Wait } else { Step::Close }
            );
            assert_eq!(connection.end(now), Step::Close);
        }
    }

    #[test]
    fn a_promise_to_be_kept_holds_for_a_moment_when_the_worker_ends() {
        let now = Instant::now();
        let (request, connection, mut client) = served("", false);
        assert!(request.may_keep_alive(true));
        request.limits().stop_keeping_alive();
        assert!(!request.may_keep_alive(true));
        assert_eq!(finish(request, true, now), Step::Wait);
        let mut connection = lock(&connection);
        assert_eq!(connection.on_time(now), Step::Wait);
        assert_eq!(connection.on_time(now + Duration::from_secs(3)), Step::LastLook);
        client.write_all(REQUEST.as_bytes()).unwrap();
        assert_eq!(connection.on_readable(&mut ReadContext::new(), false, 1, now), Step::Call);
    }

    #[test]
    fn a_response_that_is_put_off_goes_out_before_anything_else() {
        let now = Instant::now();
        let put_off = |behind| {
            let (mut request, connection, client) = served(behind, true);
            assert_eq!(request.send(&[b"response"], Hint::LastOfResponse).unwrap(), 8);
            assert!(lock(&connection).output.waits_for_responses());
            (request, client)
        };
        let (mut request, mut client) = put_off("");
        assert_eq!(request.send(&[b" and more"], Hint::Now).unwrap(), 9);
        assert_eq!(received(&mut client), "response and more");
        let (request, mut client) = put_off(REQUEST);
        assert_eq!(finish(request, true, now), Step::Call, "the next request is there");
        assert_eq!(received(&mut client), "response");
        let (request, mut client) = put_off("");
        assert_eq!(finish(request, false, now), Step::Close);
        assert_eq!(received(&mut client), "response");
    }

    #[test]
    fn the_event_loop_goes_on_sending_while_the_request_is_served() {
        let now = Instant::now();
        let (mut request, connection, mut client) = served("", false);
        let bytes = vec![b'x'; 1 << 20];
        assert_eq!(request.send(&[&bytes], Hint::Now).unwrap(), bytes.len(), "the client has not read");
        let (mut all, mut block) = (0, vec![0; 1 << 16]);
        while all < bytes.len() {
            all += client.read(&mut block).unwrap_or(0);
            assert!(!lock(&connection).send_on(now));
        }
        assert_eq!(request.unsent(), 0);
        assert_eq!(finish(request, true, now), Step::Wait);
        assert!(lock(&connection).is_idle());
    }

    #[test]
    fn a_client_that_does_not_read_is_told_to_the_application() {
        let now = Instant::now();
        let (mut request, connection, _client) = served("", false);
        let bytes = vec![b'x'; 1 << 20];
        assert_eq!(request.send(&[&bytes], Hint::Now).unwrap(), bytes.len());
        assert_eq!(lock(&connection).on_time(now + Duration::from_secs(1000)), Step::Stalled);
        assert_eq!(request.send(&[b"more"], Hint::Now).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(finish(request, true, now), Step::Close);
    }
}
