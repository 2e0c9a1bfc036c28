//! What a connection costs the others, and how little it would be missed: where a worker can hold no more, some have to go.

use std::time::{Duration, Instant};

use super::{Connection, LINGER_TIME, State, Step};
use crate::http::date::DateCache;
use crate::http::error::{Error, ErrorPage};
use crate::sys::clock::unix_time;
use crate::sys::socket::{Readiness, wait_until_ready};
use crate::worker::body_store::BodyStore;
use crate::worker::holdings::Held;

/// How long a client may take for its head, or stand still at its body or its response, before it counts as one that is in no hurry:
/// its place is then the first, or may at all, be given to another.
pub const UNHURRIED: Duration = Duration::from_secs(2);

/// Why its place may be given to another, and since when. What is less goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It has been there for [`UNHURRIED`] without sending a whole head.
    Late(Instant),
    /// It is between two requests.
    Idle(Instant),
    /// Its head is on the way, it has said nothing yet, or it was refused and what it still sends is dropped.
    Fresh(Instant),
    /// Its body comes slowly, or its response is not read. Of bodies it is the moment up to which the bytes that came would have sufficed.
    Slow(Instant),
    /// Its body comes well. It goes only where the application would be left without something, and nobody else is there.
    Busy(Instant),
}

impl Connection {
    /// Why its place may be given to another client; `None` while a request is run, or something moves.
    pub fn standing(&self, now: Instant) -> Option<Standing> {
        if self.state == State::Serving {
            return None;
        }
        if self.has_unsent() {
            let since = self.write_timeout.since().filter(|&since| now >= since + UNHURRIED)?;
            return Some(Standing::Slow(since));
        }
        match self.state {
            State::Body if self.body_rate.is_slow(now, &self.limits) => {
                Some(Standing::Slow(self.body_rate.sufficed_until(&self.limits)))
            }
            State::Body => Some(Standing::Busy(self.body_rate.sufficed_until(&self.limits))),
            State::Proxy | State::Head if self.input.is_empty() && self.has_been_served => {
                Some(Standing::Idle(self.rests_since))
            }
            State::Proxy | State::Head => Some(self.standing_at_head(now)),
            State::Lingering(_) => Some(Standing::Fresh(self.waits_since(LINGER_TIME))),
            State::Closing | State::Serving | State::Over => None,
        }
    }

    fn standing_at_head(&self, now: Instant) -> Standing {
        let since = match self.input.is_empty() {
            true => self.rests_since,
            false => self.waits_since(self.limits.head_timeout),
        };
        if now >= since + UNHURRIED { Standing::Late(since) } else { Standing::Fresh(since) }
    }

    /// When the wait began that its deadline ends.
    fn waits_since(&self, patience: Duration) -> Instant {
        self.deadline.and_then(|deadline| deadline.checked_sub(patience)).unwrap_or(self.rests_since)
    }

    /// Whether something waits in the kernel to be read, be it the end.
    pub fn has_arrived(&self) -> bool {
        self.unread || wait_until_ready(self.descriptor(), Readiness::ToRead, Duration::ZERO).unwrap_or(false)
    }

    /// Has it leave at once: a request that has begun is told why, as far as the kernel takes that; what it costs is not to be paid any
    /// longer. What is to be logged, before it is closed.
    pub fn make_room(&mut self) -> Step {
        if self.has_unsent() && self.state != State::Proxy {
            self.break_off();
            self.transport.stream().reset_on_close();
            return Step::Stalled;
        }
        let has_begun = match self.state {
            State::Head => !self.input.is_empty(),
            State::Body | State::Serving => true,
            State::Proxy | State::Closing | State::Lingering(_) | State::Over => false,
        };
        if !has_begun {
            self.end_our_side();
            return Step::Close;
        }
        let error = Error::Overloaded;
        let page = ErrorPage { status: error.status(), message: &error.message(), is_head: self.asks_for_head() };
        self.write_queue.push(&page.render(DateCache::new().get(unix_time())));
        // It is closed whether or not this gets through.
        let _ = self.write_queue.flush(&mut self.transport);
        self.end_our_side();
        Step::Refused(error)
    }

    /// What it holds, as last written down.
    pub fn held(&self) -> Held {
        self.held
    }

    /// How long it has held that.
    pub fn held_for(&self, now: Instant) -> Duration {
        let since = match self.state {
            State::Head | State::Proxy => self.waits_since(self.limits.head_timeout),
            _ => self.body_rate.began(),
        };
        now.saturating_duration_since(since)
    }

    /// Writes down what it holds.
    pub(super) fn note_held(&mut self) {
        let held = self.count_held();
        if held != self.held {
            self.limits.holdings.replace(self.held, held);
            self.held = held;
        }
    }

    fn count_held(&self) -> Held {
        let head = if self.input.is_empty() { 0 } else { self.input.capacity() };
        let (memory, spool) = match &self.body {
            // Of the buffers that bodies may keep there are only so many (see `read_context`).
            None | Some(BodyStore::Whole(..)) => (0, 0),
            Some(BodyStore::Memory(bytes)) => (bytes.capacity(), 0),
            Some(BodyStore::Spooled(_, length)) => (0, *length),
        };
        Held { memory: (head + memory + self.unsaved.capacity()) as u64, spool } + self.write_queue.held()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.held != Held::default() {
            self.limits.holdings.replace(self.held, Held::default());
        }
        self.limits.holdings.note_closed();
    }
}
