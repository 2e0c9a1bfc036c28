//! What an app can do to its response, right or wrong: the rows RS-01 to RS-72 and some more. Each
//! row is `GET /row` on a connection, then `GET /ok` on the same one, so a response that is mixed
//! up with the next shows.
//!
//! A row that fails answers with the 500 page, and closes; a response that has begun and cannot be
//! finished is cut, never ended as if it were whole.

use std::time::Duration;

use crate::util::client::{Broken, Client, Response};
use crate::util::server::Server;

/// What a client must see.
enum Seen {
    /// Status, framing, body; then `/ok` is answered on the same connection.
    Whole(u16, Frame, &'static [u8]),
    /// The 500 page, and a close. Nothing of the app's headers.
    Failed,
    /// A 200 of this framing that stops after these bytes, without its end; then a close.
    Cut(Frame, &'static [u8]),
}

use Seen::{Cut, Failed, Whole};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Frame {
    Length(usize),
    Chunked,
    /// Neither: no body follows, whatever the headers say.
    None,
}

use Frame::{Chunked, Length};

/// id of the row in the fault table, path in `apps/responses.py`, what must be seen.
const ROWS: &[(&str, &str, Seen)] = &[
    ("RS-01", "baseline", Whole(200, Length(2), b"ok")),
    ("RS-02", "short-body", Cut(Length(10), b"hello")),
    ("RS-05", "long-body-in-blocks", Whole(200, Length(5), b"hello")),
    ("RS-06", "long-body-in-one-block", Whole(200, Length(5), b"hello")),
    ("RS-07", "one-block", Whole(200, Chunked, b"hello")),
    ("RS-09", "two-blocks", Whole(200, Chunked, b"helloworld")),
    ("RS-12", "empty-block-inside", Whole(200, Chunked, b"helloworld")),
    ("RS-13", "starts-inside-generator", Whole(200, Chunked, b"hello")),
    ("RS-14", "never-starts", Failed),
    ("RS-15", "never-starts-empty", Failed),
    ("RS-16", "no-blocks", Whole(200, Chunked, b"")),
    ("RS-17", "returns-none", Failed),
    ("RS-18", "str-block", Failed),
    ("RS-19", "bytes-as-iterable", Failed),
    ("RS-20", "bytearray-block", Failed),
    ("RS-21", "memoryview-block", Failed),
    ("WS-40", "none-block", Failed),
    ("WS-40", "bytes-subclass", Whole(200, Chunked, b"hello")),
    ("RS-22", "204-body", Whole(204, Frame::None, b"")),
    ("RS-23", "204-length-body", Whole(204, Frame::None, b"")),
    ("RS-24", "304-length-body", Whole(304, Length(5), b"")),
    ("RS-26", "status-100", Failed),
    ("RS-27", "status-101", Failed),
    ("RS-28", "crlf-in-value", Failed),
    ("RS-29", "lf-in-value", Failed),
    ("RS-30", "nul-in-value", Failed),
    ("RS-31", "crlf-in-name", Failed),
    ("RS-32", "space-in-name", Failed),
    ("RS-33", "empty-name", Failed),
    ("RS-34", "crlf-in-status", Failed),
    ("RS-35", "int-status", Failed),
    ("RS-36", "bare-status", Whole(200, Chunked, b"hello")),
    ("RS-37", "two-digit-status", Failed),
    ("RS-38", "status-999", Whole(999, Chunked, b"hello")),
    ("RS-39", "bytes-header", Failed),
    ("RS-40", "int-header", Failed),
    ("RS-41", "latin1-header", Whole(200, Chunked, b"hello")),
    ("RS-42", "euro-header", Failed),
    ("RS-43", "headers-as-tuple", Whole(200, Chunked, b"hello")),
    ("RS-44", "hop-by-hop", Whole(200, Chunked, b"hello")),
    ("RS-45", "own-chunks", Whole(200, Chunked, b"5\r\nhello\r\n0\r\n\r\n")),
    ("RS-46", "two-lengths", Failed),
    ("RS-47", "length-abc", Failed),
    ("RS-48", "length-negative", Failed),
    ("RS-49", "kept-headers", Whole(200, Chunked, b"hello")),
    ("RS-50", "date-and-server", Whole(200, Chunked, b"hello")),
    ("RS-51", "raises-early", Failed),
    ("RS-52", "raises-after-start", Failed),
    ("RS-53", "raises-at-first-block", Failed),
    ("WS-23", "raises-after-empty-block", Failed),
    ("RS-54", "raises-at-second-block-chunked", Cut(Chunked, b"hello")),
    ("RS-55", "raises-at-second-block-length", Cut(Length(10), b"hello")),
    ("RS-56", "replaced-by-exc-info", Whole(500, Chunked, b"oops")),
    ("RS-57", "exc-info-after-write", Cut(Chunked, b"hello")),
    ("RS-58", "starts-twice", Failed),
    ("RS-59", "write", Whole(200, Chunked, b"one two three")),
    ("RS-61", "write-with-length", Whole(200, Length(11), b"hello world")),
    ("RS-65", "base-exception", Failed),
    ("WS-48", "memory-error", Failed),
    ("WS-48", "recursion-error", Failed),
    ("RS-71", "close-raises", Whole(200, Length(2), b"ok")),
    ("WS-29", "getitem-only", Whole(200, Chunked, b"onetwo")),
    ("WS-31", "lying-len", Whole(200, Chunked, b"onetwothree")),
    ("WS-33", "str-subclass-header", Whole(200, Chunked, b"hello")),
    ("WS-34", "mutated-headers", Whole(200, Chunked, b"hello")),
    ("WS-37", "exhausted-iterator", Whole(200, Chunked, b"")),
];

/// Rows whose iterable counts its close() calls: each must be 1 for each request, whatever went
/// wrong.
const CLOSED_ONCE: &[&str] = &[
    "baseline",
    "short-body",
    "long-body-in-blocks",
    "one-block",
    "204-body",
    "304-length-body",
    "str-block",
    "never-starts",
    "never-starts-empty",
    "starts-inside-generator",
    "raises-at-first-block",
    "raises-after-empty-block",
    "raises-at-second-block-chunked",
    "raises-at-second-block-length",
    "write",
    "close-raises",
];

#[test]
fn every_row_is_answered_as_the_table_says() {
    let mut server = Server::start("responses", []);
    let faults: Vec<String> = ROWS.iter().filter_map(|(id, path, seen)| check(&server, id, path, seen)).collect();
    assert!(faults.is_empty(), "{} rows:\n{}", faults.len(), faults.join("\n"));
    let closed = server.get("/closed").json();
    for name in CLOSED_ONCE {
        assert_eq!(closed[name].number(), 1.0, "close() calls of {name}");
    }
    server.allow("");
    server.finish();
}

#[test]
fn a_head_request_gets_the_headers_of_get_and_no_body() {
    let mut server = Server::start("responses", []);
    for (path, length) in [("short-body", Some(10)), ("one-block", None), ("two-blocks", None), ("write", None)] {
        let mut client = server.connect();
        let head = client.request("HEAD", &format!("/{path}"), &[], b"");
        assert_eq!((head.status, head.content_length()), (200, length), "{path}");
        assert_eq!(client.get("/ok").body, b"ok", "{path}: nothing of a body came between");
    }
    server.allow("");
    server.finish();
}

#[test]
fn http_1_0_gets_no_chunks() {
    let server = Server::start("responses", []);
    for (path, body) in [("two-blocks", &b"helloworld"[..]), ("write", b"one two three"), ("no-blocks", b"")] {
        let mut client = server.connect();
        client.send(format!("GET /{path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
        let response = client.read();
        assert_eq!(response.all("Transfer-Encoding"), [""; 0], "{path}");
        assert_eq!(response.body, body, "{path}: delimited by the close");
        assert!(response.says_close(), "{path}");
    }
    server.finish();
}

#[test]
fn a_traceback_is_logged_once_for_a_failed_request() {
    let mut server = Server::start("responses", []);
    assert_eq!(server.get("/raises-early").status, 500);
    server.wait_for_log("Error handling request GET /raises-early");
    server.wait_for_log("ValueError: raised before start_response");
    assert_eq!(server.log().matches("Traceback (most recent call last)").count(), 1);
    for text in ["Error handling request", "Traceback", "raises"] {
        server.allow(text);
    }
    server.finish();
}

#[test]
fn an_app_that_raises_to_end_the_process_gets_a_500_and_service_goes_on() {
    let mut server = Server::start("responses", []);
    for path in ["/system-exit", "/keyboard-interrupt", "/generator-exit"] {
        assert_eq!(server.get(path).status, 500, "{path}: never a connection without an answer");
        assert_eq!(server.get("/ok").body, b"ok", "after {path}");
    }
    server.allow("");
    server.finish();
}

#[test]
fn the_errors_stream_reaches_the_error_log() {
    let server = Server::start("responses", []);
    assert_eq!(server.get("/errors-stream").body, b"ok");
    server.wait_for_log("na\u{ef}ve \u{20ac} one\ntwo\nthree\nfour\n");
    server.finish();
}

fn check(server: &Server, id: &str, path: &str, seen: &Seen) -> Option<String> {
    let mut client = server.connect();
    client.send(format!("GET /{path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    let fault = match (seen, client.read_within("GET", Duration::from_secs(5))) {
        (Whole(status, frame, body), Ok(response)) => whole(&response, *status, *frame, body)
            .or_else(|| headers(path, &response))
            .or_else(|| goes_on(&mut client)),
        (Failed, Ok(response)) => failed(&response).or_else(|| closes(&mut client)),
        (Cut(frame, body), Err(Broken::Truncated(response))) => whole(&response, 200, *frame, body),
        (_, other) => Some(format!("{other:?}")),
    };
    fault.map(|fault| format!("{id} /{path}: {fault}"))
}

fn whole(response: &Response, status: u16, frame: Frame, body: &[u8]) -> Option<String> {
    let found = match (response.is_chunked(), response.content_length()) {
        (true, None) => Chunked,
        (false, Some(length)) => Length(length),
        (false, None) => Frame::None,
        (true, Some(_)) => return Some("both a length and chunks".to_string()),
    };
    let same = (response.status, found, &response.body[..]) == (status, frame, body);
    (!same).then(|| format!("{} {found:?} {:?}", response.status, response.text()))
}

fn goes_on(client: &mut Client) -> Option<String> {
    let sent = client.try_send("GET /ok HTTP/1.1\r\nHost: test\r\n\r\n");
    match sent.is_ok().then(|| client.read_within("GET", Duration::from_secs(5))) {
        Some(Ok(next)) if next.body == b"ok" => None,
        other => Some(format!("the next request on the connection got {other:?}")),
    }
}

/// The page of a 500, with nothing of what the app had said.
fn failed(response: &Response) -> Option<String> {
    let right = response.status == 500
        && response.reason == "Internal Server Error"
        && response.says_close()
        && response.names() == ["Connection", "Content-Type", "Content-Length"]
        && response.text().contains("<h1><p>Internal Server Error</p></h1>");
    (!right).then(|| format!("{} {:?} {:?}", response.status, response.headers, response.text()))
}

fn closes(client: &mut Client) -> Option<String> {
    match client.read_within("GET", Duration::from_secs(3)) {
        Err(Broken::Closed) => None,
        other => Some(format!("not closed: {other:?}")),
    }
}

/// What the headers of single rows must be.
fn headers(path: &str, response: &Response) -> Option<String> {
    let own: Vec<(&str, &[u8])> =
        response.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).skip(4).collect();
    let wanted: &[(&str, &[u8])] = match path {
        "latin1-header" => &[("Content-Type", b"text/plain"), ("X-A", b"\xe9")],
        "hop-by-hop" | "headers-as-tuple" | "mutated-headers" | "str-subclass-header" => {
            &[("Content-Type", b"text/plain"), ("X-A", b"1")]
        }
        "date-and-server" | "own-chunks" => &[("Content-Type", b"text/plain")],
        "replaced-by-exc-info" => &[("Content-Type", b"text/plain"), ("X-New", b"1")],
        "kept-headers" => &[
            ("Content-Type", b"text/plain"),
            ("Set-Cookie", b"b=2"),
            ("X-A", b"1"),
            ("x-a", b"2"),
            ("Set-Cookie", b"a=1"),
            ("X-Empty", b""),
        ],
        "bare-status" => return (!response.reason.is_empty()).then(|| format!("reason {:?}", response.reason)),
        _ => return None,
    };
    (own != wanted).then(|| format!("headers {own:?}"))
}
