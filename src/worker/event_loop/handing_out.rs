//! Requests that are ready go to the threads that run the application, and their connections come
//! back.

use std::time::Duration;

use super::{EventLoop, PendingEvents, idle};
use crate::worker::batching::{MOST_RESPONSES, RESPONSE_WAIT};
use crate::worker::connection::{LoggedRequest, Request, Step, lock};

/// A request that may have waited this long is run only if its client is still there. Looking costs
/// a system call, and hardly any client leaves sooner. Behind thirty others of half a millisecond
/// each, a request waits only half that time.
const UNQUESTIONED_WAIT: Duration = Duration::from_millis(30);

/// Requests that are handed out before the next turn: clients that pipeline always have another
/// one, and the poll waits meanwhile.
const REQUESTS_PER_TURN: usize = 64;

impl EventLoop {
    /// Whether another request may be handed out before the next turn.
    pub fn may_hand_out(&self) -> bool {
        self.queues.handed_out < REQUESTS_PER_TURN
    }

    /// Whether requests are ready to be handed out.
    pub fn has_ready(&self) -> bool {
        !self.queues.ready.is_empty()
    }

    /// The next request that is ready; it comes back through [`EventLoop::put_back`]. If
    /// `has_company`, and other requests are ready behind it, its response may wait for theirs.
    pub fn next_ready(&mut self, has_company: bool) -> Option<Box<Request>> {
        let is_all_done = self.queues.ready.is_empty() && self.queues.finished.is_empty();
        if is_all_done { None } else { self.hand_out(has_company) }
    }

    /// Apart from its caller, which is called more often than there is anything to be done.
    #[inline(never)]
    fn hand_out(&mut self, has_company: bool) -> Option<Box<Request>> {
        let next = self.take_ready(has_company);
        if next.is_none()
            || self.queues.finished.len() >= MOST_RESPONSES
            || self.clock.now >= self.queues.finished_since + RESPONSE_WAIT
        {
            self.send_finished();
        }
        next
    }

    /// The request of the connection with this `key` is served: goes on as its `step` says.
    pub fn put_back(&mut self, key: usize, step: Step) {
        let Some(missed) = self.check_in(key) else { return };
        if !matches!(step, Step::Settled) || self.limits.is_stopping() {
            self.settle(key);
            self.follow(key, step);
        }
        // Writes before it reads: as long as bytes are unsent, the connection looks like one whose
        // client is behind.
        if missed.writable || missed.readable {
            self.write(key);
        }
        if missed.readable {
            self.read(key, missed.ended, 1);
        }
    }

    /// Takes what the request of the connection with this `key` has left.
    fn settle(&mut self, key: usize) {
        let Some(mut connection) = idle(&self.connections, key) else { return };
        if self.limits.is_stopping() {
            // The connection may have become idle before the worker was told to end.
            connection.close_by(self.clock.now + self.limits.idle_time());
        }
        self.read_context.return_buffer(connection.take_returned());
        self.unlogged.requests.extend(connection.take_late_log(false, self.clock.now));
    }

    /// Sends the responses that wait for each other.
    pub fn send_finished(&mut self) {
        while let Some(key) = self.queues.finished.pop_front() {
            self.write(key);
        }
    }

    /// The requests that the event loop has to log, since the last call: those that have ended
    /// without the application, and those whose responses have been sent after it was done.
    pub fn take_logged(&mut self) -> Vec<LoggedRequest> {
        std::mem::take(&mut self.unlogged.requests)
    }

    /// Keeps the connection with this key ready: no thread can serve its request now, and no
    /// sibling takes it.
    pub fn keep_ready(&mut self, key: usize) {
        self.check_in(key);
        // The request has waited already: whether its client is still there is to be asked.
        let since = self.clock.now.checked_sub(UNQUESTIONED_WAIT).unwrap_or(self.clock.now);
        self.queues.ready.push_front((key, since));
    }

    /// Forgets a connection that was taken out and has gone elsewhere.
    pub fn forget(&mut self, key: usize) {
        self.remove(key);
    }

    fn take_ready(&mut self, has_company: bool) -> Option<Box<Request>> {
        while let Some((key, since)) = self.queues.ready.pop_front() {
            let Some(entry) = self.connections.get_mut(key).filter(|entry| entry.pending.is_none()) else { continue };
            let mut connection = lock(&entry.connection);
            if !connection.is_ready() {
                // The key is another connection's by now.
                continue;
            }
            if self.clock.now >= since + UNQUESTIONED_WAIT && connection.client_has_left() {
                drop(connection);
                self.follow(key, Step::Left);
                continue;
            }
            let request = connection.check_out(&entry.connection, key, has_company && !self.queues.ready.is_empty());
            drop(connection);
            entry.pending = Some(PendingEvents::default());
            self.queues.handed_out += 1;
            return Some(request);
        }
        None
    }

    /// The application has given back the connection's request. Returns what the poll said of the
    /// connection meanwhile; `None` where the application had no request of it.
    pub(super) fn check_in(&mut self, key: usize) -> Option<PendingEvents> {
        self.connections.get_mut(key)?.pending.take()
    }
}
