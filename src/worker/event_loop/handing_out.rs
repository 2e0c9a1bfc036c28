//! Requests that are ready go to the threads that run the application, and their connections come
//! back.

use std::time::Duration;

use super::{EventLoop, PendingEvents, idle};
use crate::worker::batching::{MOST_RESPONSES, RESPONSE_WAIT};
use crate::worker::connection::{LoggedRequest, Request, Step, lock};

/// A request that may have waited this long is run only if its client is still there. Looking costs
/// a system call, and hardly anybody leaves sooner; behind thirty others even a request of half a
/// millisecond waits half as long.
const UNQUESTIONED_WAIT: Duration = Duration::from_millis(30);

impl EventLoop {
    /// Whether requests are ready to be handed out.
    pub fn has_ready(&self) -> bool {
        !self.queues.ready.is_empty()
    }

    /// The next request that is ready; it comes back through [`EventLoop::put_back`]. Where
    /// `has_company`, and others are ready behind it, its response may wait for theirs.
    pub fn next_ready(&mut self, has_company: bool) -> Option<Box<Request>> {
        if self.queues.ready.is_empty() && self.queues.finished.is_empty() {
            return None;
        }
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
        if let Some(mut connection) = idle(&self.connections, key) {
            if self.limits.is_stopping() {
                // It may have fallen idle before the worker was told.
                connection.close_by(self.clock.now + self.limits.idle_time());
            }
            self.read_context.return_buffer(connection.take_returned());
            self.unlogged.requests.extend(connection.take_late_log(false, self.clock.now));
            if connection.is_exchanged() {
                // A relay has a duplicate of the old one, for which closing it would not do (see
                // there).
                self.leave_poll(&mut connection);
                connection.drop_old_descriptor();
            }
        }
        self.follow(key, step);
        // Before it reads: as long as something is to be sent it looks like one whose client is
        // behind.
        if missed.writable || missed.readable {
            self.write(key);
        }
        if missed.readable {
            self.read(key, missed.ended, 1);
        }
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

    /// Keeps the connection with this key ready: nobody can serve its request now, nor take it.
    pub fn keep_ready(&mut self, key: usize) {
        self.check_in(key);
        // It has waited already: whether its client is still there is to be asked.
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
            return Some(request);
        }
        None
    }

    /// The application has no request of the connection any more. What the poll said of it
    /// meanwhile; `None` where it is not known.
    pub(super) fn check_in(&mut self, key: usize) -> Option<PendingEvents> {
        self.connections.get_mut(key)?.pending.take()
    }
}
