//! The poll and the connections: who can be read, written, accepted, or has waited too long.
//!
//! Edge-triggered, one registration a connection, none for a connection that is over before it would have had to wait. Does all input
//! and output that needs no Python, and hands out the connections whose requests are ready. Knows nothing of the interpreter.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::connection::{Connection, READ_SIZE, Step, Unserved};
use super::refusals::Refusals;
use super::rules::Rules;
use crate::exchange::CLIENT_CLOSED_REQUEST;
use crate::sys::socket::Listener;

/// Most events taken from the kernel in one turn.
const EVENTS_PER_TURN: usize = 256;

/// Most connections accepted in one turn; those behind them wait in the kernel, where an idle sibling can take them.
const ACCEPTS_PER_TURN: usize = 16;

/// A worker with a request at hand leaves new connections to its siblings for this long; should all be busy, it takes them after all.
const ACCEPT_PATIENCE: Duration = Duration::from_millis(5);

/// A request that may have waited longer than this is run only if its client is still there: looking costs a system call.
const UNQUESTIONED_WAIT: Duration = Duration::from_millis(10);

/// How long accepting rests when the process has run out of file descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(500);

/// Waits end and hearts beat to this precision.
pub const TICK: Duration = Duration::from_secs(1);

/// Token of the signal pipe; listeners follow it, then connections.
const SIGNALS: Token = Token(0);
const FIRST_LISTENER: usize = 1;

/// A worker's connections and the poll over them.
pub struct EventLoop {
    poll: Poll,
    events: Events,
    rules: Arc<Rules>,
    listeners: Vec<Door>,
    connections: Slab<Option<Box<Connection>>>,
    most_connections: usize,
    first_connection: usize,
    scratch: Vec<u8>,
    ready: VecDeque<usize>,
    again: Vec<usize>,
    refusals: Refusals,
    unserved: Vec<Unserved>,
    now: Instant,
    /// When the turn before began: whatever is ready now has become so since then.
    previous: Instant,
    next_sweep: Instant,
    rest_until: Option<Instant>,
}

/// A listener and whether connections may be waiting behind it.
struct Door {
    listener: Arc<Listener>,
    /// Since when the kernel has, or may have, connections that were not accepted.
    waiting_since: Option<Instant>,
}

/// What a turn brought besides ready requests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turn {
    /// Signals have arrived.
    pub signals: bool,
    /// A [`TICK`] has passed.
    pub tick: bool,
}

impl EventLoop {
    /// A loop over `listeners` and the signal pipe `signals`, for at most `most_connections` at once.
    ///
    /// # Errors
    /// The kernel's, from epoll.
    pub fn new(
        listeners: &[Arc<Listener>],
        signals: RawFd,
        rules: Arc<Rules>,
        most_connections: usize,
    ) -> io::Result<EventLoop> {
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&signals), SIGNALS, Interest::READABLE)?;
        for (index, listener) in listeners.iter().enumerate() {
            let token = Token(FIRST_LISTENER + index);
            poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), token, Interest::READABLE)?;
        }
        let now = Instant::now();
        let door = |listener: &Arc<Listener>| Door { listener: listener.clone(), waiting_since: None };
        Ok(EventLoop {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            rules,
            listeners: listeners.iter().map(door).collect(),
            connections: Slab::new(),
            most_connections,
            first_connection: FIRST_LISTENER + listeners.len(),
            scratch: vec![0; READ_SIZE],
            ready: VecDeque::new(),
            again: Vec::new(),
            refusals: Refusals::default(),
            unserved: Vec::new(),
            now,
            previous: now,
            next_sweep: now + TICK,
            rest_until: None,
        })
    }

    /// Waits until something happens, at most to the next tick, and does what can be done without the application.
    ///
    /// # Errors
    /// The poll failed, which leaves nothing to go on with.
    pub fn turn(&mut self) -> io::Result<Turn> {
        let timeout = self.poll_timeout();
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.previous = std::mem::replace(&mut self.now, Instant::now());
        let mut turn = self.take_events();
        self.continue_unfinished();
        self.accept();
        if self.now >= self.next_sweep {
            self.next_sweep = self.now + TICK;
            self.end_waits();
            self.refusals.end_second();
            turn.tick = true;
        }
        Ok(turn)
    }

    /// The next connection whose request is ready, taken out of the loop; it comes back through [`EventLoop::put_back`].
    pub fn next_ready(&mut self) -> Option<(usize, Box<Connection>)> {
        while let Some(key) = self.ready.pop_front() {
            let Some(connection) = self.connections.get_mut(key).and_then(Option::take) else { continue };
            if self.previous.elapsed() > UNQUESTIONED_WAIT && connection.client_has_left() {
                self.put_back(key, connection, Step::Left);
                continue;
            }
            return Some((key, connection));
        }
        None
    }

    /// The requests that have ended without the application since the last call.
    pub fn take_unserved(&mut self) -> Vec<Unserved> {
        std::mem::take(&mut self.unserved)
    }

    /// Takes a connection back after its request, to go on as its `step` says.
    pub fn put_back(&mut self, key: usize, connection: Box<Connection>, step: Step) {
        self.connections[key] = Some(connection);
        self.follow(key, step);
    }

    /// The time of the current turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// How many connections are open.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Takes what the kernel has already accepted on the listeners' behalf, then listens no more.
    pub fn stop_accepting(&mut self) {
        for site in 0..self.listeners.len() {
            while self.connections.len() < self.most_connections && self.accept_one(site) {}
        }
        for door in self.listeners.drain(..) {
            // The listener itself is shared with other processes; only our interest in it ends.
            let _ = self.poll.registry().deregister(&mut SourceFd(&door.listener.as_raw_fd()));
        }
    }

    /// Gives clients that are between two requests until `time` to send one more.
    pub fn close_idle_by(&mut self, time: Instant) {
        for (_, connection) in &mut self.connections {
            if let Some(connection) = connection {
                connection.close_by(time);
            }
        }
        self.next_sweep = self.next_sweep.min(time);
    }

    fn poll_timeout(&self) -> Duration {
        if !self.ready.is_empty() || !self.again.is_empty() || self.can_accept() {
            return Duration::ZERO;
        }
        self.next_sweep.saturating_duration_since(Instant::now())
    }

    fn take_events(&mut self) -> Turn {
        let mut turn = Turn::default();
        // The events are set aside while connections are worked on; their buffer is kept.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                SIGNALS => turn.signals = true,
                Token(number) if number < self.first_connection => {
                    if let Some(door) = self.listeners.get_mut(number - FIRST_LISTENER) {
                        door.waiting_since.get_or_insert(self.now);
                    }
                }
                Token(number) => {
                    let key = number - self.first_connection;
                    if event.is_readable() || event.is_read_closed() {
                        self.read(key, event.is_read_closed());
                    }
                    if event.is_writable() {
                        self.write(key);
                    }
                }
            }
        }
        self.events = events;
        turn
    }

    fn read(&mut self, key: usize, ended: bool) {
        if let Some(Some(connection)) = self.connections.get_mut(key) {
            let step = connection.on_readable(&mut self.scratch, ended, self.now);
            self.follow(key, step);
        }
    }

    fn write(&mut self, key: usize) {
        if let Some(Some(connection)) = self.connections.get_mut(key) {
            let step = connection.on_writable(self.now);
            self.follow(key, step);
        }
    }

    /// Goes on with connections that had more to do than their share of an earlier turn.
    fn continue_unfinished(&mut self) {
        for key in std::mem::take(&mut self.again) {
            self.write(key);
            self.read(key, false);
        }
    }

    fn follow(&mut self, key: usize, step: Step) {
        match step {
            Step::Wait => self.register(key),
            Step::Again => {
                self.register(key);
                self.again.push(key);
            }
            Step::Call => self.ready.push_back(key),
            Step::Refused(error) => {
                if let Some(Some(connection)) = self.connections.get_mut(key) {
                    self.refusals.refused(connection.remote_addr(), &error);
                    self.unserved.push(connection.take_unserved(error.status()));
                }
                self.follow(key, Step::Again);
            }
            Step::Left => {
                if let Some(Some(connection)) = self.connections.get_mut(key) {
                    self.unserved.push(connection.take_unserved(CLIENT_CLOSED_REQUEST));
                }
                self.connections.try_remove(key);
            }
            Step::Stalled => {
                if let Some(Some(connection)) = self.connections.get(key) {
                    self.refusals.stalled(connection.remote_addr());
                }
                self.connections.try_remove(key);
            }
            Step::Close => {
                self.connections.try_remove(key);
            }
        }
    }

    fn register(&mut self, key: usize) {
        let Some(Some(connection)) = self.connections.get_mut(key) else { return };
        if connection.is_registered() {
            return;
        }
        let token = Token(self.first_connection + key);
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self.poll.registry().register(&mut SourceFd(&connection.descriptor()), token, interest) {
            Ok(()) => connection.set_registered(),
            Err(error) => {
                log::error!("Cannot watch a connection: {error}");
                self.connections.try_remove(key);
            }
        }
    }

    fn can_accept(&self) -> bool {
        let rests = self.rest_until.is_some_and(|until| self.now < until);
        !rests && self.listeners.iter().any(|door| door.waiting_since.is_some()) && self.has_room()
    }

    /// Whether another connection may be held, or an idle one given up for it.
    fn has_room(&self) -> bool {
        self.connections.len() < self.most_connections || self.oldest_idle().is_some()
    }

    fn accept(&mut self) {
        if !self.can_accept() {
            return;
        }
        for site in 0..self.listeners.len() {
            let mut left = ACCEPTS_PER_TURN;
            while left > 0 && self.may_accept(site) && self.make_room() && self.accept_one(site) {
                left -= 1;
            }
        }
    }

    /// While a request is at hand here, an idle sibling should have the first chance to accept.
    fn may_accept(&self, site: usize) -> bool {
        self.listeners[site]
            .waiting_since
            .is_some_and(|since| self.ready.is_empty() || self.now >= since + ACCEPT_PATIENCE)
    }

    /// Accepts a connection and reads its request at once; says whether there may be another.
    fn accept_one(&mut self, site: usize) -> bool {
        let door = &mut self.listeners[site];
        match door.listener.accept() {
            Ok((stream, peer)) => {
                door.waiting_since = Some(self.now);
                let connection = Connection::new(stream, peer, site, self.rules.clone(), self.now);
                let key = self.connections.insert(Some(Box::new(connection)));
                self.read(key, false);
                true
            }
            Err(error) => self.after_failed_accept(site, &error),
        }
    }

    fn after_failed_accept(&mut self, site: usize, error: &io::Error) -> bool {
        const OUT_OF_RESOURCES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        if error.kind() == ErrorKind::WouldBlock {
            self.listeners[site].waiting_since = None;
            return false;
        }
        if error.raw_os_error().is_some_and(|code| OUT_OF_RESOURCES.contains(&code)) {
            log::error!("Cannot accept connections for now: {error}");
            self.close_oldest_idle();
            self.rest_until = Some(self.now + ACCEPT_REST);
            self.next_sweep = self.next_sweep.min(self.now + ACCEPT_REST);
            return false;
        }
        // ECONNABORTED, EINTR, EPROTO and their kind concern one connection, which is gone (accept(2), "Error handling").
        true
    }

    fn make_room(&mut self) -> bool {
        self.connections.len() < self.most_connections || self.close_oldest_idle()
    }

    fn close_oldest_idle(&mut self) -> bool {
        let oldest = self.oldest_idle();
        oldest.is_some_and(|key| self.connections.try_remove(key).is_some())
    }

    /// All idle connections get the same time, so the one whose deadline comes first has waited longest.
    fn oldest_idle(&self) -> Option<usize> {
        let idle = self.connections.iter().filter_map(|(key, connection)| {
            let connection = connection.as_ref().filter(|connection| connection.is_idle())?;
            Some((connection.deadline()?, key))
        });
        idle.min().map(|(_, key)| key)
    }

    fn end_waits(&mut self) {
        let mut ended = Vec::new();
        for (key, connection) in &mut self.connections {
            if let Some(connection) = connection {
                match connection.on_time(self.now) {
                    Step::Wait => {}
                    step => ended.push((key, step)),
                }
            }
        }
        for (key, step) in ended {
            self.follow(key, step);
        }
    }
}
