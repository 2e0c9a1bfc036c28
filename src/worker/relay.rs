//! Carries bytes between a TLS session and a socket that an application was lent in its place
//! (`gunicorn.socket`), in a thread of its own.
//!
//! Whatever can be done with a socket (select, dup, threads, asyncio) can then be done under TLS as
//! well. The thread holds one block for each direction, waits for whichever side can go on, and
//! ends with the connection.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::relay_link::RelayLink;
use super::transport::Transport;
use crate::sys::socket::{Cork, Stream};
use crate::sys::thread;
use crate::tls::Session;

/// Bytes on their way in one direction.
const BLOCK: usize = 16 * 1024;

/// Starts to carry bytes between the client on `stream`, with whom `session` is held, and
/// `application`, whose connection is at the other end of `link`. A client that takes nothing for
/// longer than `patience` once the application has closed is disconnected.
///
/// # Errors
/// The system has no room for another thread.
pub fn start(
    stream: Stream,
    session: Box<Session>,
    application: Stream,
    link: Arc<RelayLink>,
    patience: Duration,
) -> io::Result<()> {
    let mut client = Transport::plain(stream);
    client.begin_tls(*session);
    let (client, application) = (Side::new(client), Side::new(Transport::plain(application)));
    let relay = Relay { client, application, link, patience };
    thread::spawn("tls-relay", move || relay.run())
}

struct Relay {
    client: Side,
    application: Side,
    link: Arc<RelayLink>,
    patience: Duration,
}

/// One end, and the block that was read from it for the other.
struct Side {
    transport: Transport,
    block: Vec<u8>,
    start: usize,
    /// Nothing more comes from this end.
    has_ended: bool,
    /// The other side has been told so.
    end_is_told: bool,
    /// The peer is gone, and takes nothing more.
    is_gone: bool,
    /// Both directions have ended, and what has come may still be unread.
    has_hung_up: bool,
}

impl Relay {
    fn run(mut self) {
        let mut leaves_by = None;
        loop {
            let moved = self.relay_both();
            if self.application.end_is_told || self.client.is_gone {
                self.link.end();
            }
            if self.client.is_gone || (self.client.end_is_told && self.application.end_is_told) {
                return;
            }
            if moved {
                leaves_by = None;
                continue;
            }
            if self.application.is_gone {
                let now = Instant::now();
                if now >= *leaves_by.get_or_insert(now + self.patience) {
                    return;
                }
            }
            self.wait(leaves_by);
        }
    }

    /// Moves what can be moved without waiting, both ways; says whether anything was.
    fn relay_both(&mut self) -> bool {
        let moved = relay(&mut self.client, &mut self.application, |_| ());
        // The connection breaks off before it ends, so the question comes behind the end.
        let before_end = |client: &mut Transport| {
            if self.link.is_broken_off() {
                client.abandon();
            }
        };
        relay(&mut self.application, &mut self.client, before_end) || moved
    }

    /// Waits until one side can go on, or is found to be gone.
    fn wait(&mut self, until: Option<Instant>) {
        let wanted = |side: &Side, other: &Side| {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, !side.has_ended && side.is_empty());
            events.set(PollFlags::POLLOUT, !other.is_empty() || side.transport.has_unsent());
            events
        };
        let (client, application) = (self.client.transport.stream(), self.application.transport.stream());
        let of_client = wanted(&self.client, &self.application);
        let mut descriptors = [
            PollFd::new(client.as_fd(), of_client),
            PollFd::new(application.as_fd(), wanted(&self.application, &self.client)),
        ];
        // Once the application has gone its descriptor is ready for ever, and so is the client's
        // once it has hung up: then that is waited for only where something is to be done.
        let first = usize::from(self.client.has_hung_up && of_client.is_empty());
        let count = if self.application.is_gone { 1 } else { 2 };
        let timeout = until.map_or(PollTimeout::NONE, |until| {
            PollTimeout::try_from(until.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX)
        });
        let polled = poll(&mut descriptors[first..count], timeout);
        let [client, application] = descriptors.map(|descriptor| descriptor.revents().unwrap_or(PollFlags::empty()));
        self.client.has_hung_up |= client.contains(PollFlags::POLLHUP);
        self.client.is_gone |= client.contains(PollFlags::POLLERR)
            || (self.client.has_hung_up && self.client.has_ended)
            || polled.is_err_and(|error| error != nix::errno::Errno::EINTR);
        self.application.is_gone |= application.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.link.end();
    }
}

impl Side {
    fn new(transport: Transport) -> Self {
        Side {
            transport,
            block: Vec::new(),
            start: 0,
            has_ended: false,
            end_is_told: false,
            is_gone: false,
            has_hung_up: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.block.len()
    }

    /// Reads a block, if the last one is used up; says whether anything was to be had.
    fn read(&mut self) -> bool {
        if !self.is_empty() || self.has_ended {
            return false;
        }
        self.block.resize(BLOCK, 0);
        // A failed read counts as the end.
        let read = unless_it_would_block(self.transport.read(&mut self.block)).unwrap_or(Some(0));
        self.block.truncate(read.unwrap_or(0));
        self.start = 0;
        self.has_ended = read == Some(0);
        read.is_some()
    }
}

/// Moves what can be moved without waiting; says whether anything was. `before_end` is called
/// before the end is told.
fn relay(from: &mut Side, to: &mut Side, before_end: impl FnOnce(&mut Transport)) -> bool {
    if to.is_gone {
        (from.start, from.has_ended, from.end_is_told) = (from.block.len(), true, true);
        return false;
    }
    let mut moved = from.read();
    let written = match from.is_empty() {
        true => Ok(Some(0)),
        false => unless_it_would_block(to.transport.write(&from.block[from.start..], Cork::No)),
    };
    let flushed = written.and_then(|written| {
        from.start += written.unwrap_or(0);
        moved |= written.is_some_and(|count| count > 0);
        unless_it_would_block(to.transport.flush())
    });
    match flushed {
        Err(_) => to.is_gone = true,
        Ok(Some(())) if from.has_ended && from.is_empty() && !from.end_is_told => {
            (from.end_is_told, moved) = (true, true);
            before_end(&mut to.transport);
            to.is_gone |= to.transport.shutdown_write().is_err();
        }
        Ok(_) => {}
    }
    moved
}

fn unless_it_would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
