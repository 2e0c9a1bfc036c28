//! What goes out to a client: sent at once, put off for a moment, or kept until the client takes
//! it.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::base::ablation::{Mechanism, is_off};
use crate::exchange::Hint;
use crate::sys::fork;
use crate::sys::socket::{Cork, Stream};
use crate::worker::batching::{Batching, MOST_WAITING, Waits};
use crate::worker::connection_limits::ConnectionLimits;
use crate::worker::holdings::Held;
use crate::worker::standby::Attention;
use crate::worker::transport::Transport;
use crate::worker::write_queue::{Flushed, WriteQueue};
use crate::worker::write_timeout::WriteTimeout;

/// The output of one connection.
#[derive(Default)]
pub(super) struct Output {
    queue: WriteQueue,
    /// Whether bytes of the response wait for more to come.
    batching: Batching,
    /// The wait for the client to read, while there is one.
    timeout: WriteTimeout,
    /// Why nothing can be sent any more; `None` as long as something can.
    failure: Option<ErrorKind>,
    /// Bytes of the response that were dropped because of the failure.
    lost: u64,
    /// Whether the kernel has refused to take more. Only then does the poll tell when it takes
    /// more.
    is_blocked: bool,
    /// The memory and disk space that are recorded for the queue.
    held: Held,
}

impl Output {
    /// A response begins. `has_company` says that other requests are ready, whose responses this
    /// one may wait for.
    pub(super) fn begin(&mut self, has_company: bool) {
        self.batching.begin(has_company);
        self.lost = 0;
        self.queue.set_avoids_files(false);
    }

    /// See [`crate::exchange::Exchange::send`].
    pub(super) fn send(
        &mut self,
        transport: &mut Transport,
        limits: &ConnectionLimits,
        parts: &[&[u8]],
        hint: Hint,
    ) -> io::Result<usize> {
        self.check()?;
        let length = parts.iter().map(|part| part.len()).sum();
        if self.defers(transport, hint, length) {
            self.queue.push_all(parts, if hint == Hint::MoreSoon { MOST_WAITING } else { 0 });
            if hint == Hint::MoreSoon {
                limits.standby.call_for(Attention::ToBytes);
            }
            return Ok(length);
        }
        let sent = self.send_now(transport, limits, parts, length, hint);
        self.note_held(limits);
        if hint == Hint::MoreSoon {
            self.batching.block_was_sent();
        }
        sent.inspect_err(|error| self.fail(error.kind()))
    }

    /// As [`Output::send`], where bytes wait for the client already: keeps `parts` behind them, and
    /// leaves the sending to the event loop.
    pub(super) fn keep_more(&mut self, limits: &ConnectionLimits, parts: &[&[u8]]) -> io::Result<usize> {
        self.check()?;
        debug_assert!(self.is_blocked, "the poll tells of no room");
        let kept = self.keep(limits, parts, 0);
        self.note_held(limits);
        Ok(kept)
    }

    /// Whether the bytes wait for more to come. They do not behind bytes that wait for the client,
    /// nor in a copy of the process.
    fn defers(&mut self, transport: &Transport, hint: Hint, length: usize) -> bool {
        self.batching.may_defer(hint)
            && !fork::is_copy()
            && !self.waits_for_client(transport)
            && self.batching.defers(hint, length, self.queue.in_memory())
    }

    /// Hands what waits and `parts` to the kernel, and keeps what it does not take.
    fn send_now(
        &mut self,
        transport: &mut Transport,
        limits: &ConnectionLimits,
        parts: &[&[u8]],
        length: usize,
        hint: Hint,
    ) -> io::Result<usize> {
        self.leave_to_original();
        if length == 0 {
            // The response has ended: no block follows.
            if matches!(self.batching.waits(), Waits::ForBlock(_)) {
                self.flush(transport, Instant::now())?;
            }
            return Ok(0);
        }
        if self.waits_for_client(transport) {
            // By an error of this flush the application learns that the client has gone.
            self.flush(transport, Instant::now())?;
        }
        self.batching.end_wait();
        let cork = if hint == Hint::LastOfConnection && !is_off(Mechanism::CorkedEnd) {
            Cork::UntilShutdown
        } else {
            Cork::No
        };
        let sent = self.queue.write(transport, parts, cork)?;
        if sent == length && self.queue.is_empty() && !transport.has_unsent() {
            return Ok(length);
        }
        self.is_blocked = false;
        self.timeout.begin(transport.stream(), Instant::now());
        Ok(sent + self.keep(limits, parts, sent))
    }

    /// Keeps what is left of `parts` behind the first `sent` bytes, as far as there is room, and
    /// returns how much.
    fn keep(&mut self, limits: &ConnectionLimits, parts: &[&[u8]], mut sent: usize) -> usize {
        let mut kept = 0;
        for part in parts {
            let left = &part[sent.min(part.len())..];
            sent = sent.saturating_sub(part.len());
            let count = self.queue.keep(left, limits);
            kept += count;
            if count < left.len() {
                break;
            }
        }
        kept
    }

    /// Queues bytes of the server's own.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.batching.end_wait();
        self.queue.push(bytes);
    }

    /// The same, for bytes that need not be copied.
    pub(super) fn push_whole(&mut self, bytes: Vec<u8>) {
        self.batching.end_wait();
        self.queue.push_whole(bytes);
    }

    /// Queues the bytes of an application's object, from `start` on.
    pub(super) fn push_object(&mut self, bytes: Box<dyn AsRef<[u8]> + Send>, start: usize) {
        self.batching.end_wait();
        self.is_blocked = false;
        self.queue.push_object(bytes, start);
    }

    /// Queues a range of a file.
    pub(super) fn push_file(&mut self, file: Arc<OwnedFd>, offset: u64, length: u64) {
        self.batching.end_wait();
        self.is_blocked = false;
        self.queue.push_file(file, offset, length);
    }

    /// Sends what is queued, as far as the kernel takes it.
    ///
    /// # Errors
    /// The client is gone, or a file became shorter than it was announced to be.
    pub(super) fn flush(&mut self, transport: &mut Transport, now: Instant) -> io::Result<Flushed> {
        self.check()?;
        self.leave_to_original();
        self.batching.end_wait();
        let before = self.queue.sent();
        let flushed = self.queue.flush(transport).inspect_err(|error| self.fail(error.kind()))?;
        self.is_blocked = flushed == Flushed::Blocked;
        if flushed != Flushed::Blocked || self.queue.sent() > before {
            self.timeout.end();
        }
        if flushed == Flushed::Blocked {
            self.timeout.begin(transport.stream(), now);
        }
        Ok(flushed)
    }

    /// Sends bytes that have waited for the next block for long enough. Says whether any were
    /// waiting.
    pub(super) fn flush_due(&mut self, transport: &mut Transport, now: Instant) -> bool {
        let Waits::ForBlock(until) = self.batching.waits() else { return false };
        if now >= until {
            // The application hears of a failure with its next call.
            let _ = self.flush(transport, now);
        }
        true
    }

    /// The response waits for no others from now on.
    pub(super) fn hurry(&mut self, transport: &mut Transport, now: Instant) {
        self.batching.leave_company();
        if self.waits_for_responses() {
            // The application hears of a failure with its next call.
            let _ = self.flush(transport, now);
        }
    }

    /// In a copy of the process, drops bytes that wait for more: the original process sends them.
    fn leave_to_original(&mut self) {
        if self.batching.waits() != Waits::Not && fork::is_copy() {
            self.queue.clear();
            self.batching.end_wait();
        }
    }

    /// Whether anything can be sent still.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self) -> io::Result<()> {
        self.failure.map_or(Ok(()), |kind| Err(kind.into()))
    }

    /// From now on nothing is sent; what is queued is dropped.
    pub(super) fn fail(&mut self, kind: ErrorKind) {
        self.failure.get_or_insert(kind);
        self.lost += self.queue.waiting();
        self.queue.clear();
        self.batching.end_wait();
        self.timeout.end();
    }

    /// Whether the client has taken nothing for longer than it may. To be called about once a
    /// second.
    pub(super) fn has_stalled(&mut self, stream: &Stream, limits: &ConnectionLimits, now: Instant) -> bool {
        self.timeout.has_expired(stream, limits, now)
    }

    /// Since when the client takes nothing, as far as that is known.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.timeout.since()
    }

    /// Keeps nothing of the response in a file.
    pub(super) fn avoid_files(&mut self) {
        self.queue.set_avoids_files(true);
    }

    /// Whether nothing is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many bytes of the response the kernel does not have, and may never get.
    pub(super) fn unsent(&self) -> u64 {
        self.queue.waiting() + self.lost
    }

    /// How many bytes wait for the client, or were dropped because it is gone.
    pub(super) fn unsent_to_client(&self, transport: &Transport) -> u64 {
        let waiting = if self.waits_for_client(transport) { self.queue.waiting().max(1) } else { 0 };
        waiting + self.lost
    }

    /// The memory and disk space that the queue holds, as last recorded.
    pub(super) fn held(&self) -> Held {
        self.held
    }

    /// Records what the queue holds.
    pub(super) fn note_held(&mut self, limits: &ConnectionLimits) {
        let held = self.queue.held();
        if held != self.held {
            limits.holdings.replace(self.held, held);
            self.held = held;
        }
    }

    /// Whether the poll will tell when the kernel takes more.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Whether what is queued waits for the next block of the response.
    pub(super) fn waits_for_block(&self) -> bool {
        matches!(self.batching.waits(), Waits::ForBlock(_))
    }

    /// Whether what is queued waits for other responses.
    pub(super) fn waits_for_responses(&self) -> bool {
        self.batching.waits() == Waits::ForResponses
    }

    /// Whether what is queued waits for the client.
    pub(super) fn waits_for_client(&self, transport: &Transport) -> bool {
        self.batching.waits() == Waits::Not && (!self.queue.is_empty() || transport.has_unsent())
    }
}
