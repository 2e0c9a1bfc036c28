//! The bytes of a response that wait for the client, and the threads that wait with them.
//!
//! An attempt never waits: if it has to, the caller does so without the lock, and tries again.

use std::collections::VecDeque;
use std::io;

use super::{Outlook, ResponseWriter, request_is_over};
use crate::exchange::{Hint, Wait};

/// Bytes and threads that wait for the client.
#[derive(Default)]
pub(super) struct Waiting {
    /// Bytes that the exchange has not taken. The application waits until it has.
    pub(super) backlog: VecDeque<Unsent>,
    /// How many threads and greenlets wait.
    pub(super) waiters: usize,
    /// The request is over: the waiters are to give up.
    pub(super) is_ending: bool,
}

/// The outcome of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tried<T> {
    /// The attempt has succeeded, with this result.
    Done(T),
    /// The attempt must be repeated after this wait for the client.
    NotYet(Wait),
}

/// Bytes in the backlog. The exchange has those before `start` already.
pub(super) struct Unsent {
    pub(super) bytes: Box<dyn AsRef<[u8]> + Send>,
    pub(super) start: usize,
}

impl ResponseWriter {
    /// Whether the application has to wait until the client has taken more.
    pub fn has_backlog(&self) -> bool {
        !self.waiting.backlog.is_empty()
    }

    /// Attempts `action`, which may have to wait for the client. If it has to, the caller counts as
    /// a waiter until [`ResponseWriter::leave_wait`].
    ///
    /// # Errors
    /// The request is over, or that of `action`.
    pub fn attempt<T>(&mut self, action: impl FnOnce(&mut Self) -> io::Result<Tried<T>>) -> io::Result<Tried<T>> {
        if self.is_over() {
            return Err(request_is_over());
        }
        let tried = action(self)?;
        if matches!(tried, Tried::NotYet(_)) {
            self.waiting.waiters += 1;
        }
        Ok(tried)
    }

    /// A waiter has done waiting, and no longer uses the exchange's descriptor.
    pub fn leave_wait(&mut self) {
        self.waiting.waiters -= 1;
    }

    /// Whether the request is over, so that waiters are to give up.
    pub fn is_over(&self) -> bool {
        self.waiting.is_ending || self.exchange.is_none()
    }

    /// Sends everything that is kept, as far as the client takes it.
    ///
    /// # Errors
    /// The client is gone, or has stopped reading.
    pub fn try_send_all(&mut self) -> io::Result<Tried<()>> {
        if let Tried::NotYet(wait) = self.try_send_backlog()? {
            return Ok(Tried::NotYet(wait));
        }
        self.flush()?;
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        if exchange.unsent() == 0 {
            return Ok(Tried::Done(()));
        }
        exchange.wait_to_write().map(Tried::NotYet).inspect_err(|_| self.connection = Outlook::Gone)
    }

    /// Hands the backlog to the exchange, as far as the exchange has room by now.
    ///
    /// # Errors
    /// As [`ResponseWriter::try_send_all`].
    pub fn try_send_backlog(&mut self) -> io::Result<Tried<()>> {
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        let backlog = &mut self.waiting.backlog;
        let mut tried = || {
            while let Some(Unsent { bytes, start }) = backlog.front_mut() {
                let left = &(**bytes).as_ref()[*start..];
                let taken = exchange.send(&[left], Hint::Now)?;
                if taken < left.len() {
                    *start += taken;
                    return exchange.wait_to_write().map(Tried::NotYet);
                }
                backlog.pop_front();
            }
            Ok(Tried::Done(()))
        };
        tried().inspect_err(|_| self.connection = Outlook::Gone)
    }

    /// Sends bytes that wait for more to come, and those that the client has not taken.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        exchange.flush().inspect_err(|_| self.connection = Outlook::Gone)
    }

    /// Reads what has come of a streamed body. First sends what the application has produced: the
    /// client may be waiting for that before it sends more.
    ///
    /// # Errors
    /// Those of [`read_body`](crate::exchange::Exchange::read_body).
    pub fn try_read_body(&mut self, buffer: &mut [u8]) -> io::Result<Tried<usize>> {
        if let Tried::NotYet(wait) = self.try_send_backlog()? {
            return Ok(Tried::NotYet(wait));
        }
        self.flush()?;
        let exchange = self.exchange.as_mut().ok_or_else(request_is_over)?;
        match exchange.read_body(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => exchange.wait_to_read().map(Tried::NotYet),
            read => read.map(Tried::Done),
        }
    }

    /// Hands the backlog to the exchange though it has no room: the application has made all of its
    /// response, and need not wait.
    pub(super) fn leave_backlog(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            self.waiting.backlog.drain(..).for_each(|Unsent { bytes, start }| exchange.send_object(bytes, start));
        }
    }
}
