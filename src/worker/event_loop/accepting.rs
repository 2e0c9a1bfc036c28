//! Where connections come from, the listeners and the siblings, and when the worker takes them: it
//! leaves them to siblings that are freer, and holds only so many.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use mio::Token;

use super::{EventLoop, FIRST_LISTENER, HANDSHAKES_PER_TURN};
use crate::scoreboard::Count;
use crate::sys::socket::Stream;
use crate::tls::Acceptor;
use crate::worker::connection::Connection;
use crate::worker::listeners::WorkerListener;

/// Most requests accepted in one turn; those behind them wait in the kernel, where an idle sibling
/// can take them.
const ACCEPTS_PER_TURN: usize = 16;

/// Most connections accepted in one turn, those that bring no request included.
const LOOKS_PER_TURN: usize = 64;

/// A worker that is busier than its siblings leaves new connections to them for this long. After
/// that it takes those that no sibling has accepted.
pub(super) const ACCEPT_BACKOFF: Duration = Duration::from_millis(5);

/// A worker that cannot serve gives idle siblings the first chance at new connections, for at most
/// this long after the first began to wait.
const MOST_LEFT_TO_SIBLINGS: Duration = Duration::from_millis(50);

/// How long accepting rests when the process has run out of file descriptors or memory, and no
/// connection here can be ended to make room.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How often at most the log says that connections cannot be accepted.
const REST_TOLD: Duration = Duration::from_secs(1);

/// Where new connections come from, and what bounds them.
pub(super) struct Accepting {
    pub listeners: Vec<WorkerListener>,
    /// What new connections begin TLS with, where they do.
    pub acceptor: Option<Acceptor>,
    /// TLS handshakes that may still go on in this turn.
    pub handshakes_left: usize,
    pub most_connections: usize,
    /// Since when there may be connections from siblings in the handoff channel.
    pub handoffs_since: Option<Instant>,
    /// The worker accepts no more. Handoffs are for siblings that serve on, if there are any.
    is_leaving: bool,
    rest_until: Option<Instant>,
    /// When the log last said that connections cannot be accepted.
    rest_told: Option<Instant>,
}

impl Accepting {
    pub fn new(listeners: Vec<WorkerListener>, most_connections: usize) -> Accepting {
        // As for the other bounds, 0 is none.
        let most_connections = if most_connections == 0 { usize::MAX } else { most_connections };
        Accepting {
            listeners,
            acceptor: None,
            handshakes_left: HANDSHAKES_PER_TURN,
            most_connections,
            handoffs_since: None,
            is_leaving: false,
            rest_until: None,
            rest_told: None,
        }
    }
}

impl EventLoop {
    pub(super) fn accept(&mut self) {
        if !self.can_accept() {
            return;
        }
        // While requests are ready here an idle sibling should have the first chance, but only for
        // a moment: where every worker always has one, the channel would wait for ever.
        let takes_handoffs = self.may_take_handoffs();
        if takes_handoffs && self.handoffs_have_waited() && self.has_room() && self.take_handoff() {
            self.make_room();
        }
        while takes_handoffs && self.queues.ready.is_empty() && self.has_room() && self.take_handoff() {
            self.make_room();
        }
        for site in 0..self.accepting.listeners.len() {
            let mut left = LOOKS_PER_TURN;
            let most_ready = self.queues.ready.len() + ACCEPTS_PER_TURN;
            while left > 0
                && self.queues.ready.len() < most_ready
                && self.should_accept(site)
                && self.has_room()
                && self.accept_one(site)
            {
                self.make_room();
                left -= 1;
            }
        }
    }

    /// Takes what the kernel has already accepted on the listeners' behalf, then listens no more.
    /// Connections that can be done without make room for it.
    pub fn stop_accepting(&mut self) {
        // Handoffs may wait in the channel though their event has not come yet.
        self.accepting.handoffs_since = Some(self.clock.now);
        self.accepting.is_leaving = true;
        self.find_dispensable(false);
        while self.takes_handoffs() && self.has_room() && self.take_handoff() {
            self.make_room();
        }
        for site in 0..self.accepting.listeners.len() {
            while self.has_room() && self.accept_one(site) {
                self.make_room();
            }
        }
        for mut listener in self.accepting.listeners.drain(..) {
            listener.leave(self.poll.registry());
        }
        // Siblings that serve on answer in this worker's place. Where the server stops, its last
        // seconds are to be seen as well.
        if let Some(metrics) = self.metrics.as_mut().filter(|_| !self.siblings.server_stops()) {
            metrics.leave(self.poll.registry());
        }
    }

    /// Whether nobody would accept at one of the listeners any more if this worker did not.
    pub fn is_last_on_its_socket(&self) -> bool {
        self.accepting.listeners.iter().any(|listener| listener.is_ours_alone(&self.siblings))
    }

    /// Takes over the listeners that siblings have left, and leaves those at which a sibling
    /// accepts again.
    pub(super) fn watch_listeners(&mut self) -> io::Result<()> {
        let (registry, siblings) = (self.poll.registry(), &self.siblings);
        let mut listeners = self.accepting.listeners.iter_mut().enumerate();
        listeners.try_for_each(|(index, listener)| listener.watch(registry, Token(FIRST_LISTENER + index), siblings))
    }

    /// Whether connections may be waiting, and there is room for one.
    pub(super) fn can_accept(&self) -> bool {
        self.is_awaited() && self.has_room()
    }

    /// Whether connections may be waiting.
    pub(super) fn is_awaited(&self) -> bool {
        let Accepting { listeners, rest_until, .. } = &self.accepting;
        let is_awaited = self.may_take_handoffs()
            || listeners.iter().any(|listener| listener.waiting_since.is_some() && self.has_use_for(listener));
        is_awaited && rest_until.is_none_or(|until| self.clock.now >= until)
    }

    /// Whether this worker is the one to accept now, where it [can](EventLoop::can_accept).
    pub(super) fn accepts_now(&self) -> bool {
        self.may_take_handoffs() || (0..self.accepting.listeners.len()).any(|site| self.should_accept(site))
    }

    /// Whether it is of use to accept at `listener`, also while no thread here can serve: health
    /// checks and requests for files are answered, and requests at a socket where no sibling
    /// accepts are passed on.
    fn has_use_for(&self, listener: &WorkerListener) -> bool {
        self.serves || self.limits.own_paths.are_given() || !listener.is_shared()
    }

    /// While a request is ready here, or a sibling has fewer connections, or no thread here can
    /// serve, an idle sibling should have the first chance to accept, but only for
    /// [`ACCEPT_BACKOFF`].
    fn should_accept(&self, site: usize) -> bool {
        let listener = &self.accepting.listeners[site];
        let Some(since) = listener.waiting_since else { return false };
        let left_at = listener.left_at.filter(|_| !self.serves).unwrap_or(since);
        let has_waited = self.clock.now >= since.max(left_at) + ACCEPT_BACKOFF;
        if !self.serves {
            // A connection under TLS cannot be passed on.
            let may_pass_on = !listener.is_shared() && self.accepting.acceptor.is_none() && self.siblings.has_idle();
            let may_be_of_use = self.limits.own_paths.are_given() || may_pass_on;
            return has_waited && may_be_of_use;
        }
        let others_first = listener.is_shared()
            && (self.siblings.has_less_loaded(self.connections.len())
                || (!self.queues.ready.is_empty() && self.siblings.has_idle()));
        !others_first || has_waited
    }

    /// An event has come for the channel in which siblings pass connections on.
    pub(super) fn note_handoffs(&mut self) {
        self.accepting.handoffs_since.get_or_insert(self.clock.now);
    }

    /// Whether this worker takes what siblings pass on. One that ends leaves it to those that serve
    /// on: it may not have the time for it.
    fn takes_handoffs(&self) -> bool {
        !self.accepting.is_leaving || self.siblings.server_stops() || !self.siblings.has_serving()
    }

    /// Whether siblings may have passed on what this worker takes.
    fn may_take_handoffs(&self) -> bool {
        self.serves && self.accepting.handoffs_since.is_some() && self.takes_handoffs()
    }

    /// An event has come for a listener. Where no thread here can serve, but a sibling can, that
    /// one has the first chance at each connection.
    pub(super) fn note_newcomers(&mut self, index: usize) {
        let Some(listener) = self.accepting.listeners.get_mut(index) else { return };
        let since = *listener.waiting_since.get_or_insert(self.clock.now);
        // The sibling may be full.
        let may_wait = self.clock.now < since + MOST_LEFT_TO_SIBLINGS;
        if may_wait && !self.serves && listener.is_shared() && self.siblings.has_idle() {
            listener.left_at = Some(self.clock.now);
        }
    }

    fn handoffs_have_waited(&self) -> bool {
        self.accepting.handoffs_since.is_some_and(|since| self.clock.now >= since + ACCEPT_BACKOFF)
    }

    /// Takes a connection that a busy sibling has passed on; says whether there may be another.
    fn take_handoff(&mut self) -> bool {
        if self.accepting.handoffs_since.is_none() {
            return false;
        }
        match self.siblings.take(&self.limits, self.clock.now) {
            Ok(Some((connection, step))) => {
                let key = self.insert(connection);
                self.follow(key, step);
                true
            }
            Ok(None) => {
                self.accepting.handoffs_since = None;
                false
            }
            // A sibling takes one at this moment.
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => self.make_room_after(&error),
        }
    }

    /// Accepts a connection and reads its request at once; says whether there may be another.
    fn accept_one(&mut self, site: usize) -> bool {
        let listener = &mut self.accepting.listeners[site];
        match listener.socket.accept() {
            Ok((stream, peer)) => {
                let waiting_since = listener.waiting_since.replace(self.clock.now).unwrap_or(self.clock.now);
                self.clock.arrived_after = self.clock.arrived_after.min(waiting_since);
                let stream = self.take_a_clients_number(stream);
                let mut connection = Connection::new(stream, peer, site, self.limits.clone(), self.clock.now);
                self.siblings.row().count(Count::Accepted);
                if self.limits.measures {
                    connection.note_wait_in_kernel();
                }
                self.begin(connection);
                true
            }
            Err(error) => self.after_failed_accept(site, &error),
        }
    }

    /// Where the connection has got a descriptor of the application's reserve, makes room, and
    /// moves the connection to a lower descriptor.
    fn take_a_clients_number(&mut self, stream: Stream) -> Stream {
        if self.limits.holdings.note_descriptor(&stream)
            && self.make_much_room()
            && self.limits.holdings.should_move(&stream)
        {
            return stream.duplicate().unwrap_or(stream);
        }
        stream
    }

    /// Reads a new connection's request, which has mostly arrived with it.
    fn begin(&mut self, mut connection: Connection) {
        if let Some(acceptor) = &self.accepting.acceptor {
            match connection.under_tls(acceptor.clone()) {
                Ok(secured) => connection = secured,
                Err(error) => {
                    log::error!("Cannot begin TLS: {error}");
                    return;
                }
            }
        }
        let key = self.insert(connection);
        self.read(key, false, 1);
    }

    fn after_failed_accept(&mut self, site: usize, error: &io::Error) -> bool {
        const OUT_OF_RESOURCES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        if error.kind() == ErrorKind::WouldBlock {
            self.accepting.listeners[site].nobody_waits();
            return false;
        }
        if error.raw_os_error().is_some_and(|code| OUT_OF_RESOURCES.contains(&code)) {
            return self.make_room_after(error);
        }
        // Errors of one connection, which is gone (accept(2), "Error handling"); others may be
        // waiting.
        const ONE_CONNECTION: [i32; 4] = [libc::ECONNABORTED, libc::EINTR, libc::EPROTO, libc::EPERM];
        if error.raw_os_error().is_some_and(|code| ONE_CONNECTION.contains(&code) || is_network_error(code)) {
            return true;
        }
        self.accepting.listeners[site].nobody_waits();
        // With EINVAL the master has not opened the listener yet, or has shut it again (accept(2)).
        if error.kind() != ErrorKind::InvalidInput {
            log::error!("Cannot accept connections: {error}");
        }
        false
    }

    /// Descriptors or memory have run out. Ends other connections, so that accepting goes on at
    /// once; where none can be ended, accepting rests for a moment. Says whether it goes on.
    fn make_room_after(&mut self, error: &io::Error) -> bool {
        if self.accepting.rest_told.is_none_or(|told| self.clock.now >= told + REST_TOLD) {
            log::error!("Cannot accept connections for now: {error}");
            self.accepting.rest_told = Some(self.clock.now);
        }
        if self.make_much_room() {
            return true;
        }
        self.accepting.rest_until = Some(self.clock.now + ACCEPT_REST);
        self.tick_by(self.clock.now + ACCEPT_REST);
        false
    }
}

/// Errors of the network that accept(2) passes on for a connection that has already come.
fn is_network_error(code: i32) -> bool {
    [
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::EOPNOTSUPP,
        libc::ENETUNREACH,
    ]
    .contains(&code)
}
