//! A Flask app over real HTTP, with one worker and with three, over TCP and over a unix socket.

use std::thread;
use std::time::{Duration, Instant};

use crate::util::client::Client;
use crate::util::server::{Plan, Server};

#[test]
fn one_worker_over_tcp() {
    drive(Plan::app("flask_site"), 1);
}

#[test]
fn one_worker_over_a_unix_socket() {
    drive(Plan::app("flask_site").unix(), 1);
}

#[test]
fn three_workers_over_tcp() {
    drive(Plan::app("flask_site").args(["--workers", "3"]), 3);
}

#[test]
fn three_workers_over_a_unix_socket() {
    drive(Plan::app("flask_site").unix().args(["--workers", "3"]), 3);
}

fn drive(plan: Plan, workers: usize) {
    let mut server = plan.start();
    server.wait_for_workers(workers);
    json(&mut server.connect());
    upload(&mut server.connect());
    stream(&mut server.connect());
    events(&server);
    session(&server);
    errors(&mut server);
    many_at_once(&server);
    server.finish();
}

fn json(client: &mut Client) {
    let answer = client.request("POST", "/json", &["Content-Type: application/json"], br#"{"a": [1, "\u00e9"]}"#);
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.json()["received"]["a"].list()[1], "\u{e9}");
    assert_eq!(client.request("GET", "/json", &[], b"").status, 405);
    assert_eq!(client.get("/nowhere").status, 404);
}

fn upload(client: &mut Client) {
    let content: Vec<u8> = (0..3_000_000u32).map(|index| (index % 253) as u8).collect();
    let answer = client.request("POST", "/upload", &[MULTIPART], &multipart("blob.bin", &content)).json();
    assert_eq!(answer["name"], "blob.bin");
    assert_eq!(answer["size"].number() as usize, content.len());
    assert_eq!(answer["sha256"], sha256(&content).as_str());
}

fn stream(client: &mut Client) {
    let answer = client.get("/stream?lines=1000");
    assert!(answer.is_chunked());
    let wanted: String = (0..1000).map(|number| format!("/stream {number}\n")).collect();
    assert_eq!(answer.text(), wanted);
}

fn events(server: &Server) {
    // A first request, so that what is timed is the stream and not the first call of a fresh
    // worker.
    (0..6).for_each(|_| assert_eq!(server.get("/count").status, 200));
    // The fastest of several: a busy machine may delay one of them.
    let fastest = (0..3).map(|_| first_event(server)).min().expect("some");
    assert!(fastest < Duration::from_millis(100), "the first event took {fastest:?}");
}

fn first_event(server: &Server) -> Duration {
    let mut client = server.connect();
    let start = Instant::now();
    client.send("GET /events?pause=1 HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n");
    client.read_until(b"data: first\n\n");
    let took = start.elapsed();
    client.read_until(b"data: second\n\n");
    assert!(start.elapsed() > Duration::from_millis(900));
    took
}

fn session(server: &Server) {
    let first = server.get("/count");
    let cookie = first.header("Set-Cookie").expect("a session cookie").split(';').next().expect("a cookie").to_string();
    let answer = server.connect().request("GET", "/count", &[&format!("Cookie: {cookie}")], b"");
    assert_eq!(answer.json()["count"].number(), 2.0);
}

fn errors(server: &mut Server) {
    assert_eq!(server.get("/broken").status, 500);
    // Flask answers by itself and logs to stderr; that is its traceback, not ours.
    for text in ["Traceback", "RuntimeError", "Exception on /broken"] {
        server.allow(text);
    }
}

fn many_at_once(server: &Server) {
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = server.connect();
                (0..25).for_each(|_| assert_eq!(client.get("/count").json()["count"].number(), 1.0));
            });
        }
    });
}

pub const MULTIPART: &str = "Content-Type: multipart/form-data; boundary=border";

/// A form with one file named `file`.
pub fn multipart(name: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "--border\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    [head.as_bytes(), content, b"\r\n--border--\r\n"].concat()
}

/// The digest as another program computes it: the tests need no hash of their own.
pub fn sha256(content: &[u8]) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let script = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())";
    let mut python = Command::new(crate::util::venv().join("bin/python"))
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the virtualenv has a python");
    python.stdin.take().expect("piped").write_all(content).expect("python reads");
    let output = python.wait_with_output().expect("python ends");
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}
