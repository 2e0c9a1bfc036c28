//! Waits that have lasted too long, and connections that end with their worker.

use std::sync::TryLockError;
use std::time::Instant;

use super::EventLoop;
use crate::worker::connection::{Connection, Step, lock};

/// Most waits that are ended in one turn. Each may cost an answer.
const ENDS_PER_TURN: usize = 64;

impl EventLoop {
    /// Ends waits that have lasted too long; where they are many, the rest in the next turn.
    pub(super) fn end_waits(&mut self) {
        let Some(mut key) = self.queues.waits_seen.take() else { return };
        let mut left = ENDS_PER_TURN;
        while key < self.connections.capacity() {
            if left == 0 {
                self.queues.waits_seen = Some(key);
                return;
            }
            let step = self.end_wait(key);
            if step != Step::Wait {
                self.follow(key, step);
                left -= 1;
            }
            key += 1;
        }
    }

    /// Tells the clients that their connections end, because the process ends; not those whose
    /// request is with the application.
    pub fn end_connections(&mut self) {
        let (now, mut logged) = (self.clock.now, Vec::new());
        self.each_idle(|_, connection| {
            connection.abandon();
            logged.extend(connection.take_late_log(true, now));
        });
        self.unlogged.requests.extend(logged);
    }

    /// Gives clients that are between two requests until `time` to send one more. Connections whose
    /// request is with the application become idle later: those that a response has promised to
    /// keep get their time then (`ConnectionLimits::idle_time`).
    pub fn close_idle_by(&mut self, time: Instant) {
        self.each_idle(|_, connection| connection.close_by(time));
        self.tick_by(time);
    }

    /// Ends the wait of one connection, if it has lasted too long.
    fn end_wait(&self, key: usize) -> Step {
        let Some(entry) = self.connections.get(key) else { return Step::Wait };
        let mut connection = match entry.connection.try_lock() {
            Ok(connection) => connection,
            Err(TryLockError::Poisoned(connection)) => connection.into_inner(),
            // The application's thread is sending: the next tick looks at the connection again.
            Err(TryLockError::WouldBlock) => return Step::Wait,
        };
        if entry.pending.is_some() && !connection.is_served() {
            // The request is given back already: `put_back` will go on with the connection.
            return Step::Wait;
        }
        connection.on_time(self.clock.now)
    }

    /// Does something with each connection whose request is not with the application.
    pub(super) fn each_idle(&self, mut act: impl FnMut(usize, &mut Connection)) {
        for (key, entry) in &self.connections {
            if entry.pending.is_none() {
                act(key, &mut lock(&entry.connection));
            }
        }
    }
}
