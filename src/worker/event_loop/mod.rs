//! The poll and the connections: which can be read, written or accepted, and which have waited too
//! long.
//!
//! The poll is edge-triggered. A connection is registered once (a second time if its client reads
//! slowly), and never if it is over before it would have to wait. The event loop does all input and
//! output that needs no Python, and hands out the requests that are ready. It knows nothing of the
//! interpreter.

mod accepting;
mod files;
mod following;
mod handing_out;
mod making_room;
mod unfinished;
mod waits;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use accepting::{ACCEPT_BACKOFF, Accepting};
use files::FileRequests;
use unfinished::Unfinished;

use super::connection::{Connection, LoggedRequest, SharedConnection, Step, lock, share};
use super::connection_limits::ConnectionLimits;
use super::connection_poll::ConnectionPoll;
use super::listeners::WorkerListener;
use super::metrics_server::{MetricsPages, MetricsServer};
use super::read_context::ReadContext;
use super::rejection_log::RejectionLog;
use super::siblings::Siblings;
use crate::service::MetricsSocket;
use crate::tls::Tls;

/// Most events taken from the kernel in one turn.
const EVENTS_PER_TURN: usize = 256;

/// How often one connection reads before others have their turn. A head is mostly there with the
/// first.
const READS_PER_TURN: usize = 4;

/// How long one turn goes on with connections that have more to do than to read a head (bodies,
/// long responses): new requests wait meanwhile. The connection that is begun last may take as long
/// again.
const LONGEST_WORK: Duration = Duration::from_millis(2);

/// Most of these connections in one turn, however quick they are: then the loop polls again.
const WORKS_PER_TURN: usize = 64;

/// Most connections whose TLS handshake goes on in one turn: each may cost a signature, a
/// millisecond's work for a long RSA key, and requests that are ready wait meanwhile.
const HANDSHAKES_PER_TURN: usize = 16;

/// Waits end, and heartbeats come, to this precision.
pub const TICK: Duration = Duration::from_secs(1);

/// Tokens of the sources that exist once. Those of the listeners follow, then those of the
/// connections.
const SIGNALS: Token = Token(0);
const WAKER: Token = Token(1);
const HANDOFF_CHANNEL: Token = Token(2);
const NUDGE: Token = Token(3);
const METRICS: usize = 4;
const FIRST_LISTENER: usize = MetricsServer::tokens(METRICS).end;

/// A worker's connections and the poll over them.
pub struct EventLoop {
    poll: Poll,
    events: Events,
    clock: Clock,
    accepting: Accepting,
    limits: Arc<ConnectionLimits>,
    connections: Slab<ConnectionEntry>,
    queues: Queues,
    siblings: Arc<Siblings>,
    /// Whether the thread that leads also runs the application; else requests and new connections
    /// wait.
    serves: bool,
    read_context: ReadContext,
    unlogged: Unlogged,
    /// The server at `metrics_bind`, if there is one.
    metrics: Option<Box<MetricsServer>>,
}

/// The times that a turn goes by.
struct Clock {
    /// The time, as far as it is known here: asking costs more than most of what is done between
    /// two polls.
    now: Instant,
    last_poll: Instant,
    /// Nothing of what is being read can have arrived before this moment.
    arrived_after: Instant,
    next_sweep: Instant,
}

/// Connections for which something is to be done, by what is to be done.
struct Queues {
    /// Those whose requests are ready, and since when.
    ready: VecDeque<(usize, Instant)>,
    /// How many requests were handed out since the last turn.
    handed_out: usize,
    /// Those with more to do than their share of one turn.
    unfinished: Unfinished,
    /// Those that may be ended in this turn to make room, in this order.
    dispensable: VecDeque<usize>,
    /// Requests for files.
    file_requests: FileRequests,
    /// Those whose responses are to go out together.
    finished: VecDeque<usize>,
    /// Since when the first of `finished` waits.
    finished_since: Instant,
    /// The key at which the look for expired waits goes on; `None` when all have been looked at.
    waits_seen: Option<usize>,
}

/// What the logs are still to say.
#[derive(Default)]
struct Unlogged {
    rejections: RejectionLog,
    requests: Vec<LoggedRequest>,
}

impl Queues {
    fn new(now: Instant) -> Queues {
        Queues {
            ready: VecDeque::new(),
            handed_out: 0,
            unfinished: Unfinished::default(),
            dispensable: VecDeque::new(),
            file_requests: FileRequests::default(),
            finished: VecDeque::new(),
            finished_since: now,
            waits_seen: None,
        }
    }
}

/// A connection, and who has its request.
struct ConnectionEntry {
    connection: SharedConnection,
    /// As long as the application has its request: what the poll said of the connection meanwhile.
    pending: Option<PendingEvents>,
}

/// Events of a connection whose request was with the application.
#[derive(Clone, Copy, Default)]
struct PendingEvents {
    readable: bool,
    ended: bool,
    writable: bool,
}

/// The connection with this key, unless the application has its request.
fn idle(connections: &Slab<ConnectionEntry>, key: usize) -> Option<MutexGuard<'_, Connection>> {
    let entry = connections.get(key)?;
    entry.pending.is_none().then(|| lock(&entry.connection))
}

/// What a turn brought besides ready requests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turn {
    /// Signals have arrived.
    pub signals: bool,
    /// Handlers that the application has installed in Python are due.
    pub handlers: bool,
    /// A [`TICK`] has passed.
    pub tick: bool,
}

impl EventLoop {
    /// A loop over `listeners`, the signal pipe `signals`, and `nudge`, which is readable when
    /// Python's signal handlers are due; for at most `most_connections` at once.
    ///
    /// # Errors
    /// The kernel's, from epoll.
    pub fn new(
        listeners: Vec<WorkerListener>,
        (signals, nudge): (RawFd, RawFd),
        limits: Arc<ConnectionLimits>,
        siblings: Arc<Siblings>,
        most_connections: usize,
    ) -> io::Result<EventLoop> {
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&siblings.handoff_channel()), HANDOFF_CHANNEL, Interest::READABLE)?;
        poll.registry().register(&mut SourceFd(&signals), SIGNALS, Interest::READABLE)?;
        poll.registry().register(&mut SourceFd(&nudge), NUDGE, Interest::READABLE)?;
        limits.watch_by(ConnectionPoll::new(&poll, FIRST_LISTENER + listeners.len())?);
        let now = Instant::now();
        let mut event_loop = EventLoop {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            clock: Clock { now, last_poll: now, arrived_after: now, next_sweep: now + TICK },
            accepting: Accepting::new(listeners, most_connections),
            limits,
            connections: Slab::new(),
            queues: Queues::new(now),
            siblings,
            serves: true,
            read_context: ReadContext::new(),
            unlogged: Unlogged::default(),
            metrics: None,
        };
        event_loop.watch_listeners()?;
        Ok(event_loop)
    }

    /// Waits until something happens, at most to the next tick and for `most`, and does what can be
    /// done without the application. Responses that are [finished](EventLoop::send_finished) are to
    /// be sent before.
    ///
    /// # Errors
    /// The poll failed, which leaves nothing to go on with.
    pub fn turn(&mut self, most: Duration) -> io::Result<Turn> {
        let timeout = self.time_to_wait().min(most);
        let interrupted = match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            polled => polled.is_err(),
        };
        self.clock.now = Instant::now();
        self.clock.arrived_after = std::mem::replace(&mut self.clock.last_poll, self.clock.now);
        self.accepting.handshakes_left = HANDSHAKES_PER_TURN;
        self.queues.handed_out = 0;
        let mut turn = self.take_events();
        // CPython's signal handler may have interrupted the poll, and written to another descriptor
        // than `nudge` (`signal.set_wakeup_fd`).
        turn.handlers |= interrupted;
        self.continue_unfinished();
        self.look_for_room();
        self.accept();
        self.answer_with_files();
        self.unlogged.rejections.log_new();
        if let Some(metrics) =
            self.metrics.as_mut().filter(|metrics| metrics.is_due() || self.clock.now >= self.clock.next_sweep)
        {
            metrics.turn(self.poll.registry(), self.clock.now);
        }
        if self.clock.now >= self.clock.next_sweep {
            self.clock.next_sweep = self.clock.now + TICK;
            if let Err(error) = self.watch_listeners() {
                log::error!("Cannot watch a sibling's listener: {error}");
            }
            self.queues.waits_seen.get_or_insert(0);
            self.unlogged.rejections.end_second();
            self.close_old_files();
            turn.tick = true;
        }
        self.end_waits();
        Ok(turn)
    }

    /// Something that ends a poll from another thread.
    ///
    /// # Errors
    /// The kernel's, from eventfd.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), WAKER)
    }

    /// The descriptor of the poll: readable when a turn finds something.
    pub fn descriptor(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// From now on metrics are answered at this socket.
    ///
    /// # Errors
    /// The kernel's, from epoll.
    pub fn serve_metrics(&mut self, socket: &MetricsSocket, pages: MetricsPages) -> io::Result<()> {
        self.metrics = Some(Box::new(MetricsServer::new(socket, pages, METRICS, self.poll.registry())?));
        Ok(())
    }

    /// From now on new connections are under TLS, as `tls` says.
    pub fn accept_under_tls(&mut self, tls: &Tls) {
        self.accepting.acceptor = Some(tls.acceptor().clone());
        if let Some(metrics) = &mut self.metrics {
            metrics.note_certificates(tls.expiries());
        }
    }

    /// Notes whether the thread that leads from now on will serve what becomes ready.
    pub fn lead_as(&mut self, serves: bool) {
        self.serves = serves;
    }

    /// Whether the thread that leads serves what becomes ready.
    pub fn serves(&self) -> bool {
        self.serves
    }

    /// Takes note that it is `now`.
    pub fn catch_up(&mut self, now: Instant) {
        self.clock.now = self.clock.now.max(now);
    }

    /// The time, as far as it is known here.
    pub fn now(&self) -> Instant {
        self.clock.now
    }

    /// Whether no connection is open, those for metrics included, and no relay has bytes for its
    /// client.
    pub fn is_empty(&self) -> bool {
        let has_relays = self.limits.relays.load(Relaxed) > 0;
        self.connections.is_empty() && !has_relays && self.metrics.as_ref().is_none_or(|metrics| metrics.is_idle())
    }

    /// Makes a turn end, and tick, by `time`.
    pub fn tick_by(&mut self, time: Instant) {
        self.clock.next_sweep = self.clock.next_sweep.min(time);
    }

    /// How long a turn may wait: to the next tick, if nothing is to be done before.
    pub fn time_to_wait(&self) -> Duration {
        let (has_ready, can_accept) = (self.has_ready(), self.can_accept());
        if self.serves && has_ready || can_accept && self.accepts_now() || self.has_work() {
            return Duration::ZERO;
        }
        let until_tick = self.clock.next_sweep.saturating_duration_since(self.clock.now);
        // What has to wait for a sibling's or our own thread is looked at again soon.
        let looks_again = has_ready || can_accept || self.waits_for_room();
        if looks_again { until_tick.min(ACCEPT_BACKOFF) } else { until_tick }
    }

    /// Whether there is something to go on with at once.
    fn has_work(&self) -> bool {
        let metrics_are_due = self.metrics.as_ref().is_some_and(|metrics| metrics.is_due());
        let waits = !self.queues.unfinished.is_empty() || !self.queues.file_requests.is_empty();
        waits || self.queues.waits_seen.is_some() || metrics_are_due
    }

    /// Takes note of what the poll has told. Heads are read at once, the rest is left for
    /// [`EventLoop::continue_unfinished`].
    fn take_events(&mut self) -> Turn {
        let mut turn = Turn::default();
        // The events are set aside while connections are worked on; their buffer is kept.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                SIGNALS => turn.signals = true,
                NUDGE => turn.handlers = true,
                // The waker has ended the poll, which is its only purpose.
                WAKER => {}
                HANDOFF_CHANNEL => self.note_handoffs(),
                Token(number) if number < FIRST_LISTENER => {
                    if let Some(metrics) = &mut self.metrics {
                        metrics.note_event();
                    }
                }
                Token(number) if number < self.first_connection() => self.note_newcomers(number - FIRST_LISTENER),
                Token(number) => self.take_event(number - self.first_connection(), event),
            }
        }
        self.events = events;
        turn
    }

    fn take_event(&mut self, key: usize, event: &Event) {
        let is_readable = event.is_readable() || event.is_read_closed();
        if let Some(mut connection) = idle(&self.connections, key)
            && !connection.awaits_head()
        {
            if is_readable {
                connection.note_unread(event.is_read_closed());
            }
            drop(connection);
            self.queues.unfinished.push(key);
            return;
        }
        if is_readable {
            self.read(key, event.is_read_closed(), 1);
        }
        if event.is_writable() {
            self.write(key);
        }
    }

    fn read(&mut self, key: usize, ended: bool, reads: usize) {
        let Some(entry) = self.connections.get_mut(key) else { return };
        let step = match &mut entry.pending {
            None => {
                let mut connection = lock(&entry.connection);
                if connection.is_shaking_hands() && self.accepting.handshakes_left == 0 {
                    connection.note_unread(ended);
                    Step::Again
                } else {
                    self.accepting.handshakes_left -= usize::from(connection.is_shaking_hands());
                    connection.on_readable(&mut self.read_context, ended, reads, self.clock.now)
                }
            }
            Some(missed) => {
                (missed.readable, missed.ended) = (true, missed.ended || ended);
                return;
            }
        };
        self.follow(key, step);
        if self.limits.holdings.is_exceeded() {
            self.keep_within_bounds();
        }
    }

    fn write(&mut self, key: usize) {
        let Some(entry) = self.connections.get_mut(key) else { return };
        match &mut entry.pending {
            None => {
                let mut connection = lock(&entry.connection);
                let step = connection.on_writable(self.clock.now);
                self.unlogged.requests.extend(connection.take_late_log(false, self.clock.now));
                drop(connection);
                self.follow(key, step);
            }
            Some(missed) => {
                let goes_on = match entry.connection.try_lock() {
                    // The request is given back already: `put_back` will go on with the connection.
                    Ok(connection) if !connection.is_served() => {
                        missed.writable = true;
                        false
                    }
                    Ok(mut connection) => connection.send_on(self.clock.now),
                    Err(TryLockError::Poisoned(connection)) => connection.into_inner().send_on(self.clock.now),
                    // The application's thread is sending, perhaps since before the kernel had
                    // room: looks again.
                    Err(TryLockError::WouldBlock) => true,
                };
                if goes_on {
                    self.queues.unfinished.push(key);
                }
            }
        }
    }

    /// The token of the connection with key 0.
    fn first_connection(&self) -> usize {
        self.limits.poll().map_or(usize::MAX, ConnectionPoll::first)
    }

    /// Goes on with connections that have more to do than to read a head: each once, those that
    /// have waited for longest first, and no longer than for a moment.
    fn continue_unfinished(&mut self) {
        if self.queues.unfinished.is_empty() {
            return;
        }
        let end = Instant::now() + LONGEST_WORK;
        for _ in 0..self.queues.unfinished.len().min(WORKS_PER_TURN) {
            let Some(key) = self.queues.unfinished.pop() else { return };
            self.write(key);
            if idle(&self.connections, key).is_some() {
                self.read(key, false, READS_PER_TURN);
            }
            if Instant::now() >= end {
                return;
            }
        }
    }

    fn insert(&mut self, connection: Connection) -> usize {
        let key = self.connections.insert(ConnectionEntry { connection: share(connection), pending: None });
        self.siblings.set_connections(self.connections.len());
        key
    }
}
