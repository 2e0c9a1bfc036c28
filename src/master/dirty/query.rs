//! A question to a dirty arbiter. The master's loop waits for the answer beside everything else.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sys::errno::as_python_shows;
use crate::sys::unix_client::connect_unix;

use super::wire::{self, DirtyReply, Request};

/// How long an arbiter may take: gunicorn's number.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(in super::super) struct Query {
    stream: UnixStream,
    unsent: Vec<u8>,
    received: Vec<u8>,
    until: Instant,
}

impl Query {
    /// Connects to the socket. [`Query::poll`] sends the question.
    ///
    /// # Errors
    /// A sentence: nobody listens there.
    pub fn begin(socket: &Path, request: Request) -> Result<Query, String> {
        let stream = connect_unix(socket).map_err(|error| as_python_shows(&error))?;
        Ok(Query { stream, unsent: request.frame(), received: Vec::new(), until: Instant::now() + TIMEOUT })
    }

    /// When the master gives the query up.
    pub fn deadline(&self) -> Instant {
        self.until
    }

    /// Sends and receives as much as it can. Returns the answer, or why there is none; `None` while
    /// an answer may still come.
    pub fn poll(&mut self, now: Instant) -> Option<Result<Value, String>> {
        match self.exchange() {
            Ok(DirtyReply::Whole(said)) => Some(said),
            Ok(DirtyReply::Broken) => Some(Err("the dirty arbiter has answered something else".to_owned())),
            Ok(DirtyReply::Partial) if now < self.until => None,
            Ok(DirtyReply::Partial) => Some(Err("the dirty arbiter has not answered in time".to_owned())),
            Err(error) => Some(Err(as_python_shows(&error))),
        }
    }

    fn exchange(&mut self) -> std::io::Result<DirtyReply> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut buffer = [0; 4096];
        loop {
            let reply = wire::read(&self.received);
            if reply != DirtyReply::Partial {
                return Ok(reply);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(DirtyReply::Partial),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsRawFd for Query {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
