//! The catalogue of request cases, and properties of whole byte streams: the parser and the decoder
//! together, as the connection uses them. What only a socket can show (closing, waiting) is left to
//! the tests of the program.

use serde::Deserialize;

use super::body::BodyDecoder;
use super::error::{Error, ErrorPage};
use super::header_cache::HeaderCache;
use super::policy::{Policy, UnderscoredNames};
use super::request::{HeadParser, RequestHead, Scheme, Status, decode_path};

const CATALOGUE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/http-cases.json"));

#[derive(Deserialize)]
struct Catalogue {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    ours: String,
    steps: Vec<Step>,
    gunicorn: Measured,
}

#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    send: Vec<Piece>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Once(String),
    Repeated(String, usize),
}

#[derive(Deserialize)]
struct Measured {
    #[serde(default)]
    statuses: Vec<String>,
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in self.steps.iter().flat_map(|step| &step.send) {
            let (text, times) = match piece {
                Piece::Once(text) => (text, 1),
                Piece::Repeated(text, times) => (text, *times),
            };
            let latin1: Vec<u8> = text.chars().map(|character| u8::try_from(character).unwrap()).collect();
            bytes.extend(latin1.repeat(times));
        }
        bytes
    }
}

fn catalogue() -> Vec<Case> {
    let file = config::File::from_str(CATALOGUE, config::FileFormat::Json);
    let catalogue = config::Config::builder().add_source(file).build().unwrap();
    catalogue.try_deserialize::<Catalogue>().unwrap().cases
}

/// One request that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    method: Vec<u8>,
    path: Vec<u8>,
    query: Vec<u8>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    keep_alive: bool,
    expect_continue: bool,
    scheme: Option<Scheme>,
}

impl Request {
    fn of(head: &RequestHead, buf: &[u8]) -> Self {
        let source = head.source(buf);
        Request {
            method: head.method.of(source).to_vec(),
            path: decode_path(head.path.of(source)).into_owned(),
            query: head.query.of(source).to_vec(),
            headers: head.headers(source).map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            body: Vec::new(),
            keep_alive: head.keep_alive,
            expect_continue: head.expect_continue,
            scheme: head.forwarded_scheme,
        }
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let mut found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
        found.next().map(|(_, value)| &value[..])
    }
}

/// How a stream of bytes ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// Between two requests.
    Idle,
    /// In the middle of one.
    Unfinished,
    /// After a request that is the connection's last.
    Close,
    Refused(u16),
}

/// A connection without a socket.
struct Model<'p> {
    policy: &'p Policy,
    trusted: bool,
    parser: HeadParser,
    known: HeaderCache,
    head: RequestHead,
    buffer: Vec<u8>,
    body: Option<(Request, BodyDecoder)>,
    finished: Vec<Request>,
    closed: Option<End>,
    refusal: Option<Error>,
}

impl<'p> Model<'p> {
    fn new(policy: &'p Policy, trusted: bool) -> Self {
        Model {
            policy,
            trusted,
            parser: HeadParser::new(),
            known: HeaderCache::new(),
            head: RequestHead::default(),
            buffer: Vec::new(),
            body: None,
            finished: Vec::new(),
            closed: None,
            refusal: None,
        }
    }

    fn feed(&mut self, segment: &[u8]) {
        self.buffer.extend_from_slice(segment);
        while self.closed.is_none() {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    self.closed = Some(End::Refused(error.status()));
                    self.refusal = Some(error);
                }
            }
        }
    }

    fn step(&mut self) -> Result<bool, Error> {
        let Some((request, decoder)) = &mut self.body else {
            return self.step_head();
        };
        if decoder.is_done() {
            self.closed = (!request.keep_alive).then_some(End::Close);
            self.finished.push(self.body.take().unwrap().0);
            return Ok(true);
        }
        let decoded = decoder.decode(&self.buffer)?;
        request.body.extend_from_slice(decoded.data);
        assert!(decoded.consumed > 0 || decoded.data.is_empty());
        let consumed = decoded.consumed;
        self.buffer.drain(..consumed);
        Ok(consumed > 0)
    }

    fn step_head(&mut self) -> Result<bool, Error> {
        if self.parser.parse(&self.buffer, self.policy, self.trusted, Some(&mut self.known), &mut self.head)?
            == Status::Partial
        {
            return Ok(false);
        }
        self.parser = HeadParser::with_hint(self.parser.hint());
        let request = Request::of(&self.head, &self.buffer);
        self.body = Some((request, BodyDecoder::new(self.head.framing, self.policy)));
        self.buffer.drain(..self.head.len);
        Ok(true)
    }

    fn end(&self) -> End {
        match &self.closed {
            Some(end) => end.clone(),
            None if self.body.is_none() && self.buffer.is_empty() => End::Idle,
            None => End::Unfinished,
        }
    }
}

fn run<'a>(segments: impl Iterator<Item = &'a [u8]>, policy: &Policy, trusted: bool) -> (Vec<Request>, End) {
    let mut model = Model::new(policy, trusted);
    segments.for_each(|segment| model.feed(segment));
    let end = model.end();
    (model.finished, end)
}

fn run_whole(bytes: &[u8]) -> (Vec<Request>, End) {
    run([bytes].into_iter(), &Policy::default(), true)
}

fn run_bytewise(bytes: &[u8]) -> (Vec<Request>, End) {
    run(bytes.chunks(1), &Policy::default(), true)
}

/// The same bytes on a second connection, when the header cache knows their header blocks.
fn run_again(bytes: &[u8]) -> (Vec<Request>, End) {
    let policy = Policy::default();
    let mut first = Model::new(&policy, true);
    first.feed(bytes);
    let mut second = Model { known: first.known, ..Model::new(&policy, true) };
    second.feed(bytes);
    let end = second.end();
    (second.finished, end)
}

/// What the catalogue asks for: how many requests reach the application, and how the stream may
/// end.
struct Verdict {
    /// Requests that reach the application; `None` when the row does not say.
    requests: Option<usize>,
    ends: Vec<End>,
}

fn verdict(case: &Case) -> Verdict {
    let accepted = |requests| Verdict { requests, ends: vec![End::Idle, End::Close] };
    let unfinished = |requests| Verdict { requests: Some(requests), ends: vec![End::Unfinished, End::Idle] };
    match case.ours.as_str() {
        "200 then 400c" => Verdict { requests: Some(1), ends: vec![End::Refused(400)] },
        "all answered, in order" => accepted(Some(case.gunicorn.statuses.len())),
        "2 answers, HEAD bodiless" | "2nd method is XGET" | "2 answers, keep-alive echoed" => accepted(Some(2)),
        // The bytes behind a body of length 0 begin another request.
        "accept decimal" if case.id.starts_with("CL-18") => Verdict { requests: Some(1), ends: vec![End::Unfinished] },
        "accept; 2 answers" | "200,200" | "200,200 or 200c+Connection: close" => accepted(Some(2)),
        text if text.starts_with("1 answer, close") || text.starts_with("parity 200c") => {
            Verdict { requests: Some(1), ends: vec![End::Close] }
        }
        "close (or 400c); never 200" | "no 200; read() raises; close" | "silent close, no traceback" => unfinished(0),
        "wait→408c; RSS flat; app not called" | "needs 10 bytes, never 8" | "100,200 or 200c; no desync" => {
            unfinished(0)
        }
        text => match refusals(text) {
            refusals if refusals.is_empty() => accepted(None),
            refusals => Verdict { requests: Some(0), ends: refusals },
        },
    }
}

/// The statuses in a text such as `501c/400c, never CL`, which begins with them.
fn refusals(text: &str) -> Vec<End> {
    let starts_with_refusal = text.len() > 3 && text.as_bytes()[3] == b'c' && text.starts_with(['4', '5']);
    if !starts_with_refusal {
        return Vec::new();
    }
    let words = text.split(['/', ' ', ',', ';']);
    let statuses = words.filter_map(|word| word.strip_suffix('c')?.parse().ok());
    statuses.map(End::Refused).collect()
}

#[test]
fn every_row_of_the_catalogue_in_one_segment_and_byte_by_byte() {
    let cases = catalogue();
    assert_eq!(cases.len(), 364);
    let mut wrong = Vec::new();
    for case in &cases {
        let bytes = case.bytes();
        let (requests, end) = run_whole(&bytes);
        let verdict = verdict(case);
        let is_right = verdict.requests.is_none_or(|count| count == requests.len()) && verdict.ends.contains(&end);
        if !is_right {
            wrong.push(format!("{}: {} but {} requests, {end:?}", case.id, case.ours, requests.len()));
        }
        if let Some(length) = expected_body(&case.ours) {
            assert_eq!(requests[0].body.len(), length, "{}", case.id);
        }
        let expected = (requests, end);
        if run_bytewise(&bytes) != expected {
            wrong.push(format!("{}: not the same byte by byte", case.id));
        }
        if run_again(&bytes) != expected {
            wrong.push(format!("{}: not the same when its header blocks are known", case.id));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The number in `accept [5]`.
fn expected_body(ours: &str) -> Option<usize> {
    ours.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

#[test]
fn what_the_application_sees_in_rows_that_say_so() {
    let cases = catalogue();
    let requests = |id: &str| {
        let case = cases.iter().find(|case| case.id.starts_with(id)).expect(id);
        run_whole(&case.bytes()).0
    };
    for (id, path) in [
        ("TG-01", &b"/x"[..]),
        ("TG-04", b"/"),
        ("TG-07", b"*"),
        ("TG-14", b"/p"),
        ("TG-21", b"/a\0b"),
        ("TG-22", b"/a\r\nX: y"),
        ("TG-23", b"/a%"),
        ("TG-24", b"/a%zz"),
        ("TG-25", b"/a/b"),
        ("TG-26", b"/a/../../etc"),
        ("TG-27", b"//a/b"),
        ("TG-28", b"///a"),
        ("TG-29", b"/a\\b"),
        ("TG-33", b"/\xe2\x80\x8e/\xc3\xa9"),
    ] {
        assert_eq!(requests(id)[0].path, path, "{id}");
    }
    for (id, name, value) in [
        ("HN-25", "X-Forwarded-For", Some(&b"1.1.1.1"[..])),
        ("HN-25", "X_Forwarded_For", None),
        ("HN-17", "X_A", None),
        ("HN-20", "Content_Length", None),
        ("HV-11", "X", Some(b"caf\xc3\xa9")),
        ("HV-14", "X", Some(b"v")),
        ("HV-15", "X", Some(b"\xa0v\x85")),
        ("HV-16", "X", Some(b"")),
        ("HV-17", "X", Some(b"")),
        ("PX-03", "SCRIPT_NAME", Some(b"/app")),
        ("PX-06", "Remote_User", None),
        ("PX-10", "Content_Type", None),
        ("TR-12", "X-Forwarded-For", None),
    ] {
        assert_eq!(requests(id)[0].header(name), value, "{id} {name}");
    }
    assert_eq!(requests("CL-35")[1].method, b"XGET");
    assert_eq!(requests("PX-01")[0].scheme, Some(Scheme::Https));
    assert_eq!(requests("PX-07")[0].scheme, Some(Scheme::Http));
    assert!(requests("EX-03")[0].expect_continue);
    assert!(!requests("EX-05")[0].expect_continue);
    assert_eq!(requests("HV-23")[0].headers.len(), 3);
}

#[test]
fn any_split_of_a_stream_gives_the_same_requests() {
    let streams: [&[u8]; 14] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\nGET /a?b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n\r\nGET /c HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\nZ:\r\n\r\nGET / H",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"\r\r\nGET / HTTP/1.1\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nBAD\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\ntunnel",
    ];
    for stream in streams {
        let whole = run_whole(stream);
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let segments = [&stream[..first], &stream[first..second], &stream[second..]];
                let split = run(segments.into_iter(), &Policy::default(), true);
                assert_eq!(split, whole, "{:?} at {first} and {second}", String::from_utf8_lossy(stream));
            }
        }
    }
}

#[test]
fn limits_are_hit_at_the_same_byte_however_the_stream_is_cut() {
    let policy = Policy {
        limit_request_line: 20,
        limit_request_fields: 3,
        limit_request_field_size: 12,
        permit_obsolete_folding: true,
        ..Policy::default()
    };
    let cases: [(&str, End); 14] = [
        ("GET /aaaaaa HTTP/1.1\r\nHost: a\r\n\r\n", End::Idle),
        ("GET /aaaaaaa HTTP/1.1\r\nHost: a\r\n\r\n", End::Refused(414)),
        ("GET /aaaaaaaaaaaaaaaa", End::Refused(414)),
        ("GET /aaaaaaaaaaaaaaa\r", End::Unfinished),
        ("GET /aaaaaaaaaaaaaaaa\n", End::Refused(414)),
        ("GET / HTTP/1.1\r\nHost: a\r\nXX: 123456\r\n\r\n", End::Idle),
        ("GET / HTTP/1.1\r\nHost: a\r\nXX: 1234567\r\n\r\n", End::Refused(431)),
        ("GET / HTTP/1.1\r\nHost: a\r\nXX: 12345678", End::Refused(431)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 23\r\n\r\n", End::Idle),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 234567\r\n\r\n", End::Refused(431)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX: y\r\n\r\n", End::Idle),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX: y\r\nX: y\r\n", End::Refused(431)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX: y\r\nX: y", End::Unfinished),
        ("GET / HTTP/1.1\r\nHost: a\r\nXX: 1234567\nY", End::Refused(431)),
    ];
    for (stream, end) in cases {
        assert_eq!(run([stream.as_bytes()].into_iter(), &policy, true).1, end, "{stream:?}");
        assert_eq!(run(stream.as_bytes().chunks(1), &policy, true).1, end, "{stream:?} byte by byte");
    }
}

#[test]
fn compatibility_switches_forgive_what_they_name_and_no_more() {
    type Case<'a> = (fn(&mut Policy), &'a str, Option<(&'a str, &'a str)>);
    let folding: fn(&mut Policy) = |policy| policy.permit_obsolete_folding = true;
    let spaces: fn(&mut Policy) = |policy| policy.strip_header_spaces = true;
    let no_host: fn(&mut Policy) = |policy| policy.permit_missing_host = true;
    let refuse: fn(&mut Policy) = |policy| policy.header_map = UnderscoredNames::Refuse;
    let dangerous: fn(&mut Policy) = |policy| policy.header_map = UnderscoredNames::Dangerous;
    let cases: [Case<'_>; 15] = [
        (folding, "Host: a\r\nX: a \r\n\t b\r\n  c\r\nY: d\r\n", Some(("X", "a b c"))),
        (folding, "Host: a\r\nX:\r\n b\r\n", Some(("X", "b"))),
        (folding, " Host: a\r\n", None),
        (folding, "Host: a\r\nX : b\r\n", None),
        (folding, "Host: a\r\nX: a\r\n b\0\r\n", None),
        (folding, "Host: a\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 1\r\n", None),
        (spaces, "Host: a\r\nX \t: b\r\n", Some(("X", "b"))),
        (spaces, "Host: a\r\nContent-Length : 1\r\nContent-Length: 1\r\n", None),
        (spaces, "Host: a\r\nX: a\r\n b\r\n", None),
        (no_host, "X: a\r\n", Some(("X", "a"))),
        (no_host, "Host:\r\n", Some(("Host", ""))),
        (no_host, "Host: a b\r\n", None),
        (refuse, "Host: a\r\nX_Y: z\r\n", None),
        (dangerous, "Host: a\r\nX_Y: z\r\n", Some(("X_Y", "z"))),
        (|_| {}, "Host: a\r\nX_Y: z\r\nZ: 1\r\n", Some(("Z", "1"))),
    ];
    for (switch, headers, expected) in cases {
        let mut policy = Policy::default();
        switch(&mut policy);
        let stream = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        let (requests, end) = run([stream.as_bytes()].into_iter(), &policy, true);
        match expected {
            Some((name, value)) => assert_eq!(requests[0].header(name), Some(value.as_bytes()), "{headers:?}"),
            None => assert_eq!((requests.len(), end), (0, End::Refused(400)), "{headers:?}"),
        }
    }
}

#[test]
fn a_casefolded_method_is_the_only_thing_changed() {
    let policy = Policy { casefold_http_method: true, permit_unconventional_http_method: true, ..Policy::default() };
    for (stream, method, path) in [
        ("\r\nget /Path?q HTTP/1.1\r\nHost: A\r\n\r\n", "GET", "/Path"),
        ("options * HTTP/1.1\r\nHost: A\r\n\r\n", "OPTIONS", "*"),
    ] {
        let (requests, end) = run([stream.as_bytes()].into_iter(), &policy, true);
        assert_eq!((requests.len(), end), (1, End::Idle));
        assert_eq!(requests[0].method, method.as_bytes());
        assert_eq!(requests[0].path, path.as_bytes());
        assert_eq!(requests[0].header("Host"), Some(&b"A"[..]));
    }
}

#[test]
fn only_a_trusted_peer_sets_the_scheme_and_sends_underscores() {
    let stream =
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\nSCRIPT_NAME: /x\r\n\r\n";
    let policy = Policy::default();
    let (requests, _) = run([&stream[..]].into_iter(), &policy, false);
    assert_eq!(requests[0].scheme, None);
    assert_eq!(requests[0].header("SCRIPT_NAME"), None);
    assert_eq!(requests[0].header("X-Forwarded-Proto"), Some(&b"https"[..]));
    assert_eq!(run([&stream[..]].into_iter(), &policy, true).1, End::Refused(400));
}

#[test]
fn a_head_can_be_filled_again_and_more_fields_than_usual_are_read() {
    let fields: String = (0..90).map(|number| format!("X{number}: {number}\r\n")).collect();
    let stream = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    let (requests, end) = run_whole(stream.as_bytes());
    assert_eq!((requests.len(), end), (2, End::Idle));
    assert_eq!(requests[0].headers.len(), 91);
    assert_eq!(requests[0].header("X89"), Some(&b"89"[..]));
    assert_eq!(requests[1].headers.len(), 1);
}

#[test]
fn error_pages_are_gunicorns_but_for_their_date() {
    let cases: [(&[u8], &str, &str); 12] = [
        (
            b"BAD\r\n\r\n",
            "400 Bad Request",
            "Invalid Request Line &#x27;Invalid HTTP request line: &#x27;BAD&#x27;&#x27;",
        ),
        (
            b"get / HTTP/1.1\r\n\r\n",
            "400 Bad Request",
            "Invalid Method &#x27;Invalid HTTP method: &#x27;get&#x27;&#x27;",
        ),
        (b"GET / HTTP/2.0\r\n\r\n", "400 Bad Request", "Invalid HTTP Version &#x27;Invalid HTTP Version: (2, 0)&#x27;"),
        (
            b"GET / HTTP/x\r\n\r\n",
            "400 Bad Request",
            "Invalid HTTP Version &#x27;Invalid HTTP Version: &#x27;HTTP/x&#x27;&#x27;",
        ),
        (b"GET / HTTP/1.1\r\nX\xe9\r\n\r\n", "400 Bad Request", "Invalid HTTP Header: &#x27;X\u{e9}&#x27;"),
        (b"GET / HTTP/1.1\r\nX : y\r\n\r\n", "400 Bad Request", "Invalid HTTP header name: &#x27;X &#x27;"),
        (
            b"GET / HTTP/1.1\r\nxa: y\r\n z\r\n\r\n",
            "400 Bad Request",
            "Obsolete line folding is unacceptable: &#x27;XA&#x27;",
        ),
        (b"GET / HTTP/1.1\r\nxa: \0\r\n\r\n", "400 Bad Request", "Invalid HTTP Header: &#x27;XA&#x27;"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nExpect: f'\"\r\n\r\n",
            "417 Expectation Failed",
            "Unable to comply with expectation: &#x27;f\\&#x27;&quot;&#x27;",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: <\r\n\r\n",
            "501 Not Implemented",
            "Unsupported transfer coding: &#x27;&lt;&#x27;",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\xff\r\n",
            "400 Bad Request",
            "Invalid chunk size: b&#x27;z\\xff&#x27;",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naXX",
            "400 Bad Request",
            "Invalid chunk terminator is not &#x27;\\r\\n&#x27;: b&#x27;XX&#x27;",
        ),
    ];
    let policy = Policy::default();
    for (stream, status, message) in cases {
        let mut model = Model::new(&policy, true);
        model.feed(stream);
        let error = model.refusal.expect(message);
        let reason = &status[4..];
        let page = format!(
            "<html>\n  <head>\n    <title>{reason}</title>\n  </head>\n  <body>\n    <h1><p>{reason}</p></h1>\n    \
             {message}\n  </body>\n</html>\n"
        );
        let length = page.chars().count();
        let date = if error.status() < 500 { "Date: today\r\n" } else { "" };
        let expected = format!(
            "HTTP/1.1 {status}\r\n{date}Connection: close\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}"
        );
        let latin1: Vec<u8> = expected.chars().map(|character| u8::try_from(character).unwrap()).collect();
        let page = ErrorPage { status: error.status(), message: &error.message(), is_head: false, lines: b"" };
        let ours = page.render(b"today");
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&latin1));
        assert_eq!(ours, latin1);
    }
}
