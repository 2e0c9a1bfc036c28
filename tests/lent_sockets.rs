//! An application that has used `gunicorn.socket`, and so has a blocking descriptor. A client that
//! is slow costs the thread that waits, never the worker. What the server itself sends ends as it
//! does elsewhere, and nothing of it gets into a WebSocket that the application speaks.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::util::client::Client;
use crate::util::server::{Plan, Server};
use crate::util::tls::{Authority, Key, end_of};
use crate::util::{PATIENCE, wait_until};

/// Each path looks at the client's socket first.
const APP: &str = r#"
import os, pathlib, time

BLOCK = b"x" * 65536
COUNT = 200


def application(environ, start_response):
    if environ["PATH_INFO"] == "/":
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]
    environ["gunicorn.socket"].getpeername()
    if environ["PATH_INFO"] == "/upload":
        text = str(len(environ["wsgi.input"].read())).encode()
        start_response("200 OK", [("Content-Length", str(len(text)))])
        return [text]
    if environ["PATH_INFO"] == "/websocket":
        return websocket(environ)
    if environ["PATH_INFO"] == "/broken":
        start_response("200 OK", [])
        return broken()
    start_response("200 OK", [("Content-Length", str(COUNT * len(BLOCK)))])
    if environ["PATH_INFO"] == "/whole":
        return [COUNT * BLOCK]
    return pauses() if environ["PATH_INFO"] == "/pauses" else stream()


def pauses():
    yield (COUNT - 1) * BLOCK
    while not pathlib.Path(os.environ["GATE"], "release").exists():
        time.sleep(0.005)
    yield BLOCK


def broken():
    yield BLOCK
    raise RuntimeError("the rest is missing")


def websocket(environ):
    socket = environ["gunicorn.socket"]
    socket.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02hi")
    if environ["QUERY_STRING"] == "raises":
        raise RuntimeError("in the middle of a WebSocket")
    socket.recv(1)
    raise StopIteration


def stream():
    for _ in range(COUNT):
        yield BLOCK
        time.sleep(0.005)
    pathlib.Path(os.environ["GATE"], "made").touch()
"#;

fn start(args: &[&str]) -> Server {
    let plan = Plan::app("app").in_own_folder().file("app.py", APP).args(["--threads", "2", "--timeout", "5"]);
    args.iter().fold(plan, |plan, arg| plan.args([*arg])).start()
}

#[test]
fn a_slow_reader_holds_up_nobody() {
    let server = start(&[]);
    let workers = server.wait_for_workers(1);
    let mut slow = Client::connect_narrow(&server.address);
    slow.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    // The client takes what is in memory, in small steps, and leaves what is in the file.
    let (mut taken, mut steps) = (Vec::new(), 0..40);
    wait_until("the whole response to be made", || {
        taken.extend(steps.next().map(|_| slow.read_exactly(50_000)).unwrap_or_default());
        assert_eq!(server.get("/").status, 200);
        !server.gate_files("made").is_empty()
    });
    assert_eq!(server.workers(), workers, "{}", server.log());
    taken.extend(slow.take_rest(PATIENCE));
    let head = taken.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!(taken.len() - head, 200 * 65536);
    server.finish();
}

#[test]
fn what_waits_for_the_client_goes_on_while_the_app_does_something_else() {
    for is_tls in [false, true] {
        let plan = Plan::app("app").in_own_folder().file("app.py", APP).args(["--threads", "2"]);
        let root = Authority::root("Test root");
        let plan = if is_tls { plan.tls(&root.server(Key::Ecdsa, &["localhost"])) } else { plan };
        let server = plan.start().trusting(root.trust());
        let mut client: Box<dyn ReadAndWrite> = match is_tls {
            true => Box::new(root.trust().connect(server.address.port()).expect("the server accepts")),
            false => Box::new(TcpStream::connect(("127.0.0.1", server.address.port())).expect("the server accepts")),
        };
        client.write_all(b"GET /pauses HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut block = vec![0; 199 * 65536];
        client.read_exact(&mut block).unwrap();
        server.release();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.len() > 65536, "{}", rest.len());
        server.finish();
    }
}

trait ReadAndWrite: Read + Write {}

impl<T: Read + Write> ReadAndWrite for T {}

#[test]
fn a_response_that_breaks_off_does_not_look_whole() {
    let mut server = start(&[]);
    let mut client = TcpStream::connect(("127.0.0.1", server.address.port())).unwrap();
    client.write_all(b"GET /broken HTTP/1.0\r\n\r\n").unwrap();
    let end = client.read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    server.allow("");
    server.finish();
}

#[test]
fn under_tls_its_end_is_not_announced() {
    let root = Authority::root("Test root");
    let plan = Plan::app("app").in_own_folder().file("app.py", APP).args(["--threads", "2"]);
    let mut server = plan.tls(&root.server(Key::Ecdsa, &["localhost"])).start().trusting(root.trust());
    server.write("root.pem", &root.pem());
    for (request, end) in [
        (r"GET /broken HTTP/1.0\r\n\r\n", "ragged"),
        (r"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n", "ragged"),
        (r"GET /whole HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "announced"),
    ] {
        let (port, root) = (server.address.port(), server.path("root.pem"));
        assert_eq!(end_of(port, &root, "TLSv1_3", request), end, "{request}");
    }
    server.allow("");
    server.finish();
}

#[test]
fn a_worker_ends_no_sooner_than_a_client_under_tls_has_everything() {
    let root = Authority::root("Test root");
    let plan = Plan::app("app").in_own_folder().file("app.py", APP).args(["--threads", "2"]);
    let mut server = plan.tls(&root.server(Key::Ecdsa, &["localhost"])).start().trusting(root.trust());
    let mut client = root.trust().connect(server.address.port()).expect("the server accepts");
    client.write_all(b"GET /whole HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    client.read_exact(&mut [0; 1000]).unwrap();
    server.signal(Signal::SIGTERM);
    server.wait_for_log("Handling signal: term");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("an end that is announced");
    assert!(rest.len() > 199 * 65536, "{}", rest.len());
    assert!(server.wait_for_exit().success());
    server.expect_gone();
}

#[test]
fn a_whole_response_arrives_though_the_client_has_sent_more() {
    let server = start(&[]);
    let mut client = Client::connect_narrow(&server.address);
    client.send("GET /whole HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nwhat comes behind");
    let rest = client.take_rest(PATIENCE);
    assert!(rest.len() > 200 * 65536, "{}", rest.len());
    server.finish();
}

#[test]
fn no_error_page_gets_into_a_websocket() {
    let mut server = start(&[]);
    let mut client = server.connect();
    client.send("GET /websocket?raises HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(client.take_rest(PATIENCE).ends_with(b"\r\n\r\n\x81\x02hi"));
    // A socket that was only looked at: the client wants its page.
    let mut client = server.connect();
    client.send("GET /upload HTTP/1.1\r\nHost: a\r\nContent-Length: nonsense\r\n\r\n");
    assert!(client.take_rest(PATIENCE).starts_with(b"HTTP/1.1 400 "));
    server.allow("");
    server.finish();
}

#[test]
fn websockets_cost_a_worker_no_hook_when_it_ends() {
    for threads in [1, 2, 3] {
        let plan = Plan::app("app").in_own_folder().file("app.py", APP).args(["--threads", &threads.to_string()]);
        let plan = plan.config(
            "graceful_timeout = 4\n\
            def worker_int(worker): worker.log.info('INT')\n\
            def worker_exit(server, worker): server.log.info('hook has run')\n",
        );
        let mut server = plan.start();
        // One thread is left where there are three: the main one, or another.
        let clients: Vec<_> = (0..threads.min(2))
            .map(|_| {
                let mut client = server.connect();
                client.send("GET /websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n");
                client.read_until(b"\x02hi");
                client
            })
            .collect();
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait_for_exit().code(), Some(0));
        server.wait_for_log("hook has run");
        let log = server.log();
        assert!(!log.contains("SIGKILL") && !log.contains("INT"), "{log}");
        for mut client in clients {
            client.expect_closed(PATIENCE);
        }
        server.expect_gone();
    }
}

#[test]
fn a_slow_upload_holds_up_nobody() {
    let mut server = start(&["--body-buffer", "1000", "--body-spool", "0", "--slow-request", "1"]);
    let mut slow = server.connect();
    slow.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n");
    slow.send("x".repeat(5000));
    // The leader looks at the request.
    server.wait_for_log("Slow request: POST /upload");
    assert_eq!(server.get("/").status, 200);
    slow.send("x".repeat(5000));
    assert!(slow.take_rest(PATIENCE).ends_with(b"\r\n\r\n10000"));
    server.allow("Slow request");
    server.finish();
}
