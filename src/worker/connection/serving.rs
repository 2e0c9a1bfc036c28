//! What the application may ask of the connection while it has the request.

use std::any::Any;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use super::{Connection, LentSession};
use crate::exchange::{Body, Exchange, Hint, RequestView, Wait};
use crate::http::request::{Coding, Framing, Scheme};
use crate::sys::fork;
use crate::sys::socket::{Cork, Readiness, Stream};
use crate::worker::batching::Waits;
use crate::worker::relay;
use crate::worker::standby::Attention;

/// How often a client that does not read, or send, is looked at while the application waits for it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Exchange for Connection {
    fn request(&self) -> RequestView<'_> {
        let secured = match &self.lent {
            None => self.transport.secured(),
            Some(lent) => lent.secured.as_ref(),
        };
        RequestView {
            buffer: self.head.source(&self.input),
            head: &self.head,
            peer: &self.peer,
            remote_addr: &self.remote_addr,
            proxied: self.proxied.as_ref(),
            decoded_length: self.decoded_length(),
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
        if self.has_whole_body() { whole } else { Body::Stream(Box::new(whole)) }
    }

    fn return_buffer(&mut self, buffer: Vec<u8>) {
        self.returned = buffer;
    }

    fn send(&mut self, parts: &[&[u8]], hint: Hint) -> io::Result<usize> {
        self.check_output()?;
        let length = parts.iter().map(|part| part.len()).sum();
        if self.defers(hint, length) {
            parts.iter().for_each(|part| self.write_queue.push(part));
            if hint == Hint::MoreSoon {
                self.limits.standby.call_for(Attention::ToBytes);
            }
            return Ok(length);
        }
        let sent = self.send_now(parts, hint);
        if let Err(error) = &sent {
            self.fail_output(error.kind());
        }
        if hint == Hint::MoreSoon {
            self.batching.block_was_sent();
        }
        sent
    }

    fn send_file(&mut self, file: OwnedFd, offset: u64, length: u64) {
        self.batching.end_wait();
        self.write_queue.push_file(file, offset, length);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check_output()?;
        self.leave_to_original();
        self.flush_output(Instant::now()).map(drop).inspect_err(|error| self.fail_output(error.kind()))
    }

    fn flush_due(&mut self, now: Instant) -> bool {
        match self.batching.waits() {
            // A lent socket blocks, and it is the application's.
            _ if self.is_lent || self.output_failure.is_some() => false,
            Waits::ForResponses => false,
            Waits::ForBlock(until) if now < until => true,
            Waits::Not if !self.has_unsent() => false,
            Waits::ForBlock(_) | Waits::Not => {
                // The application hears of a failure with its next call.
                let _ = Exchange::flush(self);
                true
            }
        }
    }

    fn hurry(&mut self) {
        self.batching.leave_company();
        if self.batching.waits() == Waits::ForResponses {
            let _ = Exchange::flush(self);
        }
    }

    fn unsent(&self) -> u64 {
        self.write_queue.waiting()
    }

    fn avoid_files(&mut self) {
        self.write_queue.set_avoids_files(true);
    }

    fn give_up(&mut self) {
        self.fail_output(ErrorKind::BrokenPipe);
    }

    fn wait_to_write(&mut self) -> io::Result<Wait> {
        // It is the client that the application waits for, which has its own time for it (`write_timeout`): the worker is not stuck.
        self.limits.beat();
        self.check_output()?;
        let now = Instant::now();
        if self.write_timeout.has_expired(self.transport.stream(), &self.limits, now) {
            self.fail_output(ErrorKind::TimedOut);
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(self.wait(Readiness::ToWrite, now + LOOK_AGAIN))
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
                    self.deadline = None;
                    self.body_rate.add(count, Instant::now());
                    self.input.extend_from_slice(&buffer[..count]);
                }
                None => return Err(ErrorKind::WouldBlock.into()),
            }
            self.body_rate.pause(Instant::now());
        }
    }

    fn wait_to_read(&mut self) -> io::Result<Wait> {
        // As above: it is the client that is waited for.
        self.limits.beat();
        let now = Instant::now();
        self.body_rate.resume(now);
        // Of one wait, however often it is begun again before bytes come.
        let until = *self.deadline.get_or_insert(self.body_rate.deadline(now, &self.limits));
        if now >= until {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(self.wait(Readiness::ToRead, until.min(now + LOOK_AGAIN)))
    }

    fn may_keep_alive(&self) -> bool {
        self.head.keep_alive && self.limits.keeps_alive()
    }

    fn lend_socket(&mut self) -> io::Result<RawFd> {
        if self.transport.is_tls() {
            self.lend_session()?;
        }
        self.transport.stream().set_blocking(true)?;
        self.is_lent = true;
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
    /// Whether the bytes wait for more to come. Nothing does behind what waits for the client, in a copy of the process, or on a socket
    /// that is the application's.
    fn defers(&mut self, hint: Hint, length: usize) -> bool {
        if !matches!(hint, Hint::MoreSoon | Hint::LastOfResponse) || self.is_lent || fork::is_copy() {
            return false;
        }
        let waits_for_client = self.batching.waits() == Waits::Not && self.has_unsent();
        !waits_for_client && self.batching.defers(hint, length, self.write_queue.in_memory())
    }

    /// Hands what waits and `parts` to the kernel, and keeps what it does not take.
    fn send_now(&mut self, parts: &[&[u8]], hint: Hint) -> io::Result<usize> {
        self.leave_to_original();
        let cork = if hint == Hint::LastOfConnection { Cork::UntilShutdown } else { Cork::No };
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            // The end has come, and no block follows.
            if matches!(self.batching.waits(), Waits::ForBlock(_)) {
                self.flush_output(Instant::now())?;
            }
            return Ok(0);
        }
        if self.batching.waits() == Waits::Not && self.has_unsent() {
            // This is how it learns that the client has gone.
            self.flush_output(Instant::now())?;
        }
        self.batching.end_wait();
        let sent = self.write_queue.write(&mut self.transport, parts, cork)?;
        if sent == length && self.write_queue.is_empty() {
            return Ok(length);
        }
        self.write_timeout.begin(self.transport.stream(), Instant::now());
        Ok(sent + self.keep(parts, sent))
    }

    /// In a copy of the process: what waits for more goes out from where it was produced.
    fn leave_to_original(&mut self) {
        if self.batching.waits() != Waits::Not && fork::is_copy() {
            self.write_queue.clear();
            self.batching.end_wait();
        }
    }

    /// Keeps what is left of `parts` behind the first `sent` bytes, as far as there is room, and returns how much.
    fn keep(&mut self, parts: &[&[u8]], mut sent: usize) -> usize {
        let mut kept = 0;
        for part in parts {
            let left = &part[sent.min(part.len())..];
            sent = sent.saturating_sub(part.len());
            let count = self.write_queue.keep(left, &self.limits);
            kept += count;
            if count < left.len() {
                break;
            }
        }
        self.note_held();
        kept
    }

    /// Whether anything can be sent still.
    fn check_output(&self) -> io::Result<()> {
        self.output_failure.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn fail_output(&mut self, kind: ErrorKind) {
        self.output_failure.get_or_insert(kind);
        self.write_queue.clear();
        self.batching.end_wait();
    }

    fn has_whole_body(&self) -> bool {
        self.decoder.is_done() && self.unsaved.is_empty()
    }

    /// See [`RequestView::decoded_length`].
    fn decoded_length(&self) -> Option<u64> {
        let is_decoded = self.head.framing == Framing::Chunked(Coding::Identity) && self.has_whole_body();
        is_decoded.then_some(self.body_length)
    }

    /// Puts one end of a socket pair in the session's place, and a thread behind the other that carries the bytes between the two: what
    /// the application gets is a real socket, and knows nothing of TLS.
    fn lend_session(&mut self) -> io::Result<()> {
        let (ours, theirs) = Stream::pair()?;
        let below = self.transport.stream().duplicate()?;
        let secured = self.transport.secured().cloned();
        let (stream, Some(session)) = self.transport.replace(ours) else { return Err(ErrorKind::NotConnected.into()) };
        self.lent = Some(Box::new(LentSession { stream: Some(stream), secured }));
        relay::start(below, session, theirs, self.limits.write_timeout)
    }

    fn wait(&self, readiness: Readiness, until: Instant) -> Wait {
        Wait { descriptor: self.transport.stream().as_raw_fd(), readiness, until }
    }

    /// Decodes streamed body bytes out of the input, as many as `buffer` takes, however small their chunks are; `None` when more must be
    /// received first.
    fn decode_streamed(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let (mut used, mut count) = (self.head.len, 0);
        while !self.decoder.is_done() && count < buffer.len() && used < self.input.len() {
            let room = buffer.len() - count;
            let end = self.input.len().min(used + room);
            let decoded = self.decoder.decode(&self.input[used..end]).map_err(io::Error::other)?;
            buffer[count..count + decoded.data.len()].copy_from_slice(decoded.data);
            (used, count) = (used + decoded.consumed, count + decoded.data.len());
        }
        self.input.drain(self.head.len..used);
        Ok((count > 0 || self.decoder.is_done()).then_some(count))
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
    fn a_response_is_deferred_only_in_company() {
        let now = Instant::now();
        for has_company in [false, true] {
            let (mut connection, mut client) = asked("");
            connection.begin_response(has_company);
            assert_eq!(connection.send(&[b"response"], Hint::LastOfResponse).unwrap(), 8);
            assert_eq!(connection.batching.waits() == Waits::ForResponses, has_company);
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
    fn a_deferred_response_goes_out_before_anything_else() {
        let now = Instant::now();
        let deferred = |behind| {
            let (mut connection, client) = asked(behind);
            connection.begin_response(true);
            assert_eq!(connection.send(&[b"response"], Hint::LastOfResponse).unwrap(), 8);
            assert_eq!(connection.batching.waits(), Waits::ForResponses);
            (connection, client)
        };
        let (mut connection, mut client) = deferred("");
        assert_eq!(connection.send(&[b" and more"], Hint::Now).unwrap(), 9);
        assert_eq!(received(&mut client), "response and more");
        let (mut connection, mut client) = deferred(REQUEST);
        assert_eq!(connection.finish(true, now), Step::Call, "the next request is there");
        assert_eq!(received(&mut client), "response");
        let (mut connection, mut client) = deferred("");
        assert_eq!(connection.finish(false, now), Step::Close);
        assert_eq!(received(&mut client), "response");
    }
}
