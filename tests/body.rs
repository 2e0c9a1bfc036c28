//! Request bodies: framing, Expect, slow and broken senders, memory and disk.

use std::time::Duration;

use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};

use crate::util::client::Broken;
use crate::util::process;
use crate::util::server::{Plan, Server, send};
use crate::util::{PATIENCE, wait_until};

#[test]
fn bodies_of_every_size_arrive_whole() {
    let server = Server::start("echo", []);
    let mut client = server.connect();
    for size in [0, 1, 4095, 4096, 65_535, 262_144, 262_145, 3_000_000] {
        let body: Vec<u8> = (0..size).map(|index| b'a' + (index % 26) as u8).collect();
        let seen = client.request("POST", "/", &[], &body).json();
        assert_eq!(seen["body_length"].number() as usize, size);
        assert!(seen["body"].text().as_bytes() == body, "a body of {size} bytes came out different");
    }
    server.finish();
}

/// A worker that was stopped finds all of them at once: more than it keeps buffers for.
#[test]
fn bodies_that_come_together_keep_apart() {
    let server = Server::start("echo", []);
    let worker = server.wait_for_workers(1)[0];
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    let body = |round: usize, client: usize| vec![b'!' + client as u8; 2_500 + 1_300 * client + round];
    for round in 0..4 {
        send(worker, SIGSTOP);
        for (number, client) in clients.iter_mut().enumerate() {
            let body = body(round, number);
            client.send(format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()));
            client.send(&body);
        }
        send(worker, SIGCONT);
        for (number, client) in clients.iter_mut().enumerate() {
            let seen = client.read().json();
            assert!(seen["body"].text().as_bytes() == body(round, number), "client {number}, round {round}");
        }
    }
    server.finish();
}

#[test]
fn a_chunked_body_is_like_one_with_a_length_when_it_is_there() {
    let server = Server::start("echo", []);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n");
    let seen = client.read().json();
    assert_eq!(seen["body"], "hello world");
    assert_eq!(seen["CONTENT_LENGTH"], "11");
    for key in ["HTTP_TRANSFER_ENCODING", "HTTP_X_TRAILER"] {
        assert!(seen.get(key).is_none(), "{key}");
    }
    server.finish();
}

/// If the stream ends where a CRLF is due, the body is malformed and the client gets an answer, as
/// in gunicorn. If data is missing, the client has broken off.
#[test]
fn a_chunked_body_without_its_last_line_end_is_refused() {
    let plan = Plan::app("echo");
    let access = plan.path("access").display().to_string();
    let mut server = plan.args(["--access-logfile", &access]).start();
    let tails =
        ["5\r\nhello\r\n0\r\n", "5\r\nhello\r\n0\r\n\r", "0\r\nX: y", "0\r\nX: y\r\n", "5\r\nhello", "5\r\nhello\r"];
    for tail in tails {
        for pieces in [1, tail.len()] {
            let mut client = server.connect();
            client.send("POST /cut HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
            tail.as_bytes().chunks(tail.len().div_ceil(pieces)).for_each(|piece| client.send(piece));
            client.shutdown_write();
            let refusal = client.read();
            assert_eq!((refusal.status, refusal.says_close()), (400, true), "{tail:?}");
            assert!(refusal.text().contains("Invalid chunk terminator"), "{}", refusal.text());
            client.expect_closed(Duration::from_secs(5));
        }
    }
    assert_eq!(server.get("/calls").json().number(), 0.0);
    wait_until("an access line each", || {
        std::fs::read_to_string(&access)
            .is_ok_and(|log| log.matches("\"POST /cut HTTP/1.1\" 400 ").count() == 2 * tails.len())
    });
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn the_app_is_called_only_when_the_body_is_there() {
    let server = Server::start("echo", []);
    let mut slow = server.connect();
    slow.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello");
    // One worker with one thread: inside the app it could not answer.
    for _ in 0..3 {
        assert_eq!(server.get("/calls").status, 200);
    }
    assert_eq!(server.get("/calls").json().number(), 0.0);
    slow.send("world");
    assert_eq!(slow.read().json()["body"], "helloworld");
    server.finish();
}

#[test]
fn many_slow_senders_delay_no_other_client() {
    let server = Server::start("echo", []);
    let mut slow: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    }
    for byte in ["5", "\r\n", "hel", "lo\r", "\n0\r\n", "\r\n"] {
        slow.iter_mut().for_each(|client| client.send(byte));
        assert_eq!(server.get("/calls").status, 200);
    }
    for client in &mut slow {
        assert_eq!(client.read().json()["body"], "hello");
    }
    server.finish();
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let server = Server::start("echo", []);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.read_until(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    assert_eq!(client.read().json()["body"], "hello");
    server.finish();
}

#[test]
fn a_body_that_breaks_off_never_reaches_the_app() {
    let mut server = Server::start("echo", []);
    for begun in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhel"] {
        let mut client = server.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: test\r\n{begun}"));
        client.shutdown_write();
        match client.read_for("POST") {
            Err(Broken::Closed) => {}
            Ok(answer) => assert_eq!(answer.status, 400),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(server.get("/calls").json().number(), 0.0);
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn a_refused_upload_still_gets_its_answer() {
    // The refusal must not be lost in a reset while the client is still sending.
    let mut server = Server::start("echo", []);
    let mut client = server.connect();
    let head = "POST / HTTP/1.1\r\nHost: test\r\nExpect: something\r\nContent-Length: 50000\r\n\r\n";
    client.send([head.as_bytes(), &vec![b'x'; 50_000]].concat());
    let refusal = client.read();
    assert_eq!((refusal.status, refusal.says_close()), (417, true));
    client.expect_closed(Duration::from_secs(5));
    server.allow("Invalid request");
    server.finish();
}

/// What lies in the way of the next request is not read by the server.
#[test]
fn no_connection_is_promised_to_a_client_whose_body_the_app_leaves_unread() {
    let app = "def application(environ, start_response):\n\
        \x20   if environ['PATH_INFO'] == '/read': environ['wsgi.input'].read()\n\
        \x20   start_response('426 Upgrade Required', [('Connection', 'upgrade'), ('Content-Length', '2')]\n\
        \x20       if environ['PATH_INFO'] == '/upgrade' else [('Content-Length', '2')])\n\
        \x20   return iter([b'ok']) if environ['PATH_INFO'] == '/iterated' else [b'ok']\n";
    let plan = Plan::app("app").in_own_folder().file("app.py", app);
    let server = plan.args(["--body-buffer", "1000", "--body-spool", "0"]).start();
    let cases = [("/", "close"), ("/iterated", "close"), ("/upgrade", "upgrade, close"), ("/read", "keep-alive")];
    for (path, connection) in cases {
        let mut client = server.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 5000\r\n\r\n"));
        client.send([b'x'; 2000]);
        if path == "/read" {
            client.send([b'x'; 3000]);
        }
        assert_eq!(client.read().header("Connection"), Some(connection), "{path}");
        match path {
            "/read" => assert_eq!(client.get("/").header("Connection"), Some("keep-alive")),
            _ => client.expect_closed(PATIENCE),
        }
    }
    server.finish();
}

#[test]
fn a_big_body_goes_through_disk_and_leaves_memory_alone() {
    let server = Server::start("wsgi_input", []);
    let worker = server.wait_for_workers(1)[0];
    let mut client = server.connect();
    client.request("POST", "/?read(1)", &[], b"warm up");
    let before = process::anonymous(worker);
    let answers = client.request("POST", "/?read(3)", &[], &vec![b'x'; 100_000_000]).json();
    assert_eq!(answers.texts(), ["xxx"]);
    let grown = process::anonymous(worker).saturating_sub(before);
    assert!(grown < 20_000_000, "a body of 100 MB left {grown} bytes behind");
    server.finish();
}

#[test]
fn a_body_past_what_disk_may_take_streams() {
    let server = Server::start("wsgi_input", ["--body-buffer", "1000", "--body-spool", "5000"]);
    let mut client = server.connect();
    let body = b"0123456789abcde\n".repeat(10_000);
    let answers = client.request("POST", "/?readline()&read(16)&iter", &[], &body).json();
    assert_eq!(answers.list()[0], "0123456789abcde\n");
    assert_eq!(answers.list()[2].list().len(), 10_000 - 2);
    // The connection is in step afterwards.
    assert_eq!(client.request("POST", "/?read()", &[], b"next").json().texts(), ["next"]);
    server.finish();
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let mut server = Server::start("echo", ["--limit-request-body", "1000"]);
    let mut client = server.connect();
    assert_eq!(client.request("POST", "/", &[], &[b'x'; 1000]).status, 200);
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1001\r\n\r\n");
    assert_eq!(client.read().status, 413);
    let mut chunked = server.connect();
    let chunk = format!("3e9\r\n{}\r\n", "x".repeat(1001));
    chunked.send(format!("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"));
    assert_eq!(chunked.read().status, 413);
    server.allow("Invalid request");
    server.finish();
}

/// Reads the body when the client goes on, and answers whatever comes of it.
const CATCHES: &str = "import os, pathlib
def application(environ, start_response):
    pathlib.Path(os.environ['GATE'], 'entered').touch()
    try:
        body = environ['wsgi.input'].read()
    except OSError:
        body = b'refused'
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
";

/// What was read beyond the limit is no request.
#[test]
fn the_rest_of_a_streamed_body_over_the_limit_is_nobodys_request() {
    let plan = Plan::app("app").in_own_folder().file("app.py", CATCHES);
    let mut server = plan.args(["--body-buffer", "64", "--body-spool", "0", "--limit-request-body", "1000"]).start();
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("258\r\n{}\r\n", "x".repeat(0x258)));
    wait_until("the app", || !server.gate_files("entered").is_empty());
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";
    let (before, behind) = ("x".repeat(0x12c), "x".repeat(0x12c - smuggled.len()));
    client.send(format!("258\r\n{before}{smuggled}{behind}\r\n0\r\n\r\n"));
    assert_eq!(client.read().text(), "refused");
    client.expect_closed(Duration::from_secs(10));
    server.allow("request body");
    server.finish();
}

#[test]
fn without_a_writable_folder_for_temporary_files_a_body_still_arrives() {
    let mut server = Plan::app("wsgi_input").args(["--body-buffer", "1000"]).env("TMPDIR", "/proc/nonexistent").start();
    let mut client = server.connect();
    let body = vec![b'x'; 100_000];
    let answers = client.request("POST", "/?read()", &[], &body).json();
    assert_eq!(answers.list()[0].text().len(), 100_000);
    server.allow("[WARNING]");
    server.finish();
}
