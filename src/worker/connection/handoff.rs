//! How a connection whose request is ready goes to another worker.

use std::borrow::Cow;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::Client;
use super::{Connection, Step};
use crate::http::connection::{ClientProtocol, Http1};
use crate::http::proxy::Origin;
use crate::http::request::Framing;
use crate::http::response;
use crate::sys::socket::Peer;
use crate::worker::body_store::BodyStore;
use crate::worker::read_context::Incoming;

/// What goes to another worker with a connection, besides its socket.
pub struct HandoffBytes {
    /// What the client has sent and the server has not answered, without the first request's body
    /// if that is in `body`.
    pub bytes: Vec<u8>,
    /// The body of the first request, decoded, if it has a file of its own.
    pub body: Option<File>,
}

/// What one worker knows of a connection, and another one cannot find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandoffState {
    /// Whether the socket's peer is trusted.
    pub is_trusted: bool,
    /// What a PROXY header said.
    pub proxied: Option<Origin>,
    /// The socket's peer, if a PROXY header named another.
    pub via: Option<Peer>,
    /// What the client speaks: a reload may have changed that, and a sibling may be of another
    /// generation.
    pub protocol: ClientProtocol,
    /// How long the request has been ready.
    pub waited: Duration,
}

impl Connection {
    /// What is known of the connection, whose request is ready.
    pub fn handoff_state(&self, now: Instant) -> HandoffState {
        let Client { is_trusted, proxied, via, .. } = *self.client;
        let (ready_at, _) = self.request.ready();
        let waited = now.saturating_duration_since(ready_at);
        HandoffState { is_trusted, proxied, via, protocol: self.http.protocol(), waited }
    }

    /// What another worker needs to take this connection over, in at most `limit` bytes and a file.
    /// `None` where the connection cannot move: a part of the request's body is still to come, an
    /// earlier response is still queued, the bytes exceed `limit`, or the connection is under TLS,
    /// whose state is in this process.
    pub fn prepare_handoff(&mut self, limit: usize) -> Option<HandoffBytes> {
        let is_whole = self.http.is_serving() && self.request.has_whole_body();
        if self.transport.is_tls() || !is_whole || !self.output.is_empty() {
            return None;
        }
        let room = limit.checked_sub(self.request.bytes().len() + self.input.len())?;
        let short = match &self.request.store {
            None => Some(&b""[..]),
            Some(store) => store.in_memory().filter(|bytes| bytes.len() <= room),
        };
        let body: Cow<[u8]> = match (short, self.request.head.framing) {
            (Some(bytes), Framing::Chunked(_)) => Cow::Owned(response::in_one_chunk(bytes)),
            // A body of known length stands in the stream as it is.
            (Some(bytes), Framing::Length(_) | Framing::None) => Cow::Borrowed(bytes),
            (None, _) => {
                let body = self.request.store.as_mut()?.as_file().ok()?;
                let bytes = [self.request.bytes(), &self.input].concat();
                return Some(HandoffBytes { bytes, body: Some(body) });
            }
        };
        Some(HandoffBytes { bytes: [self.request.bytes(), &*body, &self.input].concat(), body: None })
    }

    /// Goes on with a connection that another worker gave away by [`Connection::prepare_handoff`].
    pub fn resume_handoff(&mut self, state: HandoffState, handoff: HandoffBytes, now: Instant) -> Step {
        let HandoffState { is_trusted, proxied, via, protocol, waited } = state;
        let client = Arc::make_mut(&mut self.client);
        (client.is_trusted, client.proxied, client.via) = (is_trusted, proxied, via);
        self.http = Http1::past_proxy(protocol, &self.limits.http, now);
        self.waited_before = waited;
        // Bytes that arrived on the way have raised no event here.
        self.arrivals.note(false);
        let step = match handoff.body {
            None => self.on_bytes(Incoming::Bytes(&handoff.bytes), now),
            Some(file) => self.resume_with_body(handoff.bytes, file, now),
        };
        self.waited_before = Duration::ZERO;
        self.note_held();
        step
    }

    /// The same for a request whose body has been taken out of the stream: `bytes` are its head and
    /// what comes after the body.
    fn resume_with_body(&mut self, bytes: Vec<u8>, body: File, now: Instant) -> Step {
        let Ok(store) = BodyStore::of_file(body) else { return Step::Close };
        let length = store.length();
        self.request.store = Some(store);
        self.input = bytes;
        let (http, context) = self.split(None);
        let action = http.on_gathered(length, context, now);
        self.take_action(action, now)
    }
}
