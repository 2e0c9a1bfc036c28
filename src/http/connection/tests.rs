//! Each transition of the table, made to happen with plain bytes and times that nobody waits for.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::super::error::Error;
use super::super::policy::Policy;
use super::super::proxy::ProxyMode;
use super::super::request::RequestHead;
use super::transitions::{ActionKind as A, Event as E, NEVER, StageKind as S, TABLE};
use super::{Action, BodySink, ClientProtocol, Context, Http1, Http1Limits, Received, Room, Stage};

const SECOND: Duration = Duration::from_secs(1);
const IDLE_TIME: Duration = Duration::from_secs(30);

/// The beginning of a head, to which the following are the rest.
const START: &str = "POST / HTTP/1.1\r\nHost: a\r\n";
const NO_BODY: &str = "\r\n";
const FIVE_BYTES: &str = "Content-Length: 5\r\n\r\n";
const FIVE_BYTES_ASKED_FOR: &str = "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n";

/// A machine with everything that is its caller's. Remembers the last transition.
struct Driver {
    http: Http1,
    limits: Http1Limits,
    input: Vec<u8>,
    head: RequestHead,
    body: Body,
    now: Instant,
    last: Option<(S, E, S, A)>,
}

/// A sink with room for so many bytes.
struct Body {
    data: Vec<u8>,
    most: usize,
}

impl BodySink for &mut Body {
    fn begin(&mut self, _: Option<u64>) {
        self.data.clear();
    }

    fn add(&mut self, data: Cow<'_, [u8]>) -> Room {
        self.data.extend_from_slice(&data);
        if self.data.len() < self.most { Room::Left } else { Room::Exhausted }
    }
}

impl Driver {
    fn new(proxy_mode: Option<ProxyMode>) -> Self {
        let limits = Http1Limits {
            protocol: ClientProtocol::Http,
            policy: Policy::default(),
            head_timeout: 10 * SECOND,
            body_timeout: 20 * SECOND,
            body_min_rate: 0,
            body_buffer: 100_000,
            limit_request_body: Some(1_000_000),
            proxy_mode,
            requires_proxy_header: false,
        };
        let now = Instant::now();
        let body = Body { data: Vec::new(), most: usize::MAX };
        let (input, head) = (Vec::new(), RequestHead::default());
        Driver { http: Http1::new(&limits, now), limits, input, head, body, now, last: None }
    }

    /// One that is at this stage, in the plainest way.
    fn at(stage: S) -> Self {
        let mut driver = Driver::new((stage == S::Proxy).then_some(ProxyMode::V1));
        match stage {
            S::Proxy | S::Idle => {}
            S::Head => drop(driver.bytes(START)),
            S::Body => drop(driver.request(FIVE_BYTES)),
            S::Serving => drop(driver.request(NO_BODY)),
            S::Closing => {
                driver = Driver::at(S::Serving);
                driver.finish(false);
            }
            S::Lingering => drop(driver.bytes("\n")),
            S::Over => drop(driver.close()),
        }
        assert_eq!(driver.http.stage.kind(), stage);
        driver
    }

    fn event(&mut self, event: E, act: impl FnOnce(&mut Http1, Context<'_, &mut Body>, Instant) -> Action) -> Action {
        let from = self.http.stage.kind();
        let context = Context {
            limits: &self.limits,
            is_trusted: false,
            known: None,
            input: &mut self.input,
            head: &mut self.head,
            sink: &mut self.body,
        };
        let action = act(&mut self.http, context, self.now);
        self.last = Some((from, event, self.http.stage.kind(), action.kind()));
        if let Action::Serve(_) = action {
            // As the caller does it.
            self.input.drain(..self.head.len);
        }
        action
    }

    fn bytes(&mut self, bytes: impl AsRef<[u8]>) -> Action {
        self.event(E::Bytes, |http, context, now| http.on_bytes(bytes.as_ref(), context, now))
    }

    fn request(&mut self, rest: &str) -> Action {
        self.bytes(format!("{START}{rest}"))
    }

    fn end(&mut self, has_unsent: bool) -> Action {
        self.event(E::End, |http, context, now| http.on_eof(has_unsent, context.input, context.limits, now))
    }

    fn broken(&mut self) -> Action {
        self.event(E::Broken, |http, _, _| http.on_broken())
    }

    /// So many seconds later.
    fn after(&mut self, seconds: u32) -> Action {
        self.now += seconds * SECOND;
        self.event(E::Time, |http, context, now| http.on_time(context.input, context.limits, now))
    }

    fn finish(&mut self, keep_alive: bool) -> Action {
        let event = if keep_alive { E::FinishedKeepAlive } else { E::FinishedClose };
        self.event(event, |http, context, now| http.finish(keep_alive, context.input, now))
    }

    fn flushed(&mut self) -> Action {
        self.event(E::Flushed, |http, context, now| http.on_flushed(IDLE_TIME, context, now))
    }

    /// The response to a request is out, behind which these bytes had come.
    fn flushed_before(&mut self, pipelined: String) -> Action {
        *self = Driver::at(S::Serving);
        self.input = pipelined.into_bytes();
        self.finish(true);
        self.flushed()
    }

    fn gathered(&mut self, head: String) -> Action {
        self.input = head.into_bytes();
        self.event(E::Gathered, |http, context, now| http.on_gathered(5, context, now))
    }

    fn refuse(&mut self) -> Action {
        self.event(E::Refused, |http, context, now| {
            http.refuse(Error::PlainHttpOnTls, context.input, context.limits, now)
        })
    }

    fn linger(&mut self) -> Action {
        self.event(E::Linger, |http, _, now| {
            http.linger(now);
            Action::Wait
        })
    }

    fn close(&mut self) -> Action {
        self.event(E::Close, |http, _, _| {
            http.close();
            Action::Wait
        })
    }
}

/// A transition, and what brings it about in a machine that is at the stage.
type Case = (S, E, S, A, fn(&mut Driver) -> Action);

#[rustfmt::skip]
const CASES: &[Case] = &[
    (S::Proxy, E::Bytes, S::Proxy, A::Wait, |at| at.bytes("PROXY TCP4 1.2")),
    (S::Proxy, E::Bytes, S::Idle, A::EndProxy, |at| at.bytes("PROXY UNKNOWN\r\n")),
    (S::Proxy, E::Bytes, S::Head, A::EndProxy, |at| at.bytes("PROXY UNKNOWN\r\nGET ")),
    (S::Proxy, E::Bytes, S::Lingering, A::Refuse, |at| at.bytes("PROXY nobody\r\n")),
    (S::Proxy, E::End, S::Proxy, A::Close, |at| at.end(false)),
    (S::Proxy, E::Broken, S::Proxy, A::Close, Driver::broken),
    (S::Proxy, E::Time, S::Proxy, A::Wait, |at| at.after(9)),
    (S::Proxy, E::Time, S::Proxy, A::Close, |at| at.after(10)),
    (S::Proxy, E::Time, S::Lingering, A::Refuse, |at| { at.bytes("PROXY"); at.after(10) }),
    (S::Proxy, E::Close, S::Over, A::Wait, Driver::close),

    (S::Idle, E::Bytes, S::Idle, A::Wait, |at| at.bytes("\r\n")),
    (S::Idle, E::Bytes, S::Head, A::Wait, |at| at.bytes("G")),
    (S::Idle, E::Bytes, S::Body, A::Wait, |at| at.request(FIVE_BYTES)),
    (S::Idle, E::Bytes, S::Body, A::SendContinue, |at| at.request(FIVE_BYTES_ASKED_FOR)),
    (S::Idle, E::Bytes, S::Serving, A::Serve, |at| at.request(NO_BODY)),
    (S::Idle, E::Bytes, S::Lingering, A::Refuse, |at| at.bytes("\x16\x03\x01")),
    (S::Idle, E::End, S::Idle, A::Close, |at| at.end(false)),
    (S::Idle, E::Broken, S::Idle, A::Close, Driver::broken),
    (S::Idle, E::Time, S::Idle, A::Wait, |at| at.after(9)),
    (S::Idle, E::Time, S::Idle, A::LastLook, |at| at.after(10)),
    (S::Idle, E::Flushed, S::Idle, A::Wait, Driver::flushed),
    (S::Idle, E::Flushed, S::Idle, A::Rest, |at| at.flushed_before(String::new())),
    (S::Idle, E::Gathered, S::Idle, A::Close, |at| at.gathered(START.to_owned())),
    (S::Idle, E::Gathered, S::Serving, A::Serve, |at| at.gathered(format!("{START}{FIVE_BYTES}"))),
    (S::Idle, E::Gathered, S::Lingering, A::Refuse, |at| at.gathered("\n".to_owned())),
    (S::Idle, E::Refused, S::Lingering, A::Refuse, Driver::refuse),
    (S::Idle, E::Linger, S::Lingering, A::Wait, Driver::linger),
    (S::Idle, E::Close, S::Over, A::Wait, Driver::close),

    (S::Head, E::Bytes, S::Head, A::Wait, |at| at.bytes("X")),
    (S::Head, E::Bytes, S::Body, A::Wait, |at| at.bytes(FIVE_BYTES)),
    (S::Head, E::Bytes, S::Body, A::SendContinue, |at| at.bytes(FIVE_BYTES_ASKED_FOR)),
    (S::Head, E::Bytes, S::Serving, A::Serve, |at| at.bytes(NO_BODY)),
    (S::Head, E::Bytes, S::Lingering, A::Refuse, |at| at.bytes("\n")),
    (S::Head, E::End, S::Head, A::Close, |at| at.end(false)),
    (S::Head, E::Broken, S::Head, A::Close, Driver::broken),
    (S::Head, E::Time, S::Head, A::Wait, |at| at.after(9)),
    (S::Head, E::Time, S::Lingering, A::Refuse, |at| at.after(10)),
    (S::Head, E::Flushed, S::Head, A::Wait, |at| at.flushed_before("G".to_owned())),
    (S::Head, E::Flushed, S::Body, A::Wait, |at| at.flushed_before(format!("{START}{FIVE_BYTES}1"))),
    (S::Head, E::Flushed, S::Body, A::SendContinue, |at| at.flushed_before(format!("{START}{FIVE_BYTES_ASKED_FOR}"))),
    (S::Head, E::Flushed, S::Serving, A::Serve, |at| at.flushed_before(format!("{START}{NO_BODY}"))),
    (S::Head, E::Flushed, S::Lingering, A::Refuse, |at| at.flushed_before("\n".to_owned())),
    (S::Head, E::Refused, S::Lingering, A::Refuse, Driver::refuse),
    (S::Head, E::Linger, S::Lingering, A::Wait, Driver::linger),
    (S::Head, E::Close, S::Over, A::Wait, Driver::close),

    (S::Body, E::Bytes, S::Body, A::Wait, |at| at.bytes("1234")),
    (S::Body, E::Bytes, S::Serving, A::Serve, |at| at.bytes("12345")),
    (S::Body, E::Bytes, S::Lingering, A::Refuse, |at| { *at = Driver::chunked(); at.bytes("no size\r\n") }),
    (S::Body, E::End, S::Body, A::Left, |at| at.end(false)),
    (S::Body, E::End, S::Lingering, A::Refuse, |at| { *at = Driver::chunked(); at.bytes("1\r\nx"); at.end(false) }),
    (S::Body, E::Broken, S::Body, A::Left, Driver::broken),
    (S::Body, E::Time, S::Body, A::Wait, |at| at.after(19)),
    (S::Body, E::Time, S::Lingering, A::Refuse, |at| at.after(20)),
    (S::Body, E::Flushed, S::Body, A::Wait, Driver::flushed),
    (S::Body, E::Linger, S::Lingering, A::Wait, Driver::linger),
    (S::Body, E::Close, S::Over, A::Wait, Driver::close),

    (S::Serving, E::Time, S::Serving, A::Wait, |at| at.after(1_000_000)),
    (S::Serving, E::FinishedKeepAlive, S::Idle, A::Flush, |at| at.finish(true)),
    (S::Serving, E::FinishedKeepAlive, S::Head, A::Flush, |at| { at.input = b"G".to_vec(); at.finish(true) }),
    (S::Serving, E::FinishedClose, S::Closing, A::Flush, |at| at.finish(false)),
    (S::Serving, E::Flushed, S::Serving, A::Wait, Driver::flushed),
    (S::Serving, E::Close, S::Over, A::Wait, Driver::close),

    (S::Closing, E::Time, S::Closing, A::Wait, |at| at.after(1_000_000)),
    (S::Closing, E::Flushed, S::Closing, A::Close, Driver::flushed),
    (S::Closing, E::Close, S::Over, A::Wait, Driver::close),

    (S::Lingering, E::Bytes, S::Lingering, A::Wait, |at| at.bytes([0; 64 * 1024])),
    (S::Lingering, E::Bytes, S::Lingering, A::Close, |at| at.bytes([0; 64 * 1024 + 1])),
    (S::Lingering, E::End, S::Lingering, A::Wait, |at| at.end(true)),
    (S::Lingering, E::End, S::Lingering, A::Close, |at| at.end(false)),
    (S::Lingering, E::Broken, S::Lingering, A::Close, Driver::broken),
    (S::Lingering, E::Time, S::Lingering, A::Wait, |at| at.after(1)),
    (S::Lingering, E::Time, S::Lingering, A::Close, |at| at.after(2)),
    (S::Lingering, E::Flushed, S::Lingering, A::ShutDown, Driver::flushed),
    (S::Lingering, E::Close, S::Over, A::Wait, Driver::close),

    (S::Over, E::Time, S::Over, A::Wait, |at| at.after(1_000_000)),
    (S::Over, E::Linger, S::Lingering, A::Wait, Driver::linger),
    (S::Over, E::Close, S::Over, A::Wait, Driver::close),
];

impl Driver {
    /// A chunked body has begun.
    fn chunked() -> Self {
        let mut driver = Driver::new(None);
        driver.request(CHUNKED);
        driver
    }
}

#[test]
fn every_case_leads_where_it_says() {
    for (from, event, to, action, run) in CASES {
        let mut driver = Driver::at(*from);
        run(&mut driver);
        assert_eq!(driver.last, Some((*from, *event, *to, *action)));
    }
}

#[test]
fn every_transition_of_the_table_has_its_case() {
    let cases: BTreeSet<_> = CASES.iter().map(|&(from, event, to, action, _)| (from, event, to, action)).collect();
    let table: BTreeSet<_> = TABLE
        .iter()
        .flat_map(|row| row.outcomes.iter().map(|&(to, action)| (row.stage, row.event, to, action)))
        .collect();
    assert_eq!(cases, table);
}

#[test]
fn every_event_in_every_stage_is_in_the_table_or_cannot_happen() {
    for stage in STAGES {
        for event in EVENTS {
            let rows = TABLE.iter().filter(|row| (row.stage, row.event) == (*stage, *event)).count();
            let reasons = NEVER.iter().filter(|(of, events, _)| of == stage && events.contains(event)).count();
            assert_eq!(rows + reasons, 1, "{event:?} in {stage:?}");
        }
    }
}

#[test]
fn the_documented_table_is_the_data() {
    let rendered = rendered_table();
    let documented: Vec<_> =
        include_str!("mod.rs").lines().filter(|line| line.starts_with("//! |")).map(str::to_owned).collect();
    assert!(documented == rendered, "The table should be:\n{}", rendered.join("\n"));
}

const STAGES: &[S] = &[S::Proxy, S::Idle, S::Head, S::Body, S::Serving, S::Closing, S::Lingering, S::Over];

const EVENTS: &[E] = &[
    E::Bytes,
    E::End,
    E::Broken,
    E::Time,
    E::FinishedKeepAlive,
    E::FinishedClose,
    E::Flushed,
    E::Gathered,
    E::Refused,
    E::Linger,
    E::Close,
];

fn rendered_table() -> Vec<String> {
    let mut lines = vec!["//! | Stage | Event | Next stage: action |".to_owned(), "//! |---|---|---|".to_owned()];
    for stage in STAGES {
        for row in TABLE.iter().filter(|row| row.stage == *stage) {
            let outcomes: Vec<_> =
                row.outcomes.iter().map(|(to, action)| format!("{to:?}: {}", words(action))).collect();
            lines.push(format!("//! | {stage:?} | {} | {} |", words(&row.event), outcomes.join("; ")));
        }
        for (_, events, reason) in NEVER.iter().filter(|(of, ..)| of == stage) {
            let events: Vec<_> = events.iter().map(words).collect();
            lines.push(format!("//! | {stage:?} | {} | never: {reason} |", events.join(", ")));
        }
    }
    lines
}

/// A name in camel case, in words.
fn words(name: &impl std::fmt::Debug) -> String {
    let mut words = String::new();
    for letter in format!("{name:?}").chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[test]
fn a_deadline_is_the_stages() {
    let mut driver = Driver::new(None);
    let start = driver.now;
    assert_eq!(driver.http.deadline(), Some(start + 10 * SECOND), "for the first byte");
    driver.after(5);
    driver.bytes(START);
    driver.after(1);
    driver.bytes("X: y\r\n");
    assert_eq!(driver.http.deadline(), Some(start + 15 * SECOND), "from the first byte to the end of the head");
    driver.bytes(FIVE_BYTES);
    assert_eq!(driver.http.deadline(), Some(start + 26 * SECOND), "for the body's next bytes");
    driver.bytes("12345");
    assert_eq!(driver.http.deadline(), None, "the application takes its time");
    driver.finish(true);
    assert_eq!(driver.http.deadline(), None, "the response is on its way");
    driver.flushed();
    assert_eq!(driver.http.deadline(), Some(driver.now + IDLE_TIME));
    driver.http.close_by(driver.now + SECOND, &[]);
    driver.http.close_by(driver.now + 2 * SECOND, &[]);
    assert_eq!(driver.http.deadline(), Some(driver.now + SECOND), "the earlier one counts");
}

/// RFC 9112, 2.2: some clients send an empty line behind a body.
#[test]
fn a_line_end_behind_a_body_begins_no_request() {
    for pieces in [&["\r\n"][..], &["\r", "\n"]] {
        let mut driver = Driver::at(S::Serving);
        driver.finish(true);
        driver.flushed();
        let rests_until = driver.http.deadline();
        pieces.iter().for_each(|piece| drop(driver.bytes(piece)));
        assert_eq!((driver.http.stage.kind(), driver.http.deadline()), (S::Idle, rests_until), "{pieces:?}");
        assert!(matches!(driver.request(NO_BODY), Action::Serve(_)), "{pieces:?}");
    }
    let mut driver = Driver::new(None);
    assert!(matches!(driver.flushed_before("\r\n".to_owned()), Action::Rest));
    // One line is skipped, not several.
    driver.bytes("\r\n");
    assert_eq!(driver.http.stage.kind(), S::Lingering);
}

#[test]
fn under_tls_a_proxy_header_that_is_late_gets_no_page() {
    let mut driver = Driver::new(Some(ProxyMode::V1));
    assert!(driver.http.expect_tls());
    driver.bytes("PROXY");
    assert!(matches!(driver.after(10), Action::Close));
}

#[test]
fn a_streamed_body_that_is_too_long_never_counts_as_whole() {
    let mut driver = Driver::chunked();
    driver.limits.limit_request_body = Some(3);
    let Stage::Body { body, .. } = &mut driver.http.stage else { panic!("no body") };
    let mut buffer = [0; 64];
    assert_eq!(body.read(b"5\r\n12345\r\n0\r\n\r\n", &mut buffer, &driver.limits), Err(Error::ContentTooLarge));
    assert!(!body.is_done());
    assert_eq!(body.read(b"", &mut buffer, &driver.limits), Err(Error::ContentTooLarge));
}

#[test]
fn a_long_body_that_came_with_its_head_is_left_where_it_is() {
    let body = "x".repeat(5_000);
    let mut driver = Driver::new(None);
    let action = driver.request(&format!("Content-Length: 5000\r\n\r\n{body}"));
    assert!(matches!(action, Action::Serve(Received::LastBytes(5_000))), "{action:?}");
    assert!(driver.input.is_empty() && driver.body.data.is_empty(), "it was copied");
}

#[test]
fn what_the_sink_has_no_room_for_is_read_while_the_application_runs() {
    let mut driver = Driver::new(None);
    driver.body.most = 3;
    let Action::Serve(Received::Part(mut rest)) = driver.request(&format!("{FIVE_BYTES}123")) else {
        panic!("there is room");
    };
    assert_eq!((&driver.body.data[..], rest.length(), rest.is_done()), (&b"123"[..], 3, false));
    let mut buffer = [0; 10];
    assert_eq!(rest.read(b"45GET", &mut buffer, &driver.limits), Ok((2, 2)));
    assert_eq!((&buffer[..2], rest.is_done()), (&b"45"[..], true));
}

#[test]
fn a_body_that_is_too_long_is_refused_when_that_is_known() {
    let mut driver = Driver::new(None);
    driver.limits.limit_request_body = Some(4);
    let Action::Refuse(refusal) = driver.request(FIVE_BYTES) else { panic!("five are taken for four") };
    assert_eq!((refusal.error, refusal.is_head), (Error::ContentTooLarge, false));
    let mut driver = Driver::chunked();
    driver.limits.limit_request_body = Some(4);
    assert!(matches!(driver.bytes("4\r\n1234\r\n"), Action::Wait));
    assert!(matches!(driver.bytes("1\r\n5"), Action::Refuse(_)));
}

#[test]
fn a_refusal_says_whether_a_page_may_follow() {
    for (bytes, is_head) in [("HEAD / HTTP/9\r\n", true), ("\r\nHEAD x\r\n", true), ("GET / HTTP/9\r\n", false)] {
        let Action::Refuse(refusal) = Driver::new(None).bytes(bytes) else { panic!("{bytes:?} is taken") };
        assert_eq!(refusal.is_head, is_head, "{bytes:?}");
    }
}

#[test]
fn what_came_of_a_proxy_header_is_nobodys_request() {
    let mut driver = Driver::at(S::Proxy);
    driver.bytes("PROXY nobody\r\n");
    assert!(driver.input.is_empty());
    assert!(matches!(driver.http.stage(), Stage::Lingering { .. }));
}

/// However a stream is cut in two, the same requests come of it.
#[test]
fn a_border_between_two_reads_changes_nothing() {
    let stream = format!(
        "\r\n{START}{NO_BODY}{START}{FIVE_BYTES}12345{START}{CHUNKED}3\r\nabc\r\n0\r\nX: y\r\n\r\n{START}{FIVE_BYTES_ASKED_FOR}67890"
    );
    let whole = requests(&[stream.as_bytes()]);
    assert_eq!(whole, ["", "12345", "abc", "67890"]);
    for at in 0..=stream.len() {
        let (before, behind) = stream.as_bytes().split_at(at);
        assert_eq!(requests(&[before, behind]), whole, "cut at {at}");
    }
    assert_eq!(requests(&stream.as_bytes().chunks(1).collect::<Vec<_>>()), whole);
}

/// The bodies of the requests that come of these reads. All are answered at once.
fn requests(reads: &[&[u8]]) -> Vec<String> {
    let mut driver = Driver::new(None);
    let mut requests = Vec::new();
    for read in reads.iter().filter(|read| !read.is_empty()) {
        let mut action = driver.bytes(read);
        while let Action::Serve(received) = action {
            let body = match received {
                Received::NoBody => Vec::new(),
                Received::LastBytes(count) => read[read.len() - count..].to_vec(),
                Received::Stored { length, .. } => {
                    assert_eq!(length, driver.body.data.len() as u64);
                    driver.body.data.clone()
                }
                Received::Part(_) => panic!("there is room"),
            };
            requests.push(String::from_utf8(body).expect("the bodies are text"));
            driver.finish(true);
            action = driver.flushed();
        }
        assert!(matches!(action, Action::Wait | Action::Rest | Action::SendContinue), "{action:?}");
    }
    requests
}
