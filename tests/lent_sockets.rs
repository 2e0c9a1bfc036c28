//! An application that has used `gunicorn.socket`, and so has a blocking descriptor, and a client
//! that is slow: it costs the thread that waits, never the worker.

use crate::util::client::Client;
use crate::util::server::{Plan, Server};
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
    start_response("200 OK", [("Content-Length", str(COUNT * len(BLOCK)))])
    return stream()


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
