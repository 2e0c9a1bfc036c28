//! Does what a connection's step asks for: watches it, has it served, goes on with it, or closes
//! it.

use super::{EventLoop, READS_PER_TURN, idle};
use crate::exchange::CLIENT_CLOSED_REQUEST;
use crate::scoreboard::Count;
use crate::worker::connection::{Connection, Step, lock};
use crate::worker::connection_poll::Watched;
use crate::worker::counting;

impl EventLoop {
    pub(super) fn follow(&mut self, key: usize, step: Step) {
        match step {
            Step::Wait => self.register(key),
            Step::Settled => {}
            Step::Send => {
                if self.queues.finished.is_empty() {
                    self.queues.finished_since = self.clock.now;
                }
                self.queues.finished.push_back(key);
            }
            Step::Again => {
                self.register(key);
                self.queues.unfinished.push(key);
            }
            Step::Call => self.queues.ready.push_back((key, self.clock.arrived_after)),
            Step::Check | Step::LiveCheck => {
                let (serves, now) = (step == Step::LiveCheck || self.siblings.row().passes_checks(), self.clock.now);
                let step = idle(&self.connections, key).map(|mut connection| connection.answer_check(serves, now));
                self.follow(key, step.unwrap_or(Step::Wait));
            }
            Step::File => self.queues.file_requests.push(key),
            Step::Refused(error) => {
                if let Some(mut connection) = idle(&self.connections, key) {
                    counting::refused(self.siblings.row(), &error);
                    self.unlogged.rejections.refused(connection.remote_addr(), &error);
                    self.unlogged.requests.push(connection.take_unserved(error.status()));
                }
                self.follow(key, Step::Again);
            }
            Step::Left => {
                if let Some(mut connection) = idle(&self.connections, key) {
                    counting::left(self.siblings.row());
                    self.unlogged.requests.push(connection.take_unserved(CLIENT_CLOSED_REQUEST));
                }
                self.remove(key);
            }
            Step::Stalled => {
                if let Some(entry) = self.connections.get(key) {
                    self.unlogged.rejections.stalled(lock(&entry.connection).remote_addr());
                }
                if idle(&self.connections, key).is_some() {
                    self.remove(key);
                }
            }
            Step::TlsFailed(reason) => {
                if let Some(connection) = idle(&self.connections, key) {
                    self.siblings.row().count(Count::TlsFailed);
                    self.unlogged.rejections.tls_failed(connection.remote_addr(), &reason);
                }
                self.follow(key, Step::Again);
            }
            Step::LastLook => self.look_once_more(key),
            Step::Close => self.close(key),
        }
    }

    /// Stops watching the connection. To close its descriptor is not enough where another process
    /// is about to have a duplicate (epoll(7), "Questions and answers"). A connection that stays
    /// after all is registered again when it next has to wait.
    pub fn unregister(&self, key: usize) {
        if let Some(entry) = self.connections.get(key) {
            self.leave_poll(&mut lock(&entry.connection));
        }
    }

    pub(super) fn register(&mut self, key: usize) {
        let Some(mut connection) = idle(&self.connections, key) else { return };
        let (watched, wanted) = (connection.watched(), connection.to_be_watched());
        let Some(poll) = self.limits.poll().filter(|_| watched < wanted) else { return };
        match poll.watch(key, connection.descriptor(), watched, wanted) {
            Ok(()) => connection.set_watched(wanted),
            Err(error) => {
                log::error!("Cannot watch a connection: {error}");
                drop(connection);
                self.remove(key);
            }
        }
    }

    pub(super) fn leave_poll(&self, connection: &mut Connection) {
        if connection.watched() != Watched::Not
            && let Some(poll) = self.limits.poll()
        {
            poll.forget(connection.descriptor());
            connection.set_watched(Watched::Not);
        }
    }

    /// Reads what has come to a connection whose wait is over, and closes it only if nothing has.
    fn look_once_more(&mut self, key: usize) {
        let Some(mut connection) = idle(&self.connections, key) else { return };
        connection.note_unread(false);
        let step = connection.on_readable(&mut self.read_context, false, READS_PER_TURN, self.clock.now);
        let is_idle = step == Step::Wait && connection.is_idle();
        drop(connection);
        self.follow(key, if is_idle { Step::Close } else { step });
    }

    pub(super) fn close(&mut self, key: usize) {
        let Some(step) = idle(&self.connections, key).map(|mut connection| connection.end(self.clock.now)) else {
            return;
        };
        match step {
            Step::Close => self.remove(key),
            step => self.follow(key, step),
        }
    }

    pub(super) fn remove(&mut self, key: usize) {
        if let Some(entry) = self.connections.try_remove(key) {
            self.unlogged.requests.extend(lock(&entry.connection).take_late_log(true, self.clock.now));
        }
        self.siblings.set_connections(self.connections.len());
    }
}
