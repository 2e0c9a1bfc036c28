//! The clients at `metrics_bind`: a few connections beside those of the event loop, each for one
//! request, read and answered by whoever leads. In a worker whose class has no event loop of ours a
//! thread of their own does it.
//!
//! They have limits of their own, count nowhere and are logged nowhere. The module must not know
//! what becomes of the application's connections.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::metrics::http::{Pages, answer, too_long};
use crate::metrics::text::{Format, page};
use crate::metrics::{Extras, Source, gather};
use crate::scoreboard::{MetricsTurn, Scoreboard};
use crate::service::MetricsSocket;
use crate::sys::process;
use crate::sys::socket::{Cork, Listener, Stream};

/// Most connections at a time. Further ones wait in the kernel.
pub const CLIENTS: usize = 4;

/// The longest head of a request.
const HEAD_BYTES: usize = 8 * 1024;

/// How long a client has for its request and the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the metrics pages are made of.
pub struct MetricsPages {
    /// The server's board.
    pub board: Scoreboard,
    /// The listeners of the application's clients.
    pub listeners: Vec<Arc<Listener>>,
    /// The interpreter's version.
    pub python: String,
    /// The worker class.
    pub worker_class: String,
    /// The certificate files in use, and when each expires, in seconds since the epoch.
    pub certificates: Vec<(String, u64)>,
}

impl Pages for MetricsPages {
    fn metrics(&self, format: Format, extras: Extras) -> String {
        let MetricsPages { board, listeners, python, worker_class, certificates } = self;
        page(&gather(&Source { board, listeners, python, worker_class, certificates, extras }), format)
    }

    fn serves(&self) -> bool {
        self.board.passes_checks()
    }
}

/// The socket and its clients.
pub struct MetricsServer {
    listener: Option<Arc<Listener>>,
    turn: MetricsTurn,
    pages: MetricsPages,
    /// The token of the socket; those of the clients follow.
    first: usize,
    clients: [Option<ScrapeClient>; CLIENTS],
    /// An event has come since the last turn.
    is_due: bool,
}

struct ScrapeClient {
    stream: Stream,
    until: Instant,
    exchange: ScrapeStage,
}

enum ScrapeStage {
    /// The bytes of the request that have arrived.
    Reading(Vec<u8>),
    /// The answer, and how much of it has gone.
    Writing(Vec<u8>, usize),
}

/// What becomes of a client.
#[derive(PartialEq, Eq)]
enum Next {
    Waits,
    IsOver,
}

impl MetricsServer {
    /// Watches the socket. From now on earlier programs no longer answer there. The server has the
    /// [`tokens`](MetricsServer::tokens) from `first` on.
    ///
    /// # Errors
    /// The kernel's, from epoll.
    pub fn new(
        socket: &MetricsSocket,
        pages: MetricsPages,
        first: usize,
        registry: &Registry,
    ) -> io::Result<MetricsServer> {
        let (listener, turn) = (socket.listener.clone(), socket.turn.clone());
        registry.register(&mut SourceFd(&listener.as_raw_fd()), Token(first), Interest::READABLE)?;
        turn.take();
        let (listener, clients) = (Some(listener), [const { None }; CLIENTS]);
        Ok(MetricsServer { listener, turn, pages, first, clients, is_due: false })
    }

    /// The tokens of a server whose socket has the token `first`.
    pub const fn tokens(first: usize) -> Range<usize> {
        first..first + 1 + CLIENTS
    }

    /// An event has come for one of the server's tokens.
    pub fn note_event(&mut self) {
        self.is_due = true;
    }

    /// Whether the server needs a turn.
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// Whether nobody is being answered.
    pub fn is_idle(&self) -> bool {
        self.clients.iter().all(Option::is_none)
    }

    /// From now on these certificates are in use.
    pub fn note_certificates(&mut self, certificates: Vec<(String, u64)>) {
        self.pages.certificates = certificates;
    }

    /// Accepts no more clients: the other workers answer them.
    pub fn leave(&mut self, registry: &Registry) {
        if let Some(listener) = self.listener.take() {
            let _ = registry.deregister(&mut SourceFd(&listener.as_raw_fd()));
        }
    }

    /// Accepts, reads and answers, as far as that goes without waiting, and ends what has lasted
    /// too long. Clients that come faster than they are answered are left to the next turn: the
    /// application's clients wait for this one.
    pub fn turn(&mut self, registry: &Registry, now: Instant) {
        self.is_due = false;
        self.go_on(now);
        // Each answer may have made room for one more.
        for _ in 0..CLIENTS {
            if !self.accept(registry, now) {
                return;
            }
            self.go_on(now);
        }
        self.is_due = true;
    }

    fn go_on(&mut self, now: Instant) {
        for place in &mut self.clients {
            let is_over = place.as_mut().is_some_and(|client| {
                now >= client.until || client.go_on(&self.pages).unwrap_or(Next::IsOver) == Next::IsOver
            });
            if is_over {
                // Closing the only descriptor also ends the poll's interest (epoll(7)).
                *place = None;
            }
        }
    }

    /// Whether this worker may answer. It may not where a newer program does, nor once the master
    /// is gone: another program may have taken over what was counted here.
    fn is_our_turn(&self) -> bool {
        self.turn.is_ours() && process::getppid() == self.pages.board.master()
    }

    /// Says whether somebody was accepted.
    fn accept(&mut self, registry: &Registry, now: Instant) -> bool {
        let Some(listener) = self.listener.as_ref().filter(|_| self.is_our_turn()) else { return false };
        let Some(free) = self.clients.iter().position(Option::is_none) else { return false };
        let Ok((stream, _)) = listener.accept() else { return false };
        let (token, interest) = (Token(self.first + 1 + free), Interest::READABLE | Interest::WRITABLE);
        if registry.register(&mut SourceFd(&stream.as_raw_fd()), token, interest).is_err() {
            return false;
        }
        let exchange = ScrapeStage::Reading(Vec::new());
        self.clients[free] = Some(ScrapeClient { stream, until: now + CLIENT_TIMEOUT, exchange });
        true
    }
}

impl ScrapeClient {
    fn go_on(&mut self, pages: &MetricsPages) -> io::Result<Next> {
        if let ScrapeStage::Reading(input) = &mut self.exchange {
            let Some(answer) = read_request(&self.stream, input, pages)? else { return Ok(Next::Waits) };
            self.exchange = ScrapeStage::Writing(answer, 0);
        }
        let ScrapeStage::Writing(answer, sent) = &mut self.exchange else { return Ok(Next::Waits) };
        while *sent < answer.len() {
            match self.stream.write(&answer[*sent..], Cork::No) {
                Ok(count) => *sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Waits),
                Err(error) => return Err(error),
            }
        }
        Ok(Next::IsOver)
    }
}

/// The answer, once the request is whole.
fn read_request(stream: &Stream, input: &mut Vec<u8>, pages: &MetricsPages) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; 2048];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => input.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        if let Some(answer) = answer(input, pages) {
            return Ok(Some(answer));
        }
        if input.len() > HEAD_BYTES {
            return Ok(Some(too_long()));
        }
    }
}
