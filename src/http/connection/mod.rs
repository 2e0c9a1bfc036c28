//! The state of an HTTP/1 connection, without its socket, its clock and its files. A connection
//! that speaks uwsgi has another reader for its head (`protocol`).
//!
//! [`Http1`] is told what happens: bytes come, the client ends its side, time passes, the
//! application is done, the queued bytes are out. It moves from [`Stage`] to [`Stage`] and answers
//! with the [`Action`] that its caller is to take. The caller has the socket, the write queue and
//! the buffer of what has come (`input`). It gives the time with every event, and reads from
//! [`Http1::deadline`] when it is to call [`Http1::on_time`]. A body's bytes go to a [`BodySink`]
//! of the caller's.
//!
//! This module must not know what a connection is read from, nor who serves its requests.
//!
//! # Transitions
//!
//! What can happen in a stage, and where it leads. `transitions` holds the same table as data;
//! every event is checked against it in debug builds. A transition that is not here cannot happen.
//!
//! | Stage | Event | Next stage: action |
//! |---|---|---|
//! | Proxy | bytes | Proxy: wait; Idle: end proxy; Head: end proxy; Lingering: refuse |
//! | Proxy | end | Proxy: close |
//! | Proxy | broken | Proxy: close |
//! | Proxy | time | Proxy: wait; Proxy: close; Lingering: refuse |
//! | Proxy | close | Over: wait |
//! | Proxy | finished keep alive, finished close | never: no request has begun |
//! | Proxy | flushed | never: nothing is queued |
//! | Proxy | gathered | never: a connection that is handed over is past it |
//! | Proxy | refused, linger | never: TLS has not begun, and the header is refused here |
//! | Idle | bytes | Idle: wait; Head: wait; Body: wait; Body: send continue; Serving: serve; Lingering: refuse |
//! | Idle | end | Idle: close |
//! | Idle | broken | Idle: close |
//! | Idle | time | Idle: wait; Idle: last look |
//! | Idle | flushed | Idle: wait; Idle: rest |
//! | Idle | gathered | Idle: close; Serving: serve; Lingering: refuse |
//! | Idle | refused | Lingering: refuse |
//! | Idle | linger | Lingering: wait |
//! | Idle | close | Over: wait |
//! | Idle | finished keep alive, finished close | never: no request is served |
//! | Head | bytes | Head: wait; Body: wait; Body: send continue; Serving: serve; Lingering: refuse |
//! | Head | end | Head: close |
//! | Head | broken | Head: close |
//! | Head | time | Head: wait; Lingering: refuse |
//! | Head | flushed | Head: wait; Body: wait; Body: send continue; Serving: serve; Lingering: refuse |
//! | Head | refused | Lingering: refuse |
//! | Head | linger | Lingering: wait |
//! | Head | close | Over: wait |
//! | Head | finished keep alive, finished close | never: no request is served |
//! | Head | gathered | never: it is the first event of a connection |
//! | Body | bytes | Body: wait; Serving: serve; Lingering: refuse |
//! | Body | end | Body: left; Lingering: refuse |
//! | Body | broken | Body: left |
//! | Body | time | Body: wait; Lingering: refuse |
//! | Body | flushed | Body: wait |
//! | Body | linger | Lingering: wait |
//! | Body | close | Over: wait |
//! | Body | finished keep alive, finished close | never: no request is served |
//! | Body | gathered | never: it is the first event of a connection |
//! | Body | refused | never: the caller objects only to what comes before a head |
//! | Serving | time | Serving: wait |
//! | Serving | finished keep alive | Idle: flush; Head: flush |
//! | Serving | finished close | Closing: flush |
//! | Serving | flushed | Serving: wait |
//! | Serving | close | Over: wait |
//! | Serving | bytes, end, broken | never: nothing is read until the response is out |
//! | Serving | gathered, refused, linger | never: the request is ready already |
//! | Closing | time | Closing: wait |
//! | Closing | flushed | Closing: close |
//! | Closing | close | Over: wait |
//! | Closing | bytes, end, broken | never: nothing is read until the response is out |
//! | Closing | finished keep alive, finished close | never: the request is answered already |
//! | Closing | gathered, refused, linger | never: no request follows |
//! | Lingering | bytes | Lingering: wait; Lingering: close |
//! | Lingering | end | Lingering: wait; Lingering: close |
//! | Lingering | broken | Lingering: close |
//! | Lingering | time | Lingering: wait; Lingering: close |
//! | Lingering | flushed | Lingering: shut down |
//! | Lingering | close | Over: wait |
//! | Lingering | finished keep alive, finished close, gathered, refused | never: no request follows |
//! | Lingering | linger | never: it does so already |
//! | Over | time | Over: wait |
//! | Over | linger | Lingering: wait |
//! | Over | close | Over: wait |
//! | Over | bytes, end, broken | never: nothing is read |
//! | Over | flushed | never: nothing is sent |
//! | Over | finished keep alive, finished close, gathered, refused | never: no request follows |

mod body;
mod body_rate;
mod limits;
mod protocol;
mod reading;
mod stage;
mod transitions;

#[cfg(test)]
mod tests;

pub use body::{BodyReader, BodySink, Room};
pub use body_rate::BodyRate;
pub use limits::Http1Limits;
pub use protocol::{ClientProtocol, HeadReader};
pub use stage::{Action, Received, Refusal, Stage};

use std::time::{Duration, Instant};

use self::transitions::{Event, StageKind};
use super::error::Error;
use super::header_cache::HeaderCache;
use super::request::{CacheHint, RequestHead, Status};
use super::response::Asked;

/// After a refusal the client may still be sending. Closing at once would reset its connection
/// before it has read the answer. So the rest is read and dropped: this much of it...
const LINGER_BYTES: usize = 64 * 1024;

/// ...and for this long. Both are gunicorn's figures.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// The start of a request that wants no body in its answer.
const HEAD: &[u8] = b"HEAD ";

/// One HTTP/1 connection, as far as the protocol goes.
#[derive(Debug)]
pub struct Http1 {
    protocol: ClientProtocol,
    stage: Stage,
    /// What the current request asks for; `None` until its head is whole.
    asked: Option<Asked>,
    /// For the parser of the next head.
    hint: CacheHint,
    /// When the connection was accepted, or its last request was answered.
    rests_since: Instant,
    has_served: bool,
}

/// The caller's data that an event works on.
pub struct Context<'a, S> {
    /// The rules.
    pub limits: &'a Http1Limits,
    /// Whether the peer may set the scheme and headers with underscores.
    pub is_trusted: bool,
    /// The header cache, if there is one.
    pub known: Option<&'a mut HeaderCache>,
    /// Received and not used up. The current request's head is in front, from its first byte until
    /// the request is served.
    pub input: &'a mut Vec<u8>,
    /// Where the head goes.
    pub head: &'a mut RequestHead,
    /// Where the body goes.
    pub sink: S,
}

impl Http1 {
    /// A connection that has just been accepted.
    pub fn new(limits: &Http1Limits, now: Instant) -> Self {
        let deadline = now + limits.head_timeout;
        let stage = match limits.proxy_mode {
            Some(mode) => Stage::Proxy { mode, tls_follows: false, deadline },
            None => Stage::Idle { deadline: Some(deadline) },
        };
        Http1::at(stage, limits.protocol, now)
    }

    /// A connection that another process has accepted, and whose PROXY header, if any, is read. The
    /// other process may have had other settings, so `protocol` says what is spoken.
    pub fn past_proxy(protocol: ClientProtocol, limits: &Http1Limits, now: Instant) -> Self {
        let stage = Stage::Idle { deadline: Some(now + limits.head_timeout) };
        Http1::at(stage, protocol, now)
    }

    fn at(stage: Stage, protocol: ClientProtocol, now: Instant) -> Self {
        Http1 { protocol, stage, asked: None, hint: CacheHint::default(), rests_since: now, has_served: false }
    }

    /// Notes that TLS begins behind the PROXY header. False where no PROXY header comes first: then
    /// TLS begins at once.
    pub fn expect_tls(&mut self) -> bool {
        match &mut self.stage {
            Stage::Proxy { tls_follows, .. } => {
                *tls_follows = true;
                true
            }
            _ => false,
        }
    }

    /// Bytes have come. Not to be called where [`Http1::takes_bytes`] says no.
    pub fn on_bytes<S: BodySink>(&mut self, bytes: &[u8], context: Context<'_, S>, now: Instant) -> Action {
        let from = self.stage.kind();
        let action = match &mut self.stage {
            Stage::Idle { .. } | Stage::Head { .. } => self.on_head_bytes(bytes, context, now),
            Stage::Body { .. } => self.on_body_bytes(bytes, context, now),
            Stage::Proxy { .. } => self.on_proxy_bytes(bytes, context, now),
            Stage::Lingering { left, .. } => match left.checked_sub(bytes.len()) {
                Some(rest) => {
                    *left = rest;
                    Action::Wait
                }
                None => Action::Close,
            },
            Stage::Serving | Stage::Closing | Stage::Over => Action::Wait,
        };
        self.checked(from, Event::Bytes, action)
    }

    /// The client has ended its side. It may still read, so a body whose end is malformed is
    /// refused; a client whose body lacks data has left. `has_unsent` says whether bytes still wait
    /// to be sent.
    pub fn on_eof(&mut self, has_unsent: bool, input: &mut Vec<u8>, limits: &Http1Limits, now: Instant) -> Action {
        let from = self.stage.kind();
        let action = match &self.stage {
            Stage::Body { body, .. } => match body.missing_line_end() {
                Some(error) => self.refused(error, input, limits, now),
                None => Action::Left,
            },
            // The error page still waits for room in the kernel.
            Stage::Lingering { .. } if has_unsent => Action::Wait,
            _ => Action::Close,
        };
        self.checked(from, Event::End, action)
    }

    /// The connection cannot be read any further: the client has reset it.
    pub fn on_broken(&self) -> Action {
        let action = if matches!(self.stage, Stage::Body { .. }) { Action::Left } else { Action::Close };
        self.checked(self.stage.kind(), Event::Broken, action)
    }

    /// It is `now`. Ends waits that have lasted too long.
    pub fn on_time(&mut self, input: &mut Vec<u8>, limits: &Http1Limits, now: Instant) -> Action {
        let from = self.stage.kind();
        let is_due = self.deadline().is_some_and(|deadline| now >= deadline);
        let action = match &self.stage {
            _ if !is_due => Action::Wait,
            Stage::Idle { .. } => Action::LastLook,
            Stage::Proxy { tls_follows: true, .. } => Action::Close,
            // As a client that is silent where no PROXY header is expected.
            Stage::Proxy { .. } if input.is_empty() => Action::Close,
            Stage::Proxy { .. } | Stage::Head { .. } | Stage::Body { .. } => {
                self.refused(Error::RequestTimeout, input, limits, now)
            }
            Stage::Lingering { .. } => Action::Close,
            Stage::Serving | Stage::Closing | Stage::Over => Action::Wait,
        };
        self.checked(from, Event::Time, action)
    }

    /// The application is done with the request, which is no longer in the input. `keep_alive` says
    /// whether another may follow.
    pub fn finish(&mut self, keep_alive: bool, input: &[u8], now: Instant) -> Action {
        let from = self.stage.kind();
        (self.rests_since, self.has_served) = (now, true);
        let nothing_has_come = input.is_empty() || reading::is_stray_line_end(input, &[]);
        self.stage = match (keep_alive, nothing_has_come) {
            (false, _) => Stage::Closing,
            (true, true) => Stage::Idle { deadline: None },
            (true, false) => Stage::Head { reader: HeadReader::new(self.protocol, self.hint), deadline: None },
        };
        if keep_alive {
            self.asked = None;
        }
        self.checked(from, if keep_alive { Event::FinishedKeepAlive } else { Event::FinishedClose }, Action::Flush)
    }

    /// Everything that was queued is out. Turns to the next request, or to the connection's end.
    /// `idle_time` is how long the connection may rest between two requests.
    pub fn on_flushed<S: BodySink>(&mut self, idle_time: Duration, context: Context<'_, S>, now: Instant) -> Action {
        let from = self.stage.kind();
        let action = match &mut self.stage {
            // Only bytes of TLS itself went out.
            Stage::Idle { .. } if !self.has_served => Action::Wait,
            Stage::Idle { deadline } => {
                *deadline = Some(now + idle_time);
                Action::Rest
            }
            Stage::Head { reader, .. } => {
                let (mut reader, deadline) = (*reader, Some(now + context.limits.head_timeout));
                self.parse(&mut reader, deadline, &[], context, now)
            }
            Stage::Closing => Action::Close,
            Stage::Lingering { deadline, .. } => {
                *deadline = now + LINGER_TIME;
                Action::ShutDown
            }
            Stage::Proxy { .. } | Stage::Body { .. } | Stage::Serving | Stage::Over => Action::Wait,
        };
        self.checked(from, Event::Flushed, action)
    }

    /// Another process has gathered the body of the first request, whose head is in front of the
    /// input. The caller has the body, which is `length` bytes long.
    pub fn on_gathered<S: BodySink>(&mut self, length: u64, context: Context<'_, S>, now: Instant) -> Action {
        let from = self.stage.kind();
        let Context { limits, is_trusted, input, head, .. } = context;
        let mut reader = HeadReader::new(self.protocol, CacheHint::default());
        let action = match reader.parse(input, &limits.policy, is_trusted, None, head) {
            Ok(Status::Complete) => {
                self.note_head(input, head);
                self.serve(Received::Stored { length, began: now })
            }
            Ok(Status::Partial) => Action::Close,
            // This worker may be of another generation, with other rules.
            Err(error) => self.refused(error, input, limits, now),
        };
        self.checked(from, Event::Gathered, action)
    }

    /// Refuses what has come, for an `error` that the caller has found.
    pub fn refuse(&mut self, error: Error, input: &mut Vec<u8>, limits: &Http1Limits, now: Instant) -> Action {
        let from = self.stage.kind();
        let action = self.refused(error, input, limits, now);
        self.checked(from, Event::Refused, action)
    }

    /// Drops what the client still sends from now on.
    pub fn linger(&mut self, now: Instant) {
        let from = self.stage.kind();
        self.stage = Stage::Lingering { left: LINGER_BYTES, deadline: now + LINGER_TIME };
        self.checked(from, Event::Linger, Action::Wait);
    }

    /// The server ends its side, and waits for nothing. Returns false where the connection lingers
    /// or is over: its end is no news to the client.
    pub fn close(&mut self) -> bool {
        let from = self.stage.kind();
        let was_open = !matches!(self.stage, Stage::Lingering { .. } | Stage::Over);
        self.stage = Stage::Over;
        self.checked(from, Event::Close, Action::Wait);
        was_open
    }

    /// Puts an earlier end to the wait for the next request, or for a PROXY header of which nothing
    /// has come.
    pub fn close_by(&mut self, time: Instant, input: &[u8]) {
        match &mut self.stage {
            Stage::Idle { deadline } => *deadline = Some(deadline.map_or(time, |deadline| deadline.min(time))),
            Stage::Proxy { deadline, .. } if input.is_empty() => *deadline = time.min(*deadline),
            _ => {}
        }
    }

    /// When [`Http1::on_time`] is to be called; `None` where the stage waits for nobody.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Idle { deadline } | Stage::Head { deadline, .. } => *deadline,
            Stage::Proxy { deadline, .. } | Stage::Body { deadline, .. } | Stage::Lingering { deadline, .. } => {
                Some(*deadline)
            }
            Stage::Serving | Stage::Closing | Stage::Over => None,
        }
    }

    /// The protocol that is spoken.
    pub fn protocol(&self) -> ClientProtocol {
        self.protocol
    }

    /// The current stage.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Whether a request is ready, or with the application.
    pub fn is_serving(&self) -> bool {
        matches!(self.stage, Stage::Serving)
    }

    /// Whether what comes next is a request's head.
    pub fn awaits_head(&self) -> bool {
        matches!(self.stage, Stage::Idle { .. } | Stage::Head { .. })
    }

    /// Whether bytes are to be read now. If not, the kernel keeps them until the response is out,
    /// and the client waits.
    pub fn takes_bytes(&self, has_unsent: bool) -> bool {
        match self.stage {
            Stage::Idle { .. } | Stage::Head { .. } => !has_unsent,
            Stage::Proxy { .. } | Stage::Body { .. } | Stage::Lingering { .. } => true,
            Stage::Serving | Stage::Closing | Stage::Over => false,
        }
    }

    /// Whether it has answered a request.
    pub fn has_served(&self) -> bool {
        self.has_served
    }

    /// Since when the stage waits for the client; where it does not, since when the connection has
    /// been at rest.
    pub fn waits_since(&self, limits: &Http1Limits) -> Instant {
        let since = match &self.stage {
            Stage::Proxy { deadline, .. } => deadline.checked_sub(limits.head_timeout),
            Stage::Head { deadline, .. } => deadline.and_then(|deadline| deadline.checked_sub(limits.head_timeout)),
            Stage::Body { body, .. } => Some(body.rate().began()),
            Stage::Lingering { deadline, .. } => deadline.checked_sub(LINGER_TIME),
            Stage::Idle { .. } | Stage::Serving | Stage::Closing | Stage::Over => None,
        };
        since.unwrap_or(self.rests_since)
    }

    /// Whether the current request's head has been read whole.
    pub fn has_whole_head(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether the current request wants no body in its answer, by what has come of the request.
    /// `input` is needed only before its head is whole.
    pub fn asks_for_head(&self, input: &[u8], limits: &Http1Limits) -> bool {
        if let Some(asked) = self.asked {
            return asked == Asked::Head;
        }
        // An empty line may come before the method.
        let start = input.strip_prefix(b"\r\n").unwrap_or(input);
        let method = start.get(..HEAD.len()).unwrap_or_default();
        method == HEAD || (limits.policy.casefold_http_method && method.eq_ignore_ascii_case(HEAD))
    }

    fn refused(&mut self, error: Error, input: &mut Vec<u8>, limits: &Http1Limits, now: Instant) -> Action {
        let is_head = self.asks_for_head(input, limits);
        if let Stage::Proxy { .. } = self.stage {
            // No request has begun: none is to be logged.
            *input = Vec::new();
        }
        self.stage = Stage::Lingering { left: LINGER_BYTES, deadline: now + LINGER_TIME };
        Action::Refuse(Refusal { error, is_head })
    }

    /// Passes on the `action`. The transition must be one of the table's.
    fn checked(&self, from: StageKind, event: Event, action: Action) -> Action {
        let (to, kind) = (self.stage.kind(), action.kind());
        debug_assert!(transitions::allows(from, event, to, kind), "{from:?} on {event:?} to {to:?}, {kind:?}");
        action
    }
}
