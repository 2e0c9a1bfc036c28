//! How a connection goes to another worker with a request that is ready.

use std::borrow::Cow;
use std::fs::File;
use std::time::Instant;

use super::{Connection, State, Step};
use crate::http::proxy::Origin;
use crate::http::request::{Framing, Status};
use crate::http::response;
use crate::worker::body_store::BodyStore;
use crate::worker::read_context::Incoming;

/// What of a connection goes to another worker besides its socket.
pub struct HandoffBytes {
    /// What the client has sent, and nobody has answered; without the first request's body if that has a file of its own.
    pub bytes: Vec<u8>,
    /// The body of the first request, decoded.
    pub body: Option<File>,
}

impl Connection {
    /// What another worker needs to take this connection over, in at most `limit` bytes and a file. `None` where that cannot be: the
    /// request's body is gone by, an earlier response is still under way, or TLS has its state here.
    pub fn prepare_handoff(&mut self, limit: usize) -> Option<HandoffBytes> {
        let is_whole = self.state == State::Serving && self.decoder.is_done() && self.unsaved.is_empty();
        if self.transport.is_tls() || !is_whole || !self.write_queue.is_empty() || self.input.len() > limit {
            return None;
        }
        let room = limit - self.input.len();
        let short = match &self.body {
            None => Some(&b""[..]),
            Some(store) => store.in_memory().filter(|bytes| bytes.len() <= room),
        };
        let body: Cow<[u8]> = match (short, self.head.framing) {
            (Some(bytes), Framing::Chunked(_)) => Cow::Owned(response::in_one_chunk(bytes)),
            // A body of known length stands in the stream as it is.
            (Some(bytes), Framing::Length(_) | Framing::None) => Cow::Borrowed(bytes),
            (None, _) => {
                let body = self.body.as_mut()?.as_file().ok()?;
                return Some(HandoffBytes { bytes: self.input.clone(), body: Some(body) });
            }
        };
        let (head, rest) = self.input.split_at(self.head.len);
        Some(HandoffBytes { bytes: [head, &*body, rest].concat(), body: None })
    }

    /// Goes on where [`Connection::prepare_handoff`] left off in another worker.
    pub fn resume_handoff(
        &mut self,
        is_trusted: bool,
        proxied: Option<Origin>,
        handoff: HandoffBytes,
        now: Instant,
    ) -> Step {
        (self.is_trusted, self.proxied) = (is_trusted, proxied);
        // A PROXY header has been read already.
        self.state = State::Head;
        // What arrived on the way has raised no event here.
        self.unread = true;
        let step = match handoff.body {
            None => self.on_bytes(Incoming::Bytes(&handoff.bytes), now),
            Some(file) => self.resume_with_body(handoff.bytes, file, now),
        };
        self.note_held();
        step
    }

    /// The same for a request whose body has been taken out of the stream: `bytes` are its head and what comes after the body.
    fn resume_with_body(&mut self, bytes: Vec<u8>, body: File, now: Instant) -> Step {
        self.input = bytes;
        match self.parser.parse(&self.input, &self.limits.policy, self.is_trusted, None, &mut self.head) {
            Ok(Status::Complete) => {}
            Ok(Status::Partial) => return Step::Close,
            // The rules of a newer generation may be other ones.
            Err(error) => return self.refuse(error, now),
        }
        self.note_request();
        match BodyStore::of_file(body) {
            Ok(store) => {
                self.body_length = store.length();
                self.body = Some(store);
            }
            Err(_) => return Step::Close,
        }
        self.serve()
    }
}
