//! One request, from the moment it is whole, or the application has to read the rest of it, until
//! it is answered.
//!
//! Knows the request, and what is fixed for the client. What the application asks of its connection
//! stands in `serving`.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::SharedConnection;
use super::client::Client;
use crate::exchange::{Body, RequestId, RequestView};
use crate::http::connection::{BodyReader, BodySink, Received, Room};
use crate::http::error::Error;
use crate::http::request::{Coding, Framing, RequestHead, Scheme};
use crate::http::request_start::{find_sent_at, wait_since};
use crate::tls::Secured;
use crate::worker::body_store::{BodyStore, NotKept};
use crate::worker::connection_limits::ConnectionLimits;
use crate::worker::request_ids::AssignedId;

/// A request and its body. A connection has one, which it fills again and again.
pub struct Request {
    pub(super) head: RequestHead,
    /// The bytes that the head's spans point into. Where the application has to read the rest of
    /// the body, what has come of that and is not decoded follows them. Empty until the request is
    /// ready: till then its bytes are in the connection's input.
    bytes: Vec<u8>,
    pub(super) store: Option<BodyStore>,
    /// Decoded body bytes that found no place in the store.
    unsaved: Vec<u8>,
    /// The decoded length of a body that had come whole when the request was ready.
    length: u64,
    /// Reads the rest of a body that had not come whole when the request was ready.
    rest: Option<Box<BodyReader>>,
    /// When the wait for more of the rest ends, as long as the application waits.
    wait_ends: Option<Instant>,
    /// When the request was ready, less the time that it waited in the kernel where that is known.
    ready_at: Instant,
    /// Its id, where requests have ids, once it is ready.
    id: Option<AssignedId>,
    /// When its body began to come, if that did not come with the head.
    began: Option<Instant>,
    /// The buffer of a body that the application is done with.
    pub(super) returned: Vec<u8>,
    limits: Arc<ConnectionLimits>,
    /// The way to the connection, as long as the application has the request.
    pub(super) link: Option<Link>,
}

/// The way from a request that is served to its connection.
pub(super) struct Link {
    pub(super) connection: SharedConnection,
    /// The connection's key in the event loop.
    pub(super) key: usize,
    pub(super) client: Arc<Client>,
    /// What TLS has settled, where the connection is under TLS.
    pub(super) secured: Option<Arc<Secured>>,
}

/// Gathers a request's body.
pub(super) struct Gatherer<'a> {
    store: &'a mut Option<BodyStore>,
    unsaved: &'a mut Vec<u8>,
    limits: &'a ConnectionLimits,
}

impl Request {
    pub(super) fn new(limits: Arc<ConnectionLimits>) -> Self {
        Request {
            head: RequestHead::default(),
            bytes: Vec::new(),
            store: None,
            unsaved: Vec::new(),
            length: 0,
            rest: None,
            wait_ends: None,
            ready_at: Instant::now(),
            id: None,
            began: None,
            returned: Vec::new(),
            limits,
            link: None,
        }
    }

    pub(super) fn limits(&self) -> &Arc<ConnectionLimits> {
        &self.limits
    }

    /// Notes when the request was ready, and its id, which a trusted peer may have sent.
    pub(super) fn note_ready(&mut self, at: Instant, peer_is_trusted: bool) {
        self.ready_at = at;
        if let Some(ids) = &self.limits.request_ids {
            self.id = Some(ids.of(&self.head, self.head.source(&self.bytes), peer_is_trusted));
        }
    }

    /// Its id, where requests have ids.
    pub(super) fn id(&self) -> Option<AssignedId> {
        self.id
    }

    /// The same, with the header that it stands in.
    pub(super) fn named_id(&self) -> Option<RequestId<'_>> {
        let (id, ids) = (self.id.as_ref()?, self.limits.request_ids.as_ref()?);
        Some(ids.named(id, self.head.source(&self.bytes)))
    }

    /// Since when it waits for the application, and how many of its bytes have come.
    pub fn ready(&self) -> (Instant, u64) {
        (self.ready_at, self.head.len as u64 + self.length)
    }

    /// How long the request was under way before it arrived, if a trusted proxy says when it was
    /// sent.
    pub fn upstream_wait(&self) -> Option<Duration> {
        if !self.link.as_ref()?.client.is_trusted {
            return None;
        }
        let sent_at = find_sent_at(&self.head, self.head.source(&self.bytes))?;
        let arrived_at = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.checked_sub(self.ready_at.elapsed())?;
        wait_since(sent_at, arrived_at)
    }

    /// Whether its response may say that the connection is kept.
    pub(super) fn may_be_kept(&self) -> bool {
        self.head.keep_alive && self.limits.keeps_alive()
    }

    /// What a connection fills while the request is on its way.
    pub(super) fn parts<'a>(&'a mut self, limits: &'a ConnectionLimits) -> (&'a mut RequestHead, Gatherer<'a>) {
        (&mut self.head, Gatherer { store: &mut self.store, unsaved: &mut self.unsaved, limits })
    }

    /// The request is ready: takes its bytes from the front of `input`, and leaves those of the
    /// next request there.
    pub(super) fn begin(&mut self, received: Received, input: &mut Vec<u8>) {
        debug_assert!(self.bytes.is_empty(), "the last request is not over");
        (self.length, self.began, self.rest) = match received {
            Received::NoBody => (0, None, None),
            Received::LastBytes(count) => (count as u64, None, None),
            Received::Stored { length, began } => (length, Some(began), None),
            Received::Part(reader) => (0, Some(reader.rate().began()), Some(reader)),
        };
        if self.rest.is_none() && input.len() > self.head.len {
            // The head is the shorter part: it alone moves, and the buffer stays where it is.
            self.bytes.extend_from_slice(&input[..self.head.len]);
            input.drain(..self.head.len);
        } else {
            std::mem::swap(&mut self.bytes, input);
        }
    }

    /// The request as the application sees it.
    pub(super) fn view<'a>(&'a self, client: &'a Client, secured: Option<&'a Arc<Secured>>) -> RequestView<'a> {
        RequestView {
            buffer: self.head.source(&self.bytes),
            head: &self.head,
            client: client.view(),
            decoded_length: self.decoded_length(),
            scheme: self.scheme(secured.is_some()),
            secured,
            id: self.named_id(),
            ready_at: self.ready_at,
            received: self.ready().1,
        }
    }

    /// The scheme that a trusted proxy says its client used, or else the connection's own.
    pub(super) fn scheme(&self, is_secured: bool) -> Scheme {
        self.head.forwarded_scheme.unwrap_or(if is_secured { Scheme::Https } else { Scheme::Http })
    }

    /// See [`crate::exchange::Exchange::take_body`].
    pub(super) fn take_stored_body(&mut self) -> Body {
        let Some(store) = self.store.take() else { return Body::empty() };
        let whole = store.into_body().unwrap_or_else(|error| {
            log::error!("Cannot read a spooled request body: {error}");
            Body::empty()
        });
        if self.has_whole_body() { whole } else { Body::Stream(Box::new(whole)) }
    }

    /// Reads the rest of the body, which is not in the store. `receive` reads from the client, and
    /// returns `None` where nothing is there. See [`crate::exchange::Exchange::read_body`].
    pub(super) fn read_rest(
        &mut self,
        buffer: &mut [u8],
        mut receive: impl FnMut(&mut [u8]) -> io::Result<Option<usize>>,
    ) -> io::Result<usize> {
        if !self.unsaved.is_empty() {
            let count = self.unsaved.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.unsaved[..count]);
            self.unsaved.drain(..count);
            return Ok(count);
        }
        let Some(rest) = &mut self.rest else { return Ok(0) };
        loop {
            let (used, count) =
                rest.read(&self.bytes[self.head.len..], buffer, &self.limits.http).map_err(body_error)?;
            self.bytes.drain(self.head.len..self.head.len + used);
            if count > 0 || rest.is_done() {
                return Ok(count);
            }
            match receive(buffer)? {
                Some(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the request body ends early")),
                Some(count) => {
                    self.wait_ends = None;
                    rest.receive(count, Instant::now());
                    self.bytes.extend_from_slice(&buffer[..count]);
                }
                None => return Err(ErrorKind::WouldBlock.into()),
            }
            rest.pause(Instant::now());
        }
    }

    /// Until when the client has time to send more of the body. The time stays the same until bytes
    /// come, however often this is called.
    ///
    /// # Errors
    /// The client has sent nothing for longer than it may.
    pub(super) fn wait_for_body(&mut self, now: Instant) -> io::Result<Instant> {
        // Nothing more is to come, so there is nothing to wait for.
        let Some(rest) = &mut self.rest else { return Ok(now) };
        rest.resume(now);
        let until = *self.wait_ends.get_or_insert(rest.rate().deadline(now, &self.limits.http));
        if now >= until { Err(ErrorKind::TimedOut.into()) } else { Ok(until) }
    }

    /// Whether all of its body has come and is decoded. What is not lies in the way of the next
    /// request.
    pub(super) fn has_come_whole(&self) -> bool {
        self.rest.as_ref().is_none_or(|rest| rest.is_done())
    }

    /// Whether all of its body has come, and nothing of it has to be streamed.
    pub(super) fn has_whole_body(&self) -> bool {
        self.has_come_whole() && self.unsaved.is_empty()
    }

    /// Whether bytes have come behind the request, or more of its body is still to come.
    pub(super) fn has_more(&self) -> bool {
        !self.has_come_whole() || self.bytes.len() > self.head.len
    }

    /// The bytes that its head points into; empty until it is ready.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes these bytes out.
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Frees the body, which is of no use any more.
    pub(super) fn drop_body(&mut self) {
        self.store = None;
        self.unsaved = Vec::new();
    }

    /// The request is answered: gives what has come behind a streamed body back to `input`, with
    /// the buffer, if `input` is empty.
    pub(super) fn end(&mut self, input: &mut Vec<u8>) {
        self.bytes.drain(..self.head.len);
        (self.rest, self.wait_ends, self.began) = (None, None, None);
        if input.is_empty() {
            std::mem::swap(&mut self.bytes, input);
        }
        debug_assert!(self.bytes.is_empty(), "a streamed body and the next request's bytes");
    }

    /// Frees the buffer that it does not use between two requests.
    pub(super) fn shrink(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }

    /// When its body began to come.
    pub(super) fn began(&self) -> Option<Instant> {
        self.began
    }

    /// Memory that it holds, and room in files, in bytes.
    pub(super) fn held(&self) -> (usize, u64) {
        let (memory, spool) = match &self.store {
            // These buffers are not counted: bodies may keep only so many of them (see
            // `read_context`).
            None | Some(BodyStore::Whole(..)) => (0, 0),
            Some(BodyStore::Memory(bytes)) => (bytes.capacity(), 0),
            Some(BodyStore::Spooled(_, length)) => (0, *length),
        };
        let bytes = if self.bytes.is_empty() { 0 } else { self.bytes.capacity() };
        (bytes + self.head.held() + memory + self.unsaved.capacity(), spool)
    }

    /// See [`RequestView::decoded_length`].
    fn decoded_length(&self) -> Option<u64> {
        let is_decoded = self.head.framing == Framing::Chunked(Coding::Identity) && self.has_whole_body();
        is_decoded.then(|| self.rest.as_ref().map_or(self.length, |rest| rest.length()))
    }
}

impl BodySink for Gatherer<'_> {
    fn begin(&mut self, announced: Option<u64>) {
        *self.store = Some(BodyStore::new(announced));
    }

    fn add(&mut self, data: Cow<'_, [u8]>) -> Room {
        let store = self.store.get_or_insert_with(|| BodyStore::new(None));
        store.add(&data, self.limits).unwrap_or_else(|NotKept| {
            *self.unsaved = data.into_owned();
            Room::Exhausted
        })
    }
}

fn body_error(error: Error) -> io::Error {
    match error {
        Error::ContentTooLarge => io::Error::other("the request body is longer than limit_request_body"),
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::connection::{Action, Context, Http1};
    use crate::settings::Config;

    /// The request that these bytes make, whose body is kept up to two bytes, and what stays in the
    /// input.
    fn request(bytes: &str, limits: &Arc<ConnectionLimits>) -> (Request, Vec<u8>) {
        let (mut request, mut input, now) = (Request::new(limits.clone()), Vec::new(), Instant::now());
        let (head, sink) = request.parts(limits);
        let context = Context { limits: &limits.http, is_trusted: false, known: None, input: &mut input, head, sink };
        let action = Http1::new(&limits.http, now).on_bytes(bytes.as_bytes(), context, now);
        let Action::Serve(received) = action else { panic!("no request: {action:?}") };
        request.begin(received, &mut input);
        (request, input)
    }

    fn limits() -> Arc<ConnectionLimits> {
        Arc::new(ConnectionLimits::new(&Config { body_buffer: 2, body_spool: 0, ..Config::default() }))
    }

    #[test]
    fn what_comes_behind_a_request_is_the_next_ones() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for behind in ["", "GET "] {
            let (mut request, mut input) = request(&format!("{head}{behind}"), &limits());
            assert_eq!((request.bytes(), &input[..]), (head.as_bytes(), behind.as_bytes()));
            assert!(request.has_whole_body() && !request.has_more());
            request.end(&mut input);
            assert_eq!((request.bytes(), &input[..]), (&b""[..], behind.as_bytes()));
        }
    }

    #[test]
    fn the_rest_of_a_body_is_read_to_its_end_and_no_further() {
        let limits = limits();
        let begin = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        let (mut request, mut input) = request(begin, &limits);
        assert!(matches!(request.take_stored_body(), Body::Stream(_)));
        assert!(!request.has_come_whole() && request.has_more());
        let mut arrivals = [Some(&b"3\r\nab"[..]), None, Some(b"c\r\n0\r\n\r\nGET ")].into_iter();
        let mut receive = |buffer: &mut [u8]| {
            let arrived = arrivals.next().expect("no more is asked for");
            Ok(arrived.map(|bytes| {
                buffer[..bytes.len()].copy_from_slice(bytes);
                bytes.len()
            }))
        };
        let mut read = || {
            let mut buffer = [0; 100];
            let count = request.read_rest(&mut buffer, &mut receive)?;
            Ok::<_, io::Error>(buffer[..count].to_vec())
        };
        assert_eq!(read().unwrap(), b"ab");
        assert_eq!(read().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(read().unwrap(), b"c");
        assert_eq!(read().unwrap(), b"");
        assert!(request.has_whole_body());
        request.end(&mut input);
        assert_eq!(input, b"GET ");
    }
}
