//! Which connections are ended first where a worker can hold no more connections, memory or disk
//! space: what each of them holds, and how little it would be missed.

use std::time::{Duration, Instant};

use super::{Connection, Step};
use crate::http::connection::Stage;
use crate::http::date::DateCache;
use crate::http::error::{Error, ErrorPage};
use crate::sys::clock::unix_time;
use crate::sys::socket::{Readiness, wait_until_ready};
use crate::worker::holdings::Held;

/// How long a client may take for its head, or stand still at its body or its response, before it
/// counts as slow. A slow client is ended before others are, or where others are not ended at all.
pub const UNHURRIED: Duration = Duration::from_secs(2);

/// Why a connection may be ended to make room, and since when. The lesser value is ended first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionStanding {
    /// It has been there for [`UNHURRIED`] without sending a whole head.
    Late(Instant),
    /// It is between two requests.
    Idle(Instant),
    /// Its head is on the way, its client has sent nothing yet, or it was refused and what the
    /// client still sends is dropped.
    Fresh(Instant),
    /// Its body comes slowly, or its response is not read. For a body, the time is until when its
    /// bytes have met the lowest permitted rate.
    Slow(Instant),
    /// Its body comes fast enough. It makes room only where that is urgent, and no other connection
    /// can. The time is as for [`ConnectionStanding::Slow`].
    Busy(Instant),
}

impl Connection {
    /// Why it may be ended to make room; `None` while its request is served, or its response moves.
    pub fn standing(&self, now: Instant) -> Option<ConnectionStanding> {
        if self.http.is_serving() {
            return None;
        }
        if self.has_unsent() {
            let since = self.output.stalled_since().filter(|&since| now >= since + UNHURRIED)?;
            return Some(ConnectionStanding::Slow(since));
        }
        let limits = &self.limits.http;
        let since = self.http.waits_since(limits);
        match self.http.stage() {
            Stage::Body { body, .. } if body.rate().is_slow(now, UNHURRIED, limits) => {
                Some(ConnectionStanding::Slow(body.rate().sufficed_until(limits)))
            }
            Stage::Body { body, .. } => Some(ConnectionStanding::Busy(body.rate().sufficed_until(limits))),
            Stage::Idle { .. } if self.http.has_served() => Some(ConnectionStanding::Idle(since)),
            Stage::Proxy { .. } | Stage::Idle { .. } | Stage::Head { .. } if now >= since + UNHURRIED => {
                Some(ConnectionStanding::Late(since))
            }
            Stage::Proxy { .. } | Stage::Idle { .. } | Stage::Head { .. } | Stage::Lingering { .. } => {
                Some(ConnectionStanding::Fresh(since))
            }
            Stage::Closing | Stage::Serving | Stage::Over => None,
        }
    }

    /// Whether bytes, or the client's end, wait in the kernel to be read.
    pub fn has_arrived(&self) -> bool {
        self.arrivals.may_be_unread()
            || wait_until_ready(self.descriptor(), Readiness::ToRead, Duration::ZERO).unwrap_or(false)
    }

    /// Ends the connection at once. A client whose request has begun is told why, as far as the
    /// kernel takes that. Returns what is to be logged before the connection is closed.
    pub fn make_room(&mut self) -> Step {
        if self.has_unsent() && !matches!(self.http.stage(), Stage::Proxy { .. }) {
            self.break_off();
            self.transport.stream().reset_on_close();
            return Step::Stalled;
        }
        if !matches!(self.http.stage(), Stage::Head { .. } | Stage::Body { .. } | Stage::Serving) {
            self.end_our_side();
            return Step::Close;
        }
        let error = Error::Overloaded;
        self.name_client();
        let is_head = self.http.asks_for_head(&self.input, &self.limits.http);
        let page = ErrorPage { status: error.status(), message: &error.message(), is_head, lines: b"" };
        self.output.push(&page.render(DateCache::new().get(unix_time())));
        // It is closed whether or not this gets through.
        let _ = self.output.flush(&mut self.transport, Instant::now());
        self.end_our_side();
        Step::Refused(error)
    }

    /// What it holds, as last recorded.
    pub fn held(&self) -> Held {
        self.held + self.output.held()
    }

    /// How long it has held that.
    pub fn held_for(&self, now: Instant) -> Duration {
        let since = self.request.began().unwrap_or_else(|| self.http.waits_since(&self.limits.http));
        now.saturating_duration_since(since)
    }

    /// Records what it holds.
    pub(super) fn note_held(&mut self) {
        let held = self.count_held();
        if held != self.held {
            self.limits.holdings.replace(self.held, held);
            self.held = held;
        }
    }

    fn count_held(&self) -> Held {
        let input = if self.input.is_empty() { 0 } else { self.input.capacity() };
        let (request, spool) = self.request.held();
        Held { memory: (input + request) as u64, spool }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let held = self.held();
        if held != Held::default() {
            self.limits.holdings.replace(held, Held::default());
        }
        self.limits.holdings.note_closed();
    }
}
