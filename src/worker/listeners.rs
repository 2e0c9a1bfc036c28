//! The listeners as one worker sees them: which of them it watches, and whether others accept there
//! too.
//!
//! Under `reuse_port` a port has several sockets, and the kernel chooses one before anybody knows
//! which worker is free. Each worker watches its own socket, so that a new connection wakes no
//! other worker. It also watches the sockets of siblings that are missing, so that every socket is
//! served. The module must not know what becomes of a connection.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::siblings::Siblings;
use crate::sys::socket::{Listener, LocalAddress};

/// A listener and whether connections may be waiting behind it.
pub struct WorkerListener {
    /// The socket.
    pub socket: Arc<Listener>,
    /// Since when the kernel has, or may have, connections that were not accepted.
    pub waiting_since: Option<Instant>,
    /// When a connection has last been left to an idle sibling.
    pub left_at: Option<Instant>,
    accept_mode: AcceptMode,
    is_watched: bool,
}

/// Who accepts on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AcceptMode {
    /// All workers, whoever is free first.
    Shared,
    /// The workers whose slots fall to this socket, of which this worker is one.
    Own(PortShare),
    /// The siblings whose slots fall to this socket; every worker while there is none.
    OfSiblings(PortShare),
}

/// A socket's number among those of its port, and how many those are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PortShare {
    number: usize,
    of: usize,
}

/// The listeners of the worker in `slot`, none of them watched yet.
pub fn of_worker(listeners: &[Arc<Listener>], slot: usize, reuse_port: bool) -> Vec<WorkerListener> {
    let same = |one: &Listener, other: &Listener| one.local_address() == other.local_address();
    let share = |at: usize| PortShare {
        number: listeners[..at].iter().filter(|other| same(other, &listeners[at])).count(),
        of: listeners.iter().filter(|other| same(other, &listeners[at])).count(),
    };
    let accept_mode = |at: usize| match (listeners[at].local_address(), share(at)) {
        (LocalAddress::Ip(_), share) if reuse_port && share.of > 1 => share.accept_mode(slot),
        _ => AcceptMode::Shared,
    };
    let listener_of = |(at, listener): (usize, &Arc<Listener>)| WorkerListener {
        socket: listener.clone(),
        waiting_since: None,
        left_at: None,
        accept_mode: accept_mode(at),
        is_watched: false,
    };
    listeners.iter().enumerate().map(listener_of).collect()
}

/// The number of the worker's own socket at each port, by which siblings know where it accepts. The
/// master gives all ports of several sockets equally many. (A port that it has kept from a start
/// without `reuse_port` has one socket, which all workers share.)
pub fn number(listeners: &[WorkerListener]) -> usize {
    let ours = listeners.iter().filter_map(|listener| match listener.accept_mode {
        AcceptMode::Own(share) => Some(share.number),
        AcceptMode::Shared | AcceptMode::OfSiblings(_) => None,
    });
    ours.max().unwrap_or(0)
}

impl PortShare {
    fn accept_mode(self, slot: usize) -> AcceptMode {
        if slot % self.of == self.number { AcceptMode::Own(self) } else { AcceptMode::OfSiblings(self) }
    }
}

impl WorkerListener {
    /// Whether others accept here as well.
    pub fn is_shared(&self) -> bool {
        !matches!(self.accept_mode, AcceptMode::Own(_))
    }

    /// Whether nobody would accept here any more if this worker did not.
    pub fn is_ours_alone(&self, siblings: &Siblings) -> bool {
        matches!(self.accept_mode, AcceptMode::Own(PortShare { number, of }) if !siblings.has_one_on_socket(number, of))
    }

    /// Begins to watch the listener, or stops, as the siblings that are there now require.
    ///
    /// # Errors
    /// The kernel's, from epoll.
    pub fn watch(&mut self, registry: &Registry, token: Token, siblings: &Siblings) -> io::Result<()> {
        let is_to_be_watched = match self.accept_mode {
            AcceptMode::Shared | AcceptMode::Own(_) => true,
            AcceptMode::OfSiblings(PortShare { number, of }) => !siblings.has_one_on_socket(number, of),
        };
        match (self.is_watched, is_to_be_watched) {
            (false, true) => {
                registry.register(&mut SourceFd(&self.socket.as_raw_fd()), token, Interest::READABLE)?;
                self.is_watched = true;
            }
            (true, false) => self.leave(registry),
            _ => {}
        }
        Ok(())
    }

    /// Stops watching the listener. It is shared with other processes; only our interest in it
    /// ends.
    pub fn leave(&mut self, registry: &Registry) {
        if self.is_watched {
            let _ = registry.deregister(&mut SourceFd(&self.socket.as_raw_fd()));
        }
        self.is_watched = false;
        self.nobody_waits();
    }

    /// The kernel has no connection that was not accepted.
    pub fn nobody_waits(&mut self) {
        (self.waiting_since, self.left_at) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::{BindAddress, BindOptions};

    #[test]
    fn slots_are_dealt_to_the_doors_of_each_port() {
        let open = |reuse_port| {
            let options = BindOptions { backlog: 1, umask: 0, owner: None, reuse_port };
            Arc::new(Listener::bind(&BindAddress::Tcp { host: "127.0.0.1".into(), port: 0 }, options).unwrap())
        };
        let (first, single) = (open(true), open(true));
        let second = Arc::new(first.another().unwrap());
        let listeners = [first, second, single];
        let keepers = |slot, reuse_port| -> Vec<AcceptMode> {
            of_worker(&listeners, slot, reuse_port).iter().map(|listener| listener.accept_mode).collect()
        };
        let (left, right) = (PortShare { number: 0, of: 2 }, PortShare { number: 1, of: 2 });
        assert_eq!(keepers(0, true), [AcceptMode::Own(left), AcceptMode::OfSiblings(right), AcceptMode::Shared]);
        assert_eq!(keepers(3, true), [AcceptMode::OfSiblings(left), AcceptMode::Own(right), AcceptMode::Shared]);
        assert_eq!(keepers(0, false), [AcceptMode::Shared; 3]);
        assert_eq!([0, 1, 2, 3].map(|slot| number(&of_worker(&listeners, slot, true))), [0, 1, 0, 1]);
    }
}
