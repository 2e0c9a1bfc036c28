//! What must hold for any input, for the fuzzer and for the short run in
//! `tests/fuzz_short.rs`.
//!
//! Common to all targets: the first byte chooses the settings, the next two where the stream is cut
//! into segments, the rest is the stream. Any segmentation must lead to the same requests and the
//! same verdict as all bytes at once; nothing may panic, read past what there is, or go on after a
//! refusal. What is accepted must mean the same when it is written out again.
#![allow(dead_code, reason = "each target uses one of the functions")]

use std::borrow::Cow;
use std::io::{ErrorKind, Read, Write};
use std::mem::discriminant;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use monoceros::exchange::{Body, Exchange, Hint};
use monoceros::http::body::BodyDecoder;
use monoceros::http::connection::{Action, BodySink, Context, Http1, Received, Room};
use monoceros::http::encode::{BodyEncoder, LengthFault};
use monoceros::http::error::Error;
use monoceros::http::header_cache::HeaderCache;
use monoceros::http::policy::{Policy, UnderscoredNames};
use monoceros::http::proxy::{self, Origin, Parsed, ProxyMode};
use monoceros::http::request::{Coding, Framing, HeadParser, RequestHead, Scheme, Status, Version, decode_path};
use monoceros::http::response::{Asked, BodyPlan};
use monoceros::http::uwsgi;
use monoceros::settings::{Config, Protocol, ProxyProtocol};
use monoceros::sys::socket::{Peer, Stream};
use monoceros::worker::connection::{Connection, Request as ServedRequest, SharedConnection, Step, lock, share};
use monoceros::worker::connection_limits::ConnectionLimits;
use monoceros::worker::read_context::ReadContext;

/// Longer streams only take longer; this length fits a socket's buffer.
const LONGEST: usize = 32 * 1024;

/// The request head.
pub fn head(data: &[u8]) {
    let Some(input) = Input::read(data) else { return };
    let policy = input.policy();
    let trusted = input.flags & 0x80 != 0;
    let mut parsed = RequestHead::default();
    // The second parser may find header blocks that the first one has cached.
    let mut known = HeaderCache::new();
    let whole = HeadParser::new().parse(input.stream, &policy, trusted, Some(&mut known), &mut parsed);

    let (mut parser, mut other) = (HeadParser::new(), RequestHead::default());
    let mut verdict = Ok(Status::Partial);
    for end in input.ends() {
        verdict = parser.parse(&input.stream[..end], &policy, trusted, Some(&mut known), &mut other);
        if verdict != Ok(Status::Partial) {
            break;
        }
    }
    match (&whole, &verdict) {
        (Ok(Status::Complete), Ok(Status::Complete)) => {
            let request = Request::of(&parsed, input.stream, Vec::new());
            assert_eq!(request, Request::of(&other, input.stream, Vec::new()));
            assert_eq!(parsed.len, other.len);
            assert!(parsed.len <= input.stream.len());
            if input.flags == 0 {
                expect_same_again(&request, &policy);
            }
        }
        (Ok(one), Ok(other)) => assert_eq!(one, other),
        (Err(one), Err(other)) => assert_same_error(one, other),
        (one, other) => panic!("at once {one:?}, in pieces {other:?}"),
    }
}

/// The chunked body.
pub fn chunked(data: &[u8]) {
    let Some(input) = Input::read(data) else { return };
    let policy = input.policy();
    let whole = decode(&policy, input.stream, [input.stream.len()]);
    let pieces = decode(&policy, input.stream, input.ends());
    assert_eq!(whole.data, pieces.data);
    assert_eq!((whole.used, whole.is_done), (pieces.used, pieces.is_done));
    match (&whole.error, &pieces.error) {
        (Some(one), Some(other)) => assert_same_error(one, other),
        (one, other) => assert_eq!(one, other),
    }
}

/// The response's framing: blocks of the stream go through the encoder, and what comes out means
/// what went in.
pub fn response(data: &[u8]) {
    let Some(input) = Input::read(data) else { return };
    let version = match input.flags & 0x81 {
        0 => Version::Http11,
        1 => Version::Http10,
        _ => Version::Uwsgi,
    };
    let asked = [Asked::Whole, Asked::Head, Asked::Tunnel][usize::from(input.flags >> 1 & 3) % 3];
    let status = [200, 204, 205, 304, 404][usize::from(input.flags >> 3 & 7) % 5];
    let length = (input.flags & 0x40 != 0).then_some(u64::from(input.seed));
    let mut encoder = BodyEncoder::new(asked, version, status, length);
    let (mut wire, mut start) = (Vec::new(), 0);
    for end in input.ends() {
        let block = &input.stream[start..end];
        let framed = encoder.frame(&mut wire, block.len(), end == input.stream.len());
        wire.extend_from_slice(&block[..framed.admitted]);
        wire.extend_from_slice(framed.tail);
        start = end;
    }
    let admitted = usize::try_from(encoder.admitted()).expect("no more than the stream");
    let body = &input.stream[..admitted];
    let excess = (input.stream.len() - admitted) as u64;
    match encoder.plan() {
        BodyPlan::None => assert!(wire.is_empty() && admitted == 0),
        BodyPlan::UntilClose => assert!(wire == body && excess == 0),
        BodyPlan::Length(promised) => {
            assert!(wire == body && admitted as u64 <= promised);
            let fault = match promised.checked_sub(admitted as u64) {
                Some(missing) if missing > 0 => Some(LengthFault::Missing(missing)),
                _ => (excess > 0).then_some(LengthFault::Excess(excess)),
            };
            assert_eq!(encoder.length_fault(), fault);
        }
        BodyPlan::Chunked => {
            let decoded = decode(&Policy::default(), &wire, [wire.len()]);
            assert!(decoded.is_done && decoded.error.is_none() && decoded.used == wire.len());
            assert!(decoded.data == body && excess == 0);
        }
    }
}

/// The PROXY header.
pub fn proxy(data: &[u8]) {
    let Some(input) = Input::read(data) else { return };
    let mode = [ProxyMode::V1, ProxyMode::V2, ProxyMode::Auto][usize::from(input.flags % 3)];
    let whole = proxy::parse(input.stream, mode);
    let growing = input.ends().map(|end| proxy::parse(&input.stream[..end], mode));
    let verdict = growing.into_iter().find(|parsed| *parsed != Ok(Parsed::Partial)).unwrap_or(Ok(Parsed::Partial));
    match (&whole, &verdict) {
        (Err(one), Err(other)) => assert_same_error(one, other),
        (one, other) => assert_eq!(one, other),
    }
    if let Ok(Parsed::Header { len, .. }) = whole {
        assert!(len <= input.stream.len());
        assert!(len <= 16 + 4096, "a header of {len} bytes was waited for");
    }
}

/// The packet of the uwsgi protocol, by itself and on a connection.
pub fn uwsgi(data: &[u8]) {
    let Some(input) = Input::read(data) else { return };
    let (policy, is_allowed) = (input.policy(), input.flags & 0x80 == 0);
    let mut parsed = RequestHead::default();
    let whole = uwsgi::parse(input.stream, &policy, is_allowed, &mut parsed);

    let mut other = RequestHead::default();
    let growing = input.ends().map(|end| uwsgi::parse(&input.stream[..end], &policy, is_allowed, &mut other));
    let verdict = growing.into_iter().find(|parsed| *parsed != Ok(Status::Partial)).unwrap_or(Ok(Status::Partial));
    match (&whole, &verdict) {
        (Ok(Status::Complete), Ok(Status::Complete)) => {
            let request = Request::of(&parsed, input.stream, Vec::new());
            assert_eq!(request, Request::of(&other, input.stream, Vec::new()));
            assert!(parsed.len == other.len && parsed.len <= input.stream.len());
            assert!(is_allowed && !request.keep_alive && !matches!(request.framing, Framing::Chunked(_)));
            let is_servers_own =
                |(name, _): &(Vec<u8>, Vec<u8>)| name.starts_with(b"wsgi.") || name.starts_with(b"HTTP_");
            assert!(!request.vars.iter().any(is_servers_own), "{:?}", request.vars);
            expect_same_packet(&request, &policy);
        }
        (Err(one), Err(other)) => assert_same_error(one, other),
        (one, other) => assert_eq!(one, other),
    }

    let rules = rules_of(Spoken::Uwsgi, input.flags);
    let whole = converse_by(&rules, input.stream, &[input.stream.len()], Finish::WithTheLast);
    assert!(whole.requests.len() <= 1, "one request a connection");
    let pieces = converse_by(&rules, input.stream, &input.ends().collect::<Vec<_>>(), Finish::AfterTheLast);
    assert_eq!(whole, pieces);
}

/// Written out as a packet it is the same request.
fn expect_same_packet(request: &Request, policy: &Policy) {
    let mut pairs = Vec::new();
    let mut put = |name: &[u8], value: &[u8]| {
        for text in [name, value] {
            pairs.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
            pairs.extend_from_slice(text);
        }
    };
    put(b"REQUEST_METHOD", &request.method);
    put(b"PATH_INFO", &decode_path(&request.path));
    put(b"QUERY_STRING", &request.query);
    put(b"SERVER_PROTOCOL", &request.version);
    for (name, value) in &request.headers {
        let is_content = [&b"CONTENT-TYPE"[..], b"CONTENT-LENGTH"].contains(&&name[..]);
        let key = name.iter().map(|&byte| if byte == b'-' { b'_' } else { byte }).collect::<Vec<_>>();
        put(&[if is_content { &b""[..] } else { b"HTTP_" }, &key].concat(), value);
    }
    put(
        b"wsgi.url_scheme",
        match request.scheme {
            None => b"",
            Some(Scheme::Http) => b"http",
            Some(Scheme::Https) => b"https",
        },
    );
    request.vars.iter().for_each(|(name, value)| put(name, value));
    // What was said implicitly may not fit any more.
    let Ok(length) = u16::try_from(pairs.len()) else { return };
    let [low, high] = length.to_le_bytes();
    let packet = [&[0, low, high, 0][..], &pairs].concat();
    let mut head = RequestHead::default();
    match uwsgi::parse(&packet, policy, true, &mut head) {
        Ok(Status::Complete) => {
            let again = Request::of(&head, &packet, Vec::new());
            // The target is made of path and query where nobody has said it.
            assert_eq!(Request { target: request.target.clone(), ..again }, *request);
        }
        Err(Error::InvalidUwsgiPacket("too many variables")) => {}
        other => panic!("accepted, and then {other:?}: {}", packet.escape_ascii()),
    }
}

/// The connection, with an application that answers everything, over a socket pair; and its state
/// machine over slices.
pub fn connection(data: &[u8]) {
    let Some(input) = Input::read(data) else { return };
    let whole = converse(input.flags, input.stream, &[input.stream.len()], Finish::WithTheLast);
    let pieces = converse(input.flags, input.stream, &input.ends().collect::<Vec<_>>(), Finish::AfterTheLast);
    assert_eq!(whole, pieces);
    assert_eq!(whole, converse_without_a_socket(input.flags, input.stream, input.ends()));
}

/// A fuzzer's input, taken apart.
struct Input<'a> {
    flags: u8,
    seed: u16,
    stream: &'a [u8],
}

impl<'a> Input<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let (&[flags, high, low], stream) = data.split_first_chunk()?;
        let stream = &stream[..stream.len().min(LONGEST)];
        Some(Input { flags, seed: u16::from_be_bytes([high, low]), stream })
    }

    fn policy(&self) -> Policy {
        policy(self.flags)
    }

    /// Where the segments end, the last at the stream's end: all of one length where the seed is
    /// small, of varying lengths else.
    fn ends(&self) -> impl Iterator<Item = usize> + use<'a> {
        let length = self.stream.len();
        let mut state = u32::from(self.seed);
        let mut end = 0;
        let mut is_last = false;
        std::iter::from_fn(move || {
            if is_last {
                return None;
            }
            let step = if state < 256 {
                state as usize
            } else {
                state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345) | 0x8000_0000;
                (state >> 16) as usize % 23
            };
            end = (end + step + 1).min(length);
            is_last = end == length;
            Some(end)
        })
    }
}

fn policy(flags: u8) -> Policy {
    Policy {
        permit_obsolete_folding: flags & 1 != 0,
        strip_header_spaces: flags & 2 != 0,
        permit_unconventional_http_method: flags & 4 != 0,
        permit_unconventional_http_version: flags & 8 != 0,
        casefold_http_method: flags & 16 != 0,
        permit_missing_host: flags & 32 != 0,
        header_map: if flags & 64 != 0 { UnderscoredNames::Dangerous } else { UnderscoredNames::Drop },
        ..Policy::default()
    }
}

/// What an application would see of a request.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// Of the request line.
    pub method: Vec<u8>,
    /// As it was sent.
    pub target: Vec<u8>,
    path: Vec<u8>,
    query: Vec<u8>,
    version: Vec<u8>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of a packet.
    vars: Vec<(Vec<u8>, Vec<u8>)>,
    framing: Framing,
    scheme: Option<Scheme>,
    keep_alive: bool,
    expect_continue: bool,
    /// Decoded.
    pub body: Vec<u8>,
}

impl Request {
    fn of(head: &RequestHead, buffer: &[u8], body: Vec<u8>) -> Self {
        let source = head.source(buffer);
        let text = |span: monoceros::http::request::Span| span.of(source).to_vec();
        Request {
            method: text(head.method),
            target: text(head.target),
            path: text(head.path),
            query: text(head.query),
            version: text(head.version_text),
            headers: head.headers(source).map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            vars: head.vars(source).map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            framing: head.framing,
            scheme: head.forwarded_scheme,
            keep_alive: head.keep_alive,
            expect_continue: head.expect_continue,
            body,
        }
    }
}

/// Written out in the plainest form, it is the same request: no header hides another, no framing
/// another length.
fn expect_same_again(request: &Request, policy: &Policy) {
    let mut text = [&request.method[..], b" ", &request.target, b" ", &request.version, b"\r\n"].concat();
    for (name, value) in &request.headers {
        text.extend([&name[..], b": ", value, b"\r\n"].concat());
    }
    text.extend(b"\r\n");
    let mut head = RequestHead::default();
    let verdict = HeadParser::new().parse(&text, policy, false, None, &mut head);
    // Dropped headers and trimmed values make it shorter, a space after each colon longer: so only
    // the limit may object.
    match verdict {
        Ok(Status::Complete) => assert_eq!(*request, Request::of(&head, &text, Vec::new())),
        Err(Error::LimitRequestHeaders(_)) => {}
        other => panic!("accepted, and then {other:?}: {}", text.escape_ascii()),
    }
}

struct Outcome {
    data: Vec<u8>,
    used: usize,
    is_done: bool,
    error: Option<Error>,
}

fn decode(policy: &Policy, stream: &[u8], ends: impl IntoIterator<Item = usize>) -> Outcome {
    let mut decoder = BodyDecoder::new(Framing::Chunked(Coding::Identity), policy);
    let mut outcome = Outcome { data: Vec::new(), used: 0, is_done: false, error: None };
    for end in ends {
        while outcome.used < end && !decoder.is_done() {
            match decoder.decode(&stream[outcome.used..end]) {
                Ok(decoded) => {
                    assert!(decoded.consumed > 0 && outcome.used + decoded.consumed <= end);
                    outcome.used += decoded.consumed;
                    outcome.data.extend_from_slice(decoded.data);
                }
                Err(error) => {
                    // How far framing was used up before it was found to be wrong depends on the
                    // pieces; the data does not.
                    outcome.used = 0;
                    outcome.error = Some(error);
                    return outcome;
                }
            }
        }
    }
    outcome.is_done = decoder.is_done();
    outcome
}

fn assert_same_error(one: &Error, other: &Error) {
    assert_eq!(discriminant(one), discriminant(other), "{one:?} and {other:?}");
}

/// The outcome of a connection.
#[derive(Debug, Default, PartialEq)]
pub struct Conversation {
    /// Those that the application was called with.
    pub requests: Vec<Request>,
    /// The client of each request, and what a PROXY header said of it.
    pub clients: Vec<(String, Option<Origin>)>,
    /// The status of a refusal.
    pub refused: Option<u16>,
    /// The last answer said that it is the last.
    is_over: bool,
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// When the connection learns that the client has ended its side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Finish {
    /// With the last bytes, in one event: there will be no other.
    WithTheLast,
    /// In an event of its own.
    AfterTheLast,
}

/// Sends `stream` in segments that end at `ends`, the last of them at its end, and says what came
/// of it.
pub fn converse(flags: u8, stream: &[u8], ends: &[usize], finish: Finish) -> Conversation {
    converse_by(&rules(flags), stream, ends, finish)
}

fn converse_by(rules: &Arc<ConnectionLimits>, stream: &[u8], ends: &[usize], finish: Finish) -> Conversation {
    let (mut client, server) = UnixStream::pair().expect("a socket pair");
    client.set_nonblocking(true).expect("a socket can be made non-blocking");
    server.set_nonblocking(true).expect("a socket can be made non-blocking");
    let now = Instant::now();
    let connection = share(Connection::new(Stream::from(OwnedFd::from(server)), Peer::Unix, 0, rules.clone(), now));
    let mut conversation = Conversation::default();
    let mut read_context = ReadContext::new();
    let mut start = 0;
    for &end in ends {
        client.write_all(&stream[start..end]).expect("the connection is open, and its buffer large enough");
        start = end;
        let ended = finish == Finish::WithTheLast && end == stream.len();
        if ended {
            client.shutdown(Shutdown::Write).expect("a socket can be shut down");
        }
        if !go_on(&connection, &mut conversation, &mut read_context, &mut client, ended, now) {
            return conversation;
        }
        assert!(!ended, "the connection waits for a client that sends nothing more");
    }
    client.shutdown(Shutdown::Write).expect("a socket can be shut down");
    let is_open = go_on(&connection, &mut conversation, &mut read_context, &mut client, true, now);
    assert!(!is_open, "the connection waits for a client that sends nothing more");
    conversation
}

/// Lets the connection do all that it can; false once it is closed.
fn go_on(
    shared: &SharedConnection,
    conversation: &mut Conversation,
    read_context: &mut ReadContext,
    client: &mut UnixStream,
    ended: bool,
    now: Instant,
) -> bool {
    let mut step = lock(shared).on_readable(read_context, ended, 1, now);
    loop {
        drain(client);
        let mut connection = lock(shared);
        step = match step {
            Step::Wait | Step::Settled => return true,
            Step::Send => {
                let step = connection.on_readable(read_context, false, 1, now);
                assert_eq!(step, Step::Wait, "what is put by comes before what is read");
                connection.on_writable(now)
            }
            Step::Again => match connection.on_writable(now) {
                Step::Wait | Step::Settled => connection.on_readable(read_context, false, 1, now),
                step => step,
            },
            Step::Call => {
                assert!(!conversation.is_over && conversation.refused.is_none(), "a request behind the end");
                // As if there were others, every second time.
                let has_company = conversation.requests.len() % 2 == 1;
                let request = connection.check_out(shared, 0, has_company);
                drop(connection);
                let (request, keep_alive) = answer(request, conversation);
                conversation.is_over = !keep_alive;
                let served = request.give_back(|connection| {
                    read_context.return_buffer(connection.take_returned());
                    connection.finish(keep_alive, now)
                });
                served.step
            }
            Step::Check | Step::LiveCheck => connection.answer_check(true, now),
            Step::File => panic!("no files are mapped here"),
            Step::LastLook => connection.end(now),
            Step::Refused(error) => {
                assert!(!conversation.is_over && conversation.refused.is_none(), "a refusal behind the end");
                conversation.refused = Some(error.status());
                Step::Again
            }
            Step::TlsFailed(reason) => panic!("no TLS is spoken here: {reason}"),
            Step::Close | Step::Left | Step::Stalled => return false,
        };
    }
}

/// The same of the protocol's state alone, over slices of the `stream`.
pub fn converse_without_a_socket(flags: u8, stream: &[u8], ends: impl Iterator<Item = usize>) -> Conversation {
    let mut conversation = Conversation::default();
    let mut machine = Machine::new(flags);
    let mut start = 0;
    for end in ends.filter(|&end| end > 0) {
        if !machine.read(&stream[start..end], &mut conversation) {
            return conversation;
        }
        start = end;
    }
    if let Action::Refuse(refusal) = machine.http.on_eof(false, &mut machine.input, &machine.rules.http, machine.now) {
        conversation.refused = Some(refusal.error.status());
    }
    conversation
}

/// A connection's state, and what is its caller's.
struct Machine {
    http: Http1,
    rules: Arc<ConnectionLimits>,
    input: Vec<u8>,
    head: RequestHead,
    body: Gathered,
    origin: Option<Origin>,
    now: Instant,
}

/// A body, kept whole.
struct Gathered(Vec<u8>);

impl BodySink for &mut Gathered {
    fn begin(&mut self, _: Option<u64>) {
        self.0.clear();
    }

    fn add(&mut self, data: Cow<'_, [u8]>) -> Room {
        self.0.extend_from_slice(&data);
        Room::Left
    }
}

impl Machine {
    fn new(flags: u8) -> Self {
        let (rules, now) = (rules(flags), Instant::now());
        let (input, head, body) = (Vec::new(), RequestHead::default(), Gathered(Vec::new()));
        Machine { http: Http1::new(&rules.http, now), rules, input, head, body, origin: None, now }
    }

    /// Goes as far as the bytes lead; false when that is the connection's end.
    fn read(&mut self, bytes: &[u8], conversation: &mut Conversation) -> bool {
        let mut action = self.act(|http, context, now| http.on_bytes(bytes, context, now));
        loop {
            action = match action {
                Action::Wait | Action::Rest | Action::SendContinue => return true,
                Action::EndProxy(origin) => {
                    self.origin = origin;
                    if self.input.is_empty() {
                        return true;
                    }
                    self.act(|http, context, now| http.on_bytes(&[], context, now))
                }
                Action::Serve(received) => {
                    let keep_alive = self.answer(bytes, received, conversation);
                    self.http.finish(keep_alive, &self.input, self.now);
                    if !keep_alive {
                        conversation.is_over = true;
                        return false;
                    }
                    self.act(|http, context, now| http.on_flushed(Duration::ZERO, context, now))
                }
                Action::Refuse(refusal) => {
                    conversation.refused = Some(refusal.error.status());
                    return false;
                }
                action => panic!("nothing but bytes has come: {action:?}"),
            };
        }
    }

    fn act(&mut self, act: impl FnOnce(&mut Http1, Context<'_, &mut Gathered>, Instant) -> Action) -> Action {
        let origin = self.origin.as_ref();
        let is_trusted = origin.is_none_or(|origin| self.rules.trusts_origin(origin, &Peer::Unix));
        let context = Context {
            limits: &self.rules.http,
            is_trusted,
            known: None,
            input: &mut self.input,
            head: &mut self.head,
            sink: &mut self.body,
        };
        act(&mut self.http, context, self.now)
    }

    /// Takes the request off the input; says whether another may follow.
    fn answer(&mut self, bytes: &[u8], received: Received, conversation: &mut Conversation) -> bool {
        let body = match received {
            Received::NoBody => Vec::new(),
            Received::LastBytes(count) => bytes[bytes.len() - count..].to_vec(),
            Received::Stored { length, .. } => {
                assert_eq!(length, self.body.0.len() as u64);
                self.body.0.clone()
            }
            Received::Part(_) => panic!("there is room"),
        };
        conversation.requests.push(Request::of(&self.head, &self.input, body));
        let client = match self.origin {
            Some(Origin::Client { client, .. }) => client.ip().to_string(),
            _ => String::new(),
        };
        conversation.clients.push((client, self.origin));
        self.input.drain(..self.head.len);
        self.head.keep_alive && self.rules.keeps_alive()
    }
}

fn answer(mut request: Box<ServedRequest>, conversation: &mut Conversation) -> (Box<ServedRequest>, bool) {
    let Body::Memory(buffer, range) = request.take_body() else { panic!("the settings keep bodies in memory") };
    let body = buffer[range].to_vec();
    request.return_buffer(buffer);
    let view = request.request();
    conversation.requests.push(Request::of(view.head, view.buffer, body));
    conversation.clients.push((view.client.remote_addr.to_owned(), view.client.proxied.copied()));
    let keep_alive = request.may_keep_alive(true);
    let hint = if keep_alive { Hint::LastOfResponse } else { Hint::Now };
    assert_eq!(request.send(&[ANSWER], hint).expect("the client is there"), ANSWER.len());
    (request, keep_alive)
}

fn drain(client: &mut UnixStream) {
    let mut sink = [0; 4096];
    loop {
        match client.read(&mut sink) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy)]
enum Spoken {
    Http,
    Uwsgi,
}

fn rules(flags: u8) -> Arc<ConnectionLimits> {
    rules_of(Spoken::Http, flags)
}

/// Rules for each byte of flags, made once.
fn rules_of(spoken: Spoken, flags: u8) -> Arc<ConnectionLimits> {
    static RULES: [OnceLock<Vec<Arc<ConnectionLimits>>>; 2] = [OnceLock::new(), OnceLock::new()];
    let protocol = [Protocol::Http, Protocol::Uwsgi][spoken as usize];
    let rules = RULES[spoken as usize].get_or_init(|| {
        let base = Config { protocol, body_buffer: LONGEST, ..Config::default() };
        let with = |flags: u8| {
            let proxy_protocol = if flags & 0x80 != 0 { ProxyProtocol::Auto } else { ProxyProtocol::Off };
            let mut rules = ConnectionLimits::new(&Config { proxy_protocol, ..base.clone() });
            rules.http.policy = policy(flags);
            Arc::new(rules)
        };
        (0..=u8::MAX).map(with).collect()
    });
    rules[usize::from(flags)].clone()
}
