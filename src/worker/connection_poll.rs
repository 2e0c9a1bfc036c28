//! Which connections the event loop's poll watches, and for what. Any thread may change that: one
//! whose client takes no more bytes has the poll tell when it does. The module knows no connection.

use std::io;
use std::os::fd::RawFd;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Registry, Token};

/// What the poll watches a connection for. That becomes more only when needed, and never less
/// again: each change is a system call, each needless event a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watched {
    /// Nothing.
    Not,
    /// Bytes that arrive.
    ForReading,
    /// Bytes that arrive, and room for bytes to be sent.
    ForBoth,
}

/// The poll, as far as it watches connections.
#[derive(Debug)]
pub struct ConnectionPoll {
    registry: Registry,
    /// The token of the connection with key 0.
    first: usize,
}

impl ConnectionPoll {
    /// The connections' part of `poll`, whose tokens below `first` belong to other sources.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(poll: &Poll, first: usize) -> io::Result<Self> {
        Ok(ConnectionPoll { registry: poll.registry().try_clone()?, first })
    }

    /// The token of the connection with key 0.
    pub fn first(&self) -> usize {
        self.first
    }

    /// Watches the connection with `key` for what is `wanted`, where it is watched for less.
    ///
    /// # Errors
    /// The kernel's, from epoll_ctl(2).
    pub fn watch(&self, key: usize, descriptor: RawFd, watched: Watched, wanted: Watched) -> io::Result<()> {
        if watched >= wanted { Ok(()) } else { self.watch_anew(key, descriptor, watched, wanted) }
    }

    /// As [`ConnectionPoll::watch`], also where the connection is watched for that already: the
    /// poll then reports once more what is there (epoll_ctl(2), EPOLL_CTL_MOD).
    ///
    /// # Errors
    /// As [`ConnectionPoll::watch`].
    pub fn watch_anew(&self, key: usize, descriptor: RawFd, watched: Watched, wanted: Watched) -> io::Result<()> {
        let interest = match wanted {
            Watched::ForBoth => Interest::READABLE | Interest::WRITABLE,
            Watched::ForReading | Watched::Not => Interest::READABLE,
        };
        let (mut source, token) = (SourceFd(&descriptor), Token(self.first + key));
        match watched {
            Watched::Not => self.registry.register(&mut source, token, interest),
            Watched::ForReading | Watched::ForBoth => self.registry.reregister(&mut source, token, interest),
        }
    }

    /// Watches the descriptor no more.
    pub fn forget(&self, descriptor: RawFd) {
        // It fails only where the descriptor is not watched.
        let _ = self.registry.deregister(&mut SourceFd(&descriptor));
    }
}
