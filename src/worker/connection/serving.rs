//! What the application may ask of the connection while it has the request.

use std::any::Any;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use super::lent::{Lent, LentSession};
use super::{Connection, receive};
use crate::exchange::{Body, Exchange, Hint, RequestView, Wait};
use crate::sys::socket::{Readiness, Stream};
use crate::worker::relay;

/// How often a client that does not read, or send, is looked at while the application waits for it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Exchange for Connection {
    fn request(&self) -> RequestView<'_> {
        let secured = match self.lent.session() {
            None => self.transport.secured(),
            Some(session) => session.secured.as_ref(),
        };
        self.request.view(&self.client, secured)
    }

    fn take_body(&mut self) -> Body {
        self.request.take_body()
    }

    fn return_buffer(&mut self, buffer: Vec<u8>) {
        self.request.returned = buffer;
    }

    fn send(&mut self, parts: &[&[u8]], hint: Hint) -> io::Result<usize> {
        // A lent socket blocks, and it is the application's: nothing waits on it.
        let hint = if self.lent.is_lent() { Hint::Now } else { hint };
        let sent = self.output.send(&mut self.transport, &self.limits, parts, hint);
        if !self.output.is_empty() {
            self.note_held();
        }
        sent
    }

    fn send_file(&mut self, file: OwnedFd, offset: u64, length: u64) {
        self.output.push_file(file, offset, length);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush(&mut self.transport, Instant::now()).map(drop)
    }

    fn flush_due(&mut self, now: Instant) -> bool {
        if self.output.waits_for_client(&self.transport) {
            let _ = self.output.flush(&mut self.transport, now);
            return true;
        }
        self.output.flush_due(&mut self.transport, now)
    }

    fn hurry(&mut self) {
        self.output.hurry(&mut self.transport, Instant::now());
    }

    fn unsent(&self) -> u64 {
        self.output.waiting()
    }

    fn avoid_files(&mut self) {
        self.output.avoid_files();
    }

    fn give_up(&mut self) {
        self.output.fail(ErrorKind::BrokenPipe);
    }

    fn wait_to_write(&mut self) -> io::Result<Wait> {
        // It is the client that the application waits for, which has its own time for it (`write_timeout`): the worker is not stuck.
        self.limits.beat();
        self.output.check()?;
        let now = Instant::now();
        if self.output.has_stalled(self.transport.stream(), &self.limits, now) {
            self.output.fail(ErrorKind::TimedOut);
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(self.wait(Readiness::ToWrite, now + LOOK_AGAIN))
    }

    fn read_body(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Connection { request, transport, limits, .. } = self;
        request.read_body(buffer, &limits.http, |buffer| receive(|| transport.read(buffer)))
    }

    fn wait_to_read(&mut self) -> io::Result<Wait> {
        // As above: it is the client that is waited for.
        self.limits.beat();
        let now = Instant::now();
        let until = self.request.wait_for_body(&self.limits.http, now)?;
        Ok(self.wait(Readiness::ToRead, until.min(now + LOOK_AGAIN)))
    }

    fn may_keep_alive(&self) -> bool {
        self.request.head.keep_alive && self.limits.keeps_alive()
    }

    fn lend_socket(&mut self) -> io::Result<RawFd> {
        if self.transport.is_tls() {
            self.lend_session()?;
        }
        self.transport.stream().set_blocking(true)?;
        if !self.lent.is_lent() {
            self.lent = Lent::Socket;
        }
        Ok(self.transport.stream().as_raw_fd())
    }
}

impl dyn Exchange {
    /// The connection that was given out as an exchange.
    pub fn into_connection(self: Box<Self>) -> Option<Box<Connection>> {
        (self as Box<dyn Any>).downcast().ok()
    }
}

impl Connection {
    /// Puts one end of a socket pair in the session's place, and a thread behind the other that carries the bytes between the two: what
    /// the application gets is a real socket, and knows nothing of TLS.
    fn lend_session(&mut self) -> io::Result<()> {
        let (ours, theirs) = Stream::pair()?;
        let below = self.transport.stream().duplicate()?;
        let secured = self.transport.secured().cloned();
        let (stream, Some(session)) = self.transport.replace(ours) else { return Err(ErrorKind::NotConnected.into()) };
        self.lent = Lent::InsteadOfTls(Box::new(LentSession { stream: Some(stream), secured }));
        relay::start(below, session, theirs, self.limits.write_timeout)
    }

    fn wait(&self, readiness: Readiness, until: Instant) -> Wait {
        Wait { descriptor: self.transport.stream().as_raw_fd(), readiness, until }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::*;
    use crate::settings::Config;
    use crate::sys::socket::Peer;
    use crate::worker::connection::Step;
    use crate::worker::connection_limits::ConnectionLimits;
    use crate::worker::read_context::ReadContext;

    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// A connection whose request is ready, and its client, who has sent that and what is `behind`.
    fn asked(behind: &str) -> (Connection, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        theirs.write_all(format!("{REQUEST}{behind}").as_bytes()).unwrap();
        let (limits, now) = (Arc::new(ConnectionLimits::new(&Config::default())), Instant::now());
        let mut connection = Connection::new(Stream::from(OwnedFd::from(ours)), Peer::Unix, 0, limits, now);
        assert_eq!(connection.on_readable(&mut ReadContext::new(), false, 1, now), Step::Call);
        (connection, theirs)
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
            let (mut connection, mut client) = asked("");
            connection.begin_response(has_company);
            assert_eq!(connection.send(&[b"response"], Hint::LastOfResponse).unwrap(), 8);
            assert_eq!(connection.output.waits_for_responses(), has_company);
            assert_eq!(connection.finish(true, now), if has_company { Step::Send } else { Step::Wait });
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
            let (mut connection, mut client) = asked("");
            client.write_all(late.as_bytes()).unwrap();
            assert_eq!(connection.send(&[b"response"], Hint::LastOfConnection).unwrap(), 8);
            assert_eq!(connection.finish(false, now), if late.is_empty() { Step::Close } else { Step::Again });
            assert_eq!(received(&mut client), "response");
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "the end is told before the descriptor is closed");
            drop(client);
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
        let (mut connection, mut client) = asked("");
        assert!(connection.may_keep_alive());
        connection.limits.stop_keeping_alive();
        assert!(!connection.may_keep_alive());
        assert_eq!(connection.finish(true, now), Step::Wait);
        assert_eq!(connection.on_time(now), Step::Wait);
        assert_eq!(connection.on_time(now + Duration::from_secs(3)), Step::LastLook);
        client.write_all(REQUEST.as_bytes()).unwrap();
        assert_eq!(connection.on_readable(&mut ReadContext::new(), false, 1, now), Step::Call);
    }

    #[test]
    fn a_response_that_is_put_off_goes_out_before_anything_else() {
        let now = Instant::now();
        let put_off = |behind| {
            let (mut connection, client) = asked(behind);
            connection.begin_response(true);
            assert_eq!(connection.send(&[b"response"], Hint::LastOfResponse).unwrap(), 8);
            assert!(connection.output.waits_for_responses());
            (connection, client)
        };
        let (mut connection, mut client) = put_off("");
        assert_eq!(connection.send(&[b" and more"], Hint::Now).unwrap(), 9);
        assert_eq!(received(&mut client), "response and more");
        let (mut connection, mut client) = put_off(REQUEST);
        assert_eq!(connection.finish(true, now), Step::Call, "the next request is there");
        assert_eq!(received(&mut client), "response");
        let (mut connection, mut client) = put_off("");
        assert_eq!(connection.finish(false, now), Step::Close);
        assert_eq!(received(&mut client), "response");
    }
}
