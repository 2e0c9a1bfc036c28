//! An exchange for unit tests, which writes down what is sent.

use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{Body, ClientView, Exchange, Hint, RequestView, Wait};
use crate::http::request::{RequestHead, Scheme};
use crate::sys::socket::{Peer, Readiness};

/// What has reached a client, and how the exchange is to behave.
pub struct Received {
    /// The bytes of all responses.
    pub bytes: Vec<u8>,
    /// The hint of each send that was taken over, at least in part.
    pub hints: Vec<Hint>,
    /// How many more bytes will be taken over for the client.
    pub room: usize,
    /// Whether the client is gone.
    pub is_gone: bool,
    /// Whether the response keeps out of files.
    pub avoids_files: bool,
    /// Where the exchange panics, once.
    pub trap: Option<Trap>,
}

/// Where an exchange panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// Where the body is read.
    InReadBody,
    /// Where bytes are sent, after so many sends.
    InSend {
        /// How many.
        before: usize,
    },
    /// Where the bytes that wait are sent.
    InFlush,
}

/// An exchange with a client that is only recorded. Its request has a body that is read as it
/// comes.
pub struct RecordingExchange {
    head: RequestHead,
    received: Arc<Mutex<Received>>,
}

impl RecordingExchange {
    /// An exchange with a client that takes everything, and what the client has received.
    pub fn new() -> (RecordingExchange, Arc<Mutex<Received>>) {
        let received = Arc::new(Mutex::new(Received {
            bytes: Vec::new(),
            hints: Vec::new(),
            room: usize::MAX,
            is_gone: false,
            avoids_files: false,
            trap: None,
        }));
        (RecordingExchange { head: RequestHead::default(), received: received.clone() }, received)
    }

    fn pass(&self, here: Trap) {
        let is_set = {
            let mut received = self.received.lock().unwrap();
            received.trap.take_if(|trap| *trap == here).is_some()
        };
        assert!(!is_set, "trapped {here:?}");
    }
}

impl Exchange for RecordingExchange {
    fn request(&self) -> RequestView<'_> {
        RequestView {
            buffer: b"",
            head: &self.head,
            client: ClientView { peer: &Peer::Unix, remote_addr: "", proxied: None, via: None, site: 0, connection: 0 },
            decoded_length: None,
            scheme: Scheme::Http,
            secured: None,
            id: None,
            ready_at: Instant::now(),
            received: 0,
        }
    }

    fn take_body(&mut self) -> Body {
        Body::Stream(Box::new(Body::empty()))
    }

    fn return_buffer(&mut self, _: Vec<u8>) {}

    fn send(&mut self, parts: &[&[u8]], hint: Hint) -> io::Result<usize> {
        let before = self.received.lock().unwrap().hints.len();
        self.pass(Trap::InSend { before });
        let mut received = self.received.lock().unwrap();
        if received.is_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let bytes = parts.concat();
        let count = bytes.len().min(received.room);
        received.room -= count;
        if count > 0 {
            received.hints.push(hint);
            received.bytes.extend_from_slice(&bytes[..count]);
        }
        Ok(count)
    }

    fn send_object(&mut self, object: Box<dyn AsRef<[u8]> + Send>, start: usize) {
        self.received.lock().unwrap().bytes.extend_from_slice(&(*object).as_ref()[start..]);
    }

    fn send_file(&mut self, file: Arc<OwnedFd>, offset: u64, length: u64) {
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        File::from(file.try_clone().unwrap()).read_exact_at(&mut bytes, offset).unwrap();
        self.received.lock().unwrap().bytes.extend_from_slice(&bytes);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass(Trap::InFlush);
        Ok(())
    }

    fn flush_due(&mut self, _: Instant) -> bool {
        false
    }

    fn hurry(&mut self) {}

    fn unsent(&self) -> u64 {
        0
    }

    fn avoid_files(&mut self) {
        self.received.lock().unwrap().avoids_files = true;
    }

    fn give_up(&mut self) {
        self.received.lock().unwrap().is_gone = true;
    }

    fn wait_to_write(&mut self) -> io::Result<Wait> {
        Ok(Wait { descriptor: -1, readiness: Readiness::ToWrite, until: Instant::now() })
    }

    fn read_body(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.pass(Trap::InReadBody);
        Ok(0)
    }

    fn wait_to_read(&mut self) -> io::Result<Wait> {
        Err(io::ErrorKind::TimedOut.into())
    }

    fn may_keep_alive(&self, _is_last: bool) -> bool {
        true
    }

    fn lend_socket(&mut self) -> io::Result<RawFd> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
