//! Responses as they stand on the wire: head, framing, blocks, files, interim answers.

use std::time::{Duration, Instant};

use crate::util::client::Response;
use crate::util::server::{Plan, Server};
use crate::util::wait_until;

#[test]
fn the_head_is_gunicorns() {
    let server = Server::start("responses", []);
    let response = server.get("/baseline");
    assert_eq!(response.names(), ["Server", "Date", "Connection", "Content-Type", "Content-Length"]);
    assert_eq!((response.version.as_str(), response.reason.as_str()), ("HTTP/1.1", "OK"));
    assert_eq!(response.header("Server"), Some("monoceros"));
    assert_eq!(response.header("Connection"), Some("keep-alive"));
    let date = response.header("Date").expect("a Date");
    assert!(date.len() == 29 && date.ends_with(" GMT") && &date[3..5] == ", ", "{date:?} is no IMF-fixdate");

    let chunked = server.get("/one-block");
    let names = ["Server", "Date", "Connection", "Transfer-Encoding", "Content-Type"];
    assert_eq!(chunked.names(), names);
    server.finish();
}

/// PEP 3333 asks for tuples; gunicorn takes whatever unpacks into two.
#[test]
fn a_header_may_be_any_pair() {
    let app = "def application(environ, start_response):\n\
               \x20   pair = {'/list': ['X-A', 'b'], '/iterator': iter(('X-A', 'b')), '/three': ['X-A', 'b', 'c'],\n\
               \x20           '/one': ['X-A'], '/text': 'XA', '/number': ['X-A', 1]}[environ['PATH_INFO']]\n\
               \x20   start_response('200 OK', [['Content-Length', '0'], pair])\n\
               \x20   return []\n";
    let mut server = Plan::app("app").in_own_folder().file("app.py", app).start();
    for path in ["/list", "/iterator"] {
        assert_eq!(server.get(path).header("X-A"), Some("b"), "{path}");
    }
    for path in ["/three", "/one", "/text", "/number"] {
        assert_eq!(server.get(path).status, 500, "{path}");
        server.wait_for_log("TypeError: a response header must be a (name, value) pair of two str");
        server.allow("");
    }
    server.finish();
}

/// The server finds them in its cache; their effect still depends on the other headers.
#[test]
fn headers_that_are_the_same_objects_say_the_same_and_no_more() {
    let mut server = Server::start("responses", []);
    let names =
        ["plain", "raises", "plain", "no-content", "plain", "other-order", "twice", "plain", "other-text", "plain"];
    for name in names.into_iter().chain(names) {
        let response = server.get(&format!("/same/{name}"));
        let expected = match name {
            "plain" | "other-order" => (200, "OK", Some(2)),
            "other-text" => (200, "Fine", Some(2)),
            "no-content" => (204, "No Content", None),
            _ => (500, "Internal Server Error", None),
        };
        let length = response.content_length().filter(|_| response.status < 500);
        assert_eq!((response.status, response.reason.as_str(), length), expected, "{name}");
        if response.status == 200 {
            assert_eq!(
                (response.text().as_str(), response.header("Content-Type")),
                ("ok", Some("text/plain")),
                "{name}"
            );
            let is_first = response.names().iter().position(|known| *known == "Content-Type") < Some(4);
            assert_eq!(is_first, name != "other-order", "{name}");
        }
    }
    server.allow("Error handling request");
    server.allow("Traceback");
    server.finish();
}

#[test]
fn chunk_sizes_are_upper_case_hex() {
    let server = Server::start("responses", []);
    let mut client = server.connect();
    client.send("GET /file-without-length HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let raw = client.take_rest(Duration::from_secs(10));
    let body = &raw[memchr::memmem::find(&raw, b"\r\n\r\n").expect("a head") + 4..];
    let line = &body[..memchr::memchr(b'\r', body).expect("a chunk")];
    assert!(line.iter().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()), "{line:?}");
    assert!(raw.ends_with(b"0\r\n\r\n"));
    server.finish();
}

#[test]
fn each_block_of_a_generator_leaves_at_once() {
    let server = Server::start("flask_site", []);
    let mut client = server.connect();
    let start = Instant::now();
    client.send("GET /events?pause=5 HTTP/1.1\r\nHost: test\r\n\r\n");
    client.read_until(b"data: first\n\n");
    assert!(start.elapsed() < Duration::from_secs(4), "the first block waited for the second");
    client.read_until(b"data: second\n\n");
    server.finish();
}

#[test]
fn a_file_is_sent_whole_cut_or_from_its_offset() {
    for unix in [false, true] {
        let mut server = if unix { Plan::app("responses").unix().start() } else { Server::start("responses", []) };
        let mut client = server.connect();
        assert_eq!(client.get("/file").body, pattern(0..100_000));
        assert_eq!(client.get("/file-without-length").body, pattern(0..100_000));
        assert_eq!(client.get("/file-shorter-length").body, pattern(0..10));
        assert_eq!(client.get("/file-at-offset").body, pattern(99_990..100_000));
        assert_eq!(client.get("/file-bytesio").body, pattern(0..100_000));
        assert_eq!(client.get("/file-iterated").body, pattern(0..20_000));
        // One end of the chunks, not two: the connection must stay in step.
        assert_eq!(client.get("/file-empty").body, b"");
        assert_eq!(client.get("/ok").body, b"ok");
        let closed = client.get("/closed").json();
        for name in
            ["file", "file-without-length", "file-shorter-length", "file-at-offset", "file-empty", "file-bytesio"]
        {
            assert_eq!(closed[name].number(), 1.0, "close() calls of {name}");
        }
        // The file that was cut short.
        server.allow("Content-Length");
        server.finish();
    }
}

#[test]
fn a_file_without_sendfile_is_the_same() {
    let server = Server::start("responses", ["--no-sendfile"]);
    assert_eq!(server.get("/file").body, pattern(0..100_000));
    assert_eq!(server.get("/file-at-offset").body, pattern(99_990..100_000));
    server.finish();
}

#[test]
fn a_head_request_for_a_file_sends_nothing_and_closes_it() {
    let server = Server::start("responses", []);
    let mut client = server.connect();
    assert_eq!(client.request("HEAD", "/file", &[], b"").content_length(), Some(100_000));
    assert_eq!(client.get("/closed").json()["file"].number(), 1.0);
    server.finish();
}

#[test]
fn a_file_shorter_than_its_length_ends_the_connection() {
    let mut server = Server::start("responses", []);
    let mut client = server.connect();
    client.send("GET /file-longer-length HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.read_head().expect("a head");
    assert_eq!(head.content_length(), Some(200_000));
    assert_eq!(client.take_rest(Duration::from_secs(10)), pattern(0..100_000));
    server.allow("");
    server.finish();
}

#[test]
fn big_blocks_and_many_blocks_arrive_whole() {
    let server = Server::start("responses", []);
    let big = server.get("/big-block");
    assert!(big.body.len() == 20_000_000 && big.body.iter().all(|&byte| byte == b'x'));
    assert_eq!(server.get("/many-blocks").body.len(), 20_000);
    server.finish();
}

#[test]
fn a_client_that_does_not_read_delays_no_other_for_ever() {
    // 20 MB do not fit any socket buffer: what the kernel will not take waits without stopping the
    // others, up to the point where the app itself must wait. With two workers one is always free.
    let server = Server::start("responses", ["--workers", "2"]);
    server.wait_for_workers(2);
    let mut stalled = server.connect();
    stalled.send("GET /big-block HTTP/1.1\r\nHost: test\r\n\r\n");
    stalled.read_until(b"\r\n\r\n");
    for _ in 0..20 {
        assert_eq!(server.get("/ok").body, b"ok");
    }
    drop(stalled);
    server.finish();
}

#[test]
fn early_hints_go_out_before_the_response() {
    let mut server = Server::start("responses", []);
    let response = server.get("/early-hints");
    assert_eq!(response.body, b"ok");
    let hints = String::from_utf8_lossy(&response.interim[0]).into_owned();
    assert!(hints.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{hints:?}");
    assert!(hints.contains("Link: </a.css>; rel=preload\r\n"), "{hints:?}");
    assert!(response.interim[0].windows(14).any(|line| line == b"X-Bytes: caf\xe9\r"), "{hints:?}");
    assert_eq!(hints.matches(": ").count(), 2, "no framing, which an interim response has not: {hints:?}");

    let mut old = server.connect();
    old.send("GET /early-hints HTTP/1.0\r\n\r\n");
    assert!(old.read().interim.is_empty(), "HTTP/1.0 knows no interim answers");

    let invalid = server.get("/early-hints-invalid");
    assert_eq!((invalid.status, invalid.interim.len()), (500, 0), "a header line cannot be smuggled in");
    server.allow("");
    server.finish();
}

#[test]
fn an_app_may_take_the_socket_and_leave_by_stop_iteration() {
    let mut server = Server::start("responses", []);
    let mut client = server.connect();
    client.send("GET /socket HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.take_rest(Duration::from_secs(5)), b"taken over by the app\n");
    assert_eq!(server.get("/ok").body, b"ok");
    server.allow("");
    server.finish();
}

#[test]
fn close_is_called_when_the_client_goes_away_in_the_middle() {
    let server = Server::start("flask_site", []);
    let mut client = server.connect();
    client.send("GET /stream?lines=100000000 HTTP/1.1\r\nHost: test\r\n\r\n");
    client.read_until(b"/stream 10\n");
    drop(client);
    // The only worker serves again: it has stopped iterating.
    wait_until("an answer after the client left", || answers(&server));
    server.finish();
}

#[test]
fn a_worker_outlives_a_broken_pipe() {
    let server = Server::start("responses", []);
    let worker = server.wait_for_workers(1);
    for _ in 0..20 {
        let mut client = server.connect();
        client.send("GET /big-block HTTP/1.1\r\nHost: test\r\n\r\n");
        client.read_until(b"\r\n\r\n");
    }
    assert_eq!(server.get("/ok").body, b"ok");
    assert_eq!(server.workers(), worker);
    server.finish();
}

fn answers(server: &Server) -> bool {
    let mut client = server.connect();
    client.send("GET /count HTTP/1.1\r\nHost: test\r\n\r\n");
    client.read_within("GET", Duration::from_millis(500)).is_ok_and(|response: Response| response.status == 200)
}

fn pattern(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(|index| (index % 251) as u8).collect()
}
