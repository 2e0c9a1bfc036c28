//! What a running request may ask of the connection it came in on.
//!
//! The worker owns connections, the Python layer runs applications; this is the only vocabulary
//! between them. The worker implements [`Exchange`]; the Python layer holds it as a trait object
//! while the application runs and gives it back when it is done. Nothing here knows an interpreter,
//! an event loop or a socket.

#[cfg(test)]
pub mod recording;

use std::any::Any;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use crate::http::proxy::Origin;
use crate::http::request::{RequestHead, Scheme};
use crate::sys::socket::{Peer, Readiness};
use crate::tls::Secured;

/// What the access log shows where a client did not wait for its whole answer: nginx's number,
/// which operators know.
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

/// One request and the connection it came in on, from the moment the application is called until
/// its response is queued whole.
pub trait Exchange: Any + Send {
    /// The request, as it stands in the connection's buffer.
    fn request(&self) -> RequestView<'_>;

    /// The request's body. Given out once; later calls return [`Body::empty`].
    fn take_body(&mut self) -> Body;

    /// Takes back the buffer of a body in memory, which nobody reads any more.
    fn return_buffer(&mut self, buffer: Vec<u8>);

    /// Sends `parts`, in order, behind everything sent before: at once, or in a moment together
    /// with what follows, as `hint` allows. Bytes that the client does not take are kept, and go
    /// out as it reads.
    ///
    /// Returns how many bytes were taken over: all, unless the client is so far behind that no more
    /// is kept for it (`response_buffer`, `response_spool`). Never blocks.
    ///
    /// # Errors
    /// The client is gone, or has not read for longer than the write timeout.
    fn send(&mut self, parts: &[&[u8]], hint: Hint) -> io::Result<usize>;

    /// Sends the bytes of an object from `start` on, behind everything sent before, as the client
    /// reads. This is for the rest of a response of which no more is kept otherwise. The bytes are
    /// not copied, so the object stays in use until they are sent.
    fn send_object(&mut self, object: Box<dyn AsRef<[u8]> + Send>, start: usize);

    /// Sends a range of a file behind everything sent before, by the kernel alone as the client
    /// reads (sendfile(2)).
    fn send_file(&mut self, file: Arc<OwnedFd>, offset: u64, length: u64);

    /// Sends bytes that were kept, as far as the kernel takes them. Never blocks.
    ///
    /// # Errors
    /// As [`Exchange::send`], or a file became shorter than it was announced to be.
    fn flush(&mut self) -> io::Result<()>;

    /// For the standby thread, while the application is at the request: sends bytes that have
    /// waited long enough for more to come. Returns whether any have waited, or still wait. If the
    /// client is gone, the application learns so at its next call.
    fn flush_due(&mut self, now: Instant) -> bool;

    /// For the standby thread, while the application is at the request: the response has taken long
    /// already, so it no longer waits to be sent with others.
    fn hurry(&mut self);

    /// How many bytes of what was sent the kernel does not have yet.
    fn unsent(&self) -> u64;

    /// Keeps nothing of this response in a file: the application waits for the client instead.
    fn avoid_files(&mut self);

    /// Sends nothing more of this response: the server has failed at an unknown point of it.
    fn give_up(&mut self);

    /// What to wait for before the client can take more.
    ///
    /// # Errors
    /// The client has not read for longer than the write timeout.
    fn wait_to_write(&mut self) -> io::Result<Wait>;

    /// Reads body bytes that had not arrived when the application was called ([`Body::Stream`]).
    /// Never blocks. 0 means the end of the body.
    ///
    /// # Errors
    /// WouldBlock where none have come yet; a malformed or truncated body.
    fn read_body(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// What to wait for before more of the body can be read.
    ///
    /// # Errors
    /// The client has sent nothing for longer than it may.
    fn wait_to_read(&mut self) -> io::Result<Wait>;

    /// Whether this response may say `Connection: keep-alive`: the client wants it, the worker goes
    /// on serving, and no rest of the request's body lies in the way of the next request. With
    /// `is_last` the application reads no more of that.
    fn may_keep_alive(&self, is_last: bool) -> bool;

    /// Lends the client's socket to the application (`gunicorn.socket`): it becomes blocking, and
    /// the connection ends with the request.
    ///
    /// # Errors
    /// The kernel's answer to changing the descriptor.
    fn lend_socket(&mut self) -> io::Result<RawFd>;
}

/// What an exchange must wait for before it can go on. The caller holds nothing while it waits, and
/// tries again afterwards, whatever has ended the wait. The descriptor belongs to the exchange,
/// which must not be given back during the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The client's connection.
    pub descriptor: RawFd,
    /// What it is to be ready for.
    pub readiness: Readiness,
    /// How long to wait at most.
    pub until: Instant,
}

/// A request as the Python layer reads it.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// The bytes the spans in `head` point into (its `source`).
    pub buffer: &'a [u8],
    /// The parsed head.
    pub head: &'a RequestHead,
    /// The client that has sent it.
    pub client: ClientView<'a>,
    /// The length of the body, where it came in chunks without another coding, and is complete: no
    /// header says it then.
    pub decoded_length: Option<u64>,
    /// What a trusted proxy, or the connection, says the client used.
    pub scheme: Scheme,
    /// What TLS has settled, where the connection is under TLS.
    pub secured: Option<&'a Arc<Secured>>,
    /// The id of the request, where requests have ids (`request_id_header`).
    pub id: Option<RequestId<'a>>,
    /// When the request was complete; earlier, where the kernel says how long it has had the
    /// request.
    pub ready_at: Instant,
    /// Bytes of its head and its body, as far as they have come.
    pub received: u64,
}

/// The client of a request, and its connection.
#[derive(Clone, Copy)]
pub struct ClientView<'a> {
    /// Where the connection comes from, or what a PROXY header said.
    pub peer: &'a Peer,
    /// The peer's address as text, empty on a unix socket: `REMOTE_ADDR`.
    pub remote_addr: &'a str,
    /// What a PROXY header said of the connection, if there was one.
    pub proxied: Option<&'a Origin>,
    /// The socket's peer, where a PROXY header has named another.
    pub via: Option<&'a Peer>,
    /// Which listener accepted the connection: an index into the worker's sites.
    pub site: usize,
    /// The connection's number, among those of this process.
    pub connection: u64,
}

/// The id of a request, by which its log lines are found.
#[derive(Clone, Copy)]
pub struct RequestId<'a> {
    /// The header that it stands in.
    pub header: &'a str,
    /// The id: plain characters, at most [`LONGEST_ID`](crate::http::request_id::LONGEST_ID).
    pub value: &'a [u8],
    /// Whether the server has made it, so that the request's own headers do not have it.
    pub is_made: bool,
}

/// What the sender knows about the bytes that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Nothing: the bytes are to go out now.
    Now,
    /// They are a block of an iteration, and the next may come at once.
    MoreSoon,
    /// They are a whole response, and the connection is kept.
    LastOfResponse,
    /// They are the last bytes before the end of the connection, which comes at once.
    LastOfConnection,
}

/// A request's body when the application is called.
pub enum Body {
    /// Complete, in memory: in this range of a buffer. Empty for a request without one.
    Memory(Vec<u8>, Range<usize>),
    /// Complete, in an unlinked temporary file positioned at its start.
    File(File),
    /// Longer than the server keeps: what has arrived so far, in front of what
    /// [`Exchange::read_body`] will deliver.
    Stream(Box<Body>),
}

impl Body {
    /// All of `bytes`.
    pub fn of(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Body::Memory(bytes, range)
    }

    /// The body of a request that has none.
    pub fn empty() -> Self {
        Body::of(Vec::new())
    }

    /// Whether nothing is to be read.
    pub fn is_empty(&self) -> bool {
        matches!(self, Body::Memory(_, range) if range.is_empty())
    }
}
