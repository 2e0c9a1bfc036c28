//! Clients that do not take their responses: what they are sent waits for them, and the application
//! goes on.

use std::thread;
use std::time::{Duration, Instant};

use crate::load::compare;
use crate::util::client::{Client, Response};
use crate::util::process::{anonymous, open_files};
use crate::util::server::{Plan, Server};
use crate::util::tls::{Authority, Key};
use crate::util::wait_until;

/// How long an ordinary client may wait at p99 on a machine that does nothing else.
const AT_P99: Duration = Duration::from_millis(20);

/// The length of the application's long responses.
const LONG: usize = 4 << 20;

/// The blocks that they are made of.
const BLOCKS: usize = 64;

/// What a stalled client may cost in memory.
const MEMORY_EACH: u64 = 100 * 1024;

fn impatient(plan: Plan) -> Plan {
    plan.args(["--write-timeout", "3", "--timeout", "5"])
}

/// Clients that ask for a long response and read nothing of it.
fn stalled(server: &Server, count: usize, path: &str) -> Vec<Client> {
    (0..count)
        .map(|_| {
            let mut client = Client::connect_narrow(&server.address);
            client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            client
        })
        .collect()
}

fn made(server: &Server) -> usize {
    server.get("/made").text().parse().expect("a number")
}

/// Waits until the application makes no more blocks, which is before it has made all of them.
fn expect_app_to_stand_still(server: &Server) {
    wait_until("the app to stand still", || {
        let before = made(server);
        thread::sleep(Duration::from_millis(200));
        before > 0 && made(server) == before
    });
    assert!(made(server) < BLOCKS, "the app went on");
}

/// Whether the response is the long one, whole.
fn is_long_and_whole(response: &Response) -> bool {
    response.body.len() == LONG && response.body.iter().all(|&byte| byte == b'x')
}

#[test]
fn a_crowd_that_does_not_read_holds_neither_threads_nor_memory() {
    const CROWD: usize = 100;
    for (threads, path) in [("1", "/stream"), ("4", "/stream"), ("1", "/write"), ("4", "/write"), ("1", "/whole")] {
        let start_server =
            || impatient(Plan::app("slow_readers")).args(["--threads", threads, "--write-timeout", "6"]).start();
        let (mut server, calm) = (start_server(), start_server());
        let worker = server.wait_for_workers(1)[0];
        let mut ordinary = [&server, &calm].map(Server::connect);
        ordinary.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "ok"));
        let (files, memory) = (open_files(worker), anonymous(worker));
        let crowd = stalled(&server, CROWD, path);
        // What its responses cost the application they cost at the beginning; a busy machine is
        // busier in some seconds than in others, for both servers.
        let is_fair = |[among, without]: &[Duration; 2]| *among < AT_P99.max(2 * *without);
        let mut waits = Vec::new();
        while waits.len() < 5 && !waits.last().is_some_and(is_fair) {
            waits.push(compare(&mut ordinary));
        }
        println!("{threads} threads, {path}: [among them, without them] at p99, second by second: {waits:?}");
        let grown = anonymous(worker).saturating_sub(memory) / CROWD as u64;
        assert!(grown < MEMORY_EACH, "{threads} threads, {path}: {grown} bytes for each");
        // The crowd is cut in its time, and leaves nothing behind.
        wait_until("the crowd to be cut", || open_files(worker) <= files);
        assert!(waits.last().is_some_and(is_fair), "{threads} threads, {path}: {waits:?}");
        assert_eq!(server.workers(), [worker], "{}", server.log());
        drop(crowd);
        server.allow("does not read");
        server.finish();
        calm.finish();
    }
}

#[test]
fn under_tls_a_client_that_does_not_read_holds_nothing_either() {
    const CROWD: usize = 20;
    let root = Authority::root("Test root");
    let plan = impatient(Plan::app("slow_readers")).tls(&root.server(Key::Ecdsa, &["localhost"]));
    let mut server = plan.start().trusting(root.trust());
    let worker = server.wait_for_workers(1)[0];
    let mut crowd: Vec<Client> = (0..CROWD).map(|_| server.connect()).collect();
    crowd.iter_mut().for_each(|client| client.send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    wait_until("the app to be done with all of them", || server.gate_files("closed-").len() == CROWD);
    let mut last = crowd.pop().expect("a client");
    let response = last.read();
    assert!(is_long_and_whole(&response));
    assert_eq!(server.get("/").text(), "ok");
    assert_eq!(server.workers(), [worker], "{}", server.log());
    drop(crowd);
    server.allow("does not read");
    server.finish();
}

#[test]
fn what_waits_arrives_whole_and_leaves_no_file() {
    for path in ["/stream", "/write", "/whole"] {
        let server = Server::start("slow_readers", []);
        let mut client = Client::connect_narrow(&server.address);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        // The app is done with it before the client has read anything.
        assert_eq!(server.get("/").text(), "ok");
        assert_eq!(server.get("/spools").text(), "1", "{path}");
        let response = client.read();
        assert!(is_long_and_whole(&response), "{path}");
        assert_eq!(client.get("/spools").text(), "0", "{path}");
        server.finish();
    }
}

#[test]
fn without_a_file_the_app_waits_for_the_client() {
    // The second as on a read-only root.
    for (spool, temporary, is_said) in [("0", "/tmp", false), ("1000000000", "/proc/nowhere", true)] {
        let plan = Plan::app("slow_readers").args(["--threads", "2", "--response-spool", spool]);
        let plan = plan.env("TMPDIR", temporary);
        let mut server = plan.start();
        let mut client = Client::connect_narrow(&server.address);
        client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
        expect_app_to_stand_still(&server);
        assert!(client.read().body.len() == LONG);
        assert_eq!(made(&server), BLOCKS);
        assert_eq!(server.log().matches("Cannot keep a response in a temporary file").count(), usize::from(is_said));
        server.allow("Cannot keep a response");
        server.finish();
    }
}

#[test]
fn past_both_bounds_the_app_waits() {
    let server = Server::start("slow_readers", ["--threads", "2", "--response-spool", "500000"]);
    let mut client = Client::connect_narrow(&server.address);
    client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    expect_app_to_stand_still(&server);
    assert_eq!(server.get("/spools").text(), "1");
    let response = client.read();
    assert!(is_long_and_whole(&response));
    server.finish();
}

#[test]
fn a_response_that_is_made_already_waits_for_its_client_in_any_case() {
    for spool in ["0", "500000"] {
        let server = Server::start("slow_readers", ["--response-spool", spool]);
        let mut client = Client::connect_narrow(&server.address);
        client.send("GET /whole HTTP/1.1\r\nHost: a\r\n\r\n");
        // The one thread is free at once.
        assert_eq!(server.get("/").text(), "ok");
        let response = client.read();
        assert!(is_long_and_whole(&response));
        server.finish();
    }
}

#[test]
fn a_live_response_slows_down_with_its_reader() {
    let server = Server::start("slow_readers", ["--threads", "2"]);
    let mut client = Client::connect_narrow(&server.address);
    client.send("GET /live HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_head().expect("a head");
    assert_eq!(head.header("X-Accel-Buffering"), None);
    expect_app_to_stand_still(&server);
    assert_eq!(server.get("/spools").text(), "0");
    drop(client);
    wait_until("the result to be closed", || server.gate_files("closed-").len() == 1);
    // A proxy in front buffers, too, unless it is told.
    let mut client = server.connect();
    let response = client.request("GET", "/live", &["X-Forwarded-For: 192.0.2.1"], b"");
    assert_eq!(response.header("X-Accel-Buffering"), Some("no"));
    server.finish();
}

#[test]
fn each_block_is_with_a_client_that_reads_before_the_next_is_made() {
    const BLOCK: usize = 128 << 10;
    let root = Authority::root("Test root");
    for is_tls in [false, true] {
        let plan = Plan::app("slow_readers");
        let server = if is_tls {
            plan.tls(&root.server(Key::Ecdsa, &["localhost"])).start().trusting(root.trust())
        } else {
            plan.start()
        };
        let mut client = server.connect();
        client.send("GET /paced HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.read_head().expect("a head").content_length(), Some(3 * BLOCK));
        for number in 0..3 {
            assert_eq!(client.read_exactly(BLOCK).len(), BLOCK, "{is_tls} {number}");
            server.write(&format!("gate/go-{number}"), "");
        }
        assert_eq!(client.get("/").text(), "ok");
        server.finish();
    }
}

#[test]
fn a_live_response_ends_when_its_client_stops_reading() {
    let root = Authority::root("Test root");
    for is_tls in [false, true] {
        let plan = impatient(Plan::app("slow_readers"));
        let mut server = if is_tls {
            plan.tls(&root.server(Key::Ecdsa, &["localhost"])).start().trusting(root.trust())
        } else {
            plan.start()
        };
        let mut client = server.connect();
        client.send("GET /drip HTTP/1.1\r\nHost: localhost\r\n\r\n");
        wait_until("the result to be closed", || server.gate_files("closed-").len() == 1);
        assert_eq!(server.get("/").text(), "ok");
        drop(client);
        server.allow("does not read");
        server.finish();
    }
}

#[test]
fn an_event_is_with_the_client_at_once() {
    const SOON: Duration = Duration::from_millis(50);
    let server = Server::start("slow_readers", []);
    // A busy machine has several chances.
    let waits: Vec<Duration> = (0..5)
        .map(|_| {
            let mut client = server.connect();
            let start = Instant::now();
            client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
            client.read_until(b"data: first\n\n");
            let wait = start.elapsed();
            server.release();
            client.read_until(b"0\r\n\r\n");
            std::fs::remove_file(server.path("gate/release")).expect("it was there");
            wait
        })
        .collect();
    assert!(waits.iter().any(|wait| *wait < SOON), "{waits:?}");
    server.finish();
}

#[test]
fn the_access_log_says_what_the_client_has_been_sent() {
    let mut server = impatient(Plan::app("slow_readers"))
        .args(["--access-logfile", "-", "--access-logformat", "%(U)s %(s)s %(B)s"])
        .start();
    let mut slow = Client::connect_narrow(&server.address);
    slow.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the app to be done", || server.gate_files("closed-").len() == 1);
    assert_eq!(server.get("/").text(), "ok");
    let line = format!("/stream 200 {LONG}");
    let said = |server: &Server, text: &str| server.stdout().lines().filter(|line| line.contains(text)).count();
    wait_until("the other request to be logged", || said(&server, "/ 200 2") == 1);
    assert_eq!(said(&server, "/stream"), 0, "it has not been sent");
    assert_eq!(slow.read().body.len(), LONG);
    wait_until("the request to be logged", || said(&server, &line) == 1);
    // One that is cut has not had all of it.
    let gone = stalled(&server, 1, "/stream");
    wait_until("it to be cut", || said(&server, "/stream 499 ") == 1);
    drop(gone);
    assert_eq!(said(&server, &line), 1);
    server.allow("does not read");
    server.finish();
}
