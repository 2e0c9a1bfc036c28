//! What arrives: a PROXY header, heads, bodies. Each step goes as far as the bytes lead.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Instant;

use memchr::memmem::Finder;

use super::{Connection, State, Step, address_text};
use crate::http::body::BodyDecoder;
use crate::http::error::Error;
use crate::http::proxy::{self, Origin, Parsed};
use crate::http::request::Status;
use crate::http::response::{self, Asked};
use crate::sys::socket::Peer;
use crate::worker::body_rate::BodyRate;
use crate::worker::body_store::{BodyStore, Room};
use crate::worker::read_context::Incoming;

/// A read of up to this many bytes goes to the input buffer as it is: looking for the end of the head first would not pay.
const SHORT_READ: usize = 2 * 1024;

/// What ends a head.
static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

impl Connection {
    pub(super) fn on_bytes(&mut self, arrival: Incoming<'_>, now: Instant) -> Step {
        let bytes = arrival.bytes();
        match self.state {
            State::Body => {
                let step = self.on_body_bytes(bytes, now);
                self.await_body(step, now)
            }
            State::Lingering(left) => self.drop_bytes(left, bytes.len()),
            _ => {
                if self.input.is_empty() {
                    self.deadline = Some(now + self.limits.head_timeout);
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
    pub(super) fn parse(&mut self, mut behind: Incoming<'_>, now: Instant) -> Step {
        if self.state == State::Proxy
            && let Some(step) = self.parse_proxy_header(now)
        {
            return step;
        }
        let policy = &self.limits.policy;
        match self.parser.parse(&self.input, policy, self.is_trusted, behind.known(), &mut self.head) {
            Ok(Status::Partial) if behind.bytes().is_empty() => Step::Wait,
            Ok(Status::Partial) => {
                self.input.extend_from_slice(behind.bytes());
                self.parse(Incoming::Bytes(&[]), now)
            }
            Ok(Status::Complete) => self.begin_body(behind, now),
            Err(_) if is_tls_handshake(&self.input) => self.refuse(Error::TlsOnPlainHttp, now),
            Err(error) => self.refuse(error, now),
        }
    }

    /// Takes a PROXY header off the input; `None` when the first request begins.
    fn parse_proxy_header(&mut self, now: Instant) -> Option<Step> {
        let mode = self.limits.proxy_mode?;
        match proxy::parse(&self.input, mode) {
            Ok(Parsed::Partial) => return Some(Step::Wait),
            Ok(Parsed::Absent) if self.limits.requires_proxy_header => {
                return Some(self.refuse(Error::InvalidProxyHeader("missing"), now));
            }
            Ok(Parsed::Absent) => {}
            Ok(Parsed::Header { len, origin }) => {
                if !self.limits.takes_proxy_headers_from(&self.peer) {
                    let error = Error::ForbiddenProxyRequest(self.remote_addr.clone());
                    return Some(self.refuse(error, now));
                }
                self.input.drain(..len);
                self.is_trusted = self.limits.trusts_origin(&origin, &self.peer);
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
    fn begin_body(&mut self, behind: Incoming<'_>, now: Instant) -> Step {
        self.note_request();
        self.decoder = BodyDecoder::new(self.head.framing, &self.limits.policy);
        if self.decoder.is_done() {
            self.input.extend_from_slice(behind.bytes());
            let step = self.serve();
            return if self.is_health_check() { Step::Check } else { step };
        }
        let announced = self.decoder.remaining_length();
        if let (Some(length), Some(limit)) = (announced, self.limits.limit_request_body)
            && length > limit
        {
            return self.refuse(Error::ContentTooLarge, now);
        }
        match behind {
            // It is all there, and nothing else: where it was read to is as good a place as any.
            Incoming::InScratch(read_context, range) if self.is_whole_body(announced, range.len()) => {
                self.decoder = BodyDecoder::Length(0);
                self.body = Some(read_context.take_body(range));
                self.serve()
            }
            behind => self.gather_body(announced, behind.bytes(), now),
        }
    }

    /// The head is the current request's. What it asks for is noted while it stands in the input.
    pub(super) fn note_request(&mut self) {
        self.asked = Some(Asked::by(self.head.method.of(self.head.source(&self.input))));
    }

    fn is_whole_body(&self, announced: Option<u64>, count: usize) -> bool {
        announced == Some(count as u64) && self.input.len() == self.head.len && count <= self.limits.body_buffer
    }

    fn gather_body(&mut self, announced: Option<u64>, behind: &[u8], now: Instant) -> Step {
        self.body = Some(BodyStore::new(announced));
        self.body_length = 0;
        self.state = State::Body;
        self.body_rate = BodyRate::begin(now);
        if self.input.len() == self.head.len && behind.is_empty() && self.head.expect_continue {
            self.write_queue.push(response::CONTINUE);
            if self.flush_output(now).is_err() {
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
        let Some(path) = &self.limits.health_path else { return false };
        let source = self.head.source(&self.input);
        self.head.path.of(source) == path.as_bytes() && matches!(self.head.method.of(source), b"GET" | b"HEAD")
    }

    fn await_body(&mut self, step: Step, now: Instant) -> Step {
        if step == Step::Wait {
            self.deadline = Some(self.body_rate.deadline(now, &self.limits));
        }
        step
    }

    fn on_body_bytes(&mut self, bytes: &[u8], now: Instant) -> Step {
        let (data, rest) = match self.decode_all(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.refuse(error, now),
        };
        self.body_rate.add(data.len(), now);
        let Some(store) = &mut self.body else { return Step::Close };
        let room = if data.is_empty() { Room::Left } else { store.add(&data, &self.limits) };
        if room == Room::Refused {
            self.unsaved = data.into_owned();
        }
        if self.decoder.is_done() {
            // Pipelined: the next request's first bytes.
            self.input.extend_from_slice(rest);
            return self.serve();
        }
        if room != Room::Left {
            self.body_rate.pause(now);
            return self.serve();
        }
        Step::Wait
    }

    /// Decodes `bytes` as far as the body goes: its data in one piece, however small its chunks are, and what comes behind it. What the
    /// data is put into costs as much for a chunk as for a whole read.
    fn decode_all<'a>(&mut self, bytes: &'a [u8]) -> Result<(Cow<'a, [u8]>, &'a [u8]), Error> {
        let (mut data, mut rest) = (Cow::Borrowed(&b""[..]), bytes);
        while !rest.is_empty() && !self.decoder.is_done() {
            let decoded = self.decoder.decode(rest)?;
            rest = &rest[decoded.consumed..];
            self.body_length += decoded.data.len() as u64;
            if self.body_is_too_long() {
                return Err(Error::ContentTooLarge);
            }
            if data.is_empty() {
                data = Cow::Borrowed(decoded.data);
            } else if !decoded.data.is_empty() {
                gather(&mut data, decoded.data, rest.len());
            }
        }
        Ok((data, rest))
    }

    pub(super) fn body_is_too_long(&self) -> bool {
        self.limits.limit_request_body.is_some_and(|limit| self.body_length > limit)
    }
}

/// Puts `more` behind `data`; `rest` bytes are left that may follow.
fn gather(data: &mut Cow<'_, [u8]>, more: &[u8], rest: usize) {
    if let Cow::Borrowed(first) = data {
        let mut gathered = Vec::with_capacity(first.len() + more.len() + rest);
        gathered.extend_from_slice(first);
        *data = Cow::Owned(gathered);
    }
    data.to_mut().extend_from_slice(more);
}

/// Whether these bytes begin a TLS connection: a record with a handshake in it, of version 3.x (RFC 8446, section 5.1).
fn is_tls_handshake(input: &[u8]) -> bool {
    matches!(input, [22] | [22, 3, ..])
}
