//! Clients that are slow, silent or greedy: each costs its own connection, and other clients
//! nothing. The rows SL of the fault table.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::util::client::{Broken, Client};
use crate::util::process::{anonymous, open_files};
use crate::util::server::{Plan, Server, send};
use crate::util::{PATIENCE, wait_until};

/// A client that takes its time.
struct Row {
    id: &'static str,
    /// What it sends at once.
    first: &'static str,
    /// What it sends again and again after that, ten times a second; empty for nothing more.
    drip: &'static str,
    end: End,
}

/// The outcome.
#[derive(Debug, PartialEq)]
enum End {
    Refused,
    Closed,
}

const ROWS: &[Row] = &[
    Row { id: "SL-01 nothing at all", first: "", drip: "", end: End::Closed },
    Row { id: "SL-02 a part of a request line", first: "GET / HT", drip: "", end: End::Refused },
    Row { id: "SL-03 a head byte by byte", first: "GET / HTTP/1.1\r\nX: ", drip: "a", end: End::Refused },
    Row { id: "SL-04 a head line by line", first: "GET / HTTP/1.1\r\n", drip: "X: a\r\n", end: End::Refused },
    Row {
        id: "SL-05 a body byte by byte",
        first: "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
        drip: "a",
        end: End::Refused,
    },
    Row {
        id: "SL-06 a body of small chunks",
        first: "POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        drip: "1\r\na\r\n",
        end: End::Refused,
    },
    Row {
        id: "SL-06 a chunk size that goes on",
        first: "POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        drip: "0",
        end: End::Refused,
    },
    Row {
        id: "SL-07 a body that stops",
        first: "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
        drip: "",
        end: End::Refused,
    },
    Row {
        id: "SL-14 a body that was announced",
        first: "POST /read HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
        drip: "",
        end: End::Refused,
    },
    Row {
        id: "SL-02 a second request that stops",
        first: "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT",
        drip: "",
        end: End::Refused,
    },
];

#[test]
fn a_client_past_its_time_is_answered_408_or_closed_and_others_are_served_meanwhile() {
    let server = impatient("clients").start();
    let worker = server.wait_for_workers(1)[0];
    let before = server.files_at_rest(worker);
    let is_over = AtomicBool::new(false);
    let faults = thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut client = server.connect();
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(client.get("/").text(), "ok");
                thread::sleep(Duration::from_millis(5));
            }
        });
        let rows: Vec<_> = ROWS.iter().map(|row| scope.spawn(|| check(&server, row))).collect();
        let faults: Vec<String> = rows.into_iter().filter_map(|row| row.join().expect("no panic")).collect();
        is_over.store(true, Ordering::Relaxed);
        other.join().expect("an ordinary client is served");
        faults
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    wait_until("the connections' files to be closed", || open_files(worker) <= before);
    finish(server);
}

fn check(server: &Server, row: &Row) -> Option<String> {
    let start = Instant::now();
    let mut client = server.connect();
    client.send(row.first);
    let end = loop {
        if !row.drip.is_empty() {
            let _ = client.try_send(row.drip);
        }
        match client.read_within("GET", Duration::from_millis(100)) {
            Err(Broken::Silent) if start.elapsed() < PATIENCE => {}
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) if answer.status == 408 && answer.says_close() => break End::Refused,
            Err(Broken::Closed) => break End::Closed,
            other => return Some(format!("{}: {other:?}", row.id)),
        }
    };
    if start.elapsed() < Duration::from_millis(900) {
        return Some(format!("{}: {end:?} after {:?}", row.id, start.elapsed()));
    }
    (end != row.end).then(|| format!("{}: {end:?}", row.id))
}

#[test]
fn a_body_that_streams_has_its_time_too() {
    let server = impatient("clients").args(["--body-buffer", "10", "--body-spool", "20"]).start();
    let mut client = server.connect();
    client.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n");
    client.send("a".repeat(50));
    // The app gets an error, and ignores it.
    assert_eq!(client.read().status, 500);
    client.expect_closed(PATIENCE);
    let mut server = server;
    server.allow("Error handling request");
    server.allow("Traceback");
    finish(server);
}

#[test]
fn a_client_that_reads_nothing_is_cut_and_the_app_told() {
    let server = impatient("clients").start();
    let mut client = Client::connect_narrow(&server.address);
    // SL-08: an endless stream, of which nothing is read.
    client.send("GET /stream?100000 HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the stream to be closed", || server.gate_files("closed-").len() == 1);
    assert_eq!(server.gate_files("exit-").len(), 1, "the generator was not told");
    // The worker is free again.
    assert_eq!(server.get("/").text(), "ok");
    // One block, which the event loop sends: the app has finished at once, and the connection is
    // cut all the same.
    let worker = server.wait_for_workers(1)[0];
    let files = server.files_at_rest(worker);
    let mut second = Client::connect_narrow(&server.address);
    second.send("GET /big?50000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the response to begin", || open_files(worker) > files);
    wait_until("the connection to be cut", || open_files(worker) <= files);
    server.wait_for_log("does not read its response");
    for client in [&mut client, &mut second] {
        assert!(matches!(client.read_for("GET"), Err(Broken::Truncated(_))));
    }
    finish(server);
}

#[test]
fn a_client_that_reads_a_byte_now_and_then_is_cut_like_one_that_reads_nothing() {
    // SL-09: the window never opens again, so that nothing more can be sent.
    let server = impatient("clients").start();
    let mut client = Client::connect_narrow(&server.address);
    client.send("GET /big?50000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    let is_cut = || server.log().contains("does not read its response");
    wait_until("the connection to be cut", || {
        client.read_some(1);
        is_cut()
    });
    assert_eq!(server.get("/").text(), "ok");
    finish(server);
}

#[test]
fn slow_bodies_and_slow_readers_occupy_no_thread() {
    // SL-10
    const ROUNDS: usize = 5;
    let server = Server::start("clients", ["--threads", "2"]);
    let mut senders: Vec<Client> = (0..6)
        .map(|_| {
            let mut client = server.connect();
            client.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
            client
        })
        .collect();
    // However the app produces it: once its Content-Length is reached no more bytes follow, and the
    // event loop sends the rest.
    let mut readers: Vec<Client> = ["big", "iterated"]
        .repeat(3)
        .into_iter()
        .map(|path| {
            let mut client = Client::connect_narrow(&server.address);
            client.send(format!("GET /{path}?50000000 HTTP/1.1\r\nHost: a\r\n\r\n"));
            client
        })
        .collect();
    // Twenty requests of which none waits for 50 ms; on a busy machine it is tried several times.
    let mut longest = Vec::new();
    while longest.last().is_none_or(|wait| *wait >= Duration::from_millis(50)) {
        assert!(longest.len() < ROUNDS, "the longest waits were {longest:?}");
        let waits = (0..20).map(|_| {
            senders.iter_mut().for_each(|client| client.send("x"));
            readers.iter_mut().for_each(|client| client.read_some(1));
            thread::sleep(Duration::from_millis(20));
            let start = Instant::now();
            assert_eq!(server.get("/").text(), "ok");
            start.elapsed()
        });
        longest.push(waits.max().expect("twenty of them"));
    }
    drop((senders, readers));
    server.finish();
}

#[test]
fn a_client_that_vanishes_costs_its_connection_for_as_long_as_one_that_is_silent() {
    // SL-17: no packet comes from it any more, not even a reset.
    let server = impatient("clients").args(["--keep-alive", "1"]).start();
    let worker = server.wait_for_workers(1)[0];
    let before = server.files_at_rest(worker);
    let mut idle = server.connect();
    assert_eq!(idle.get("/").text(), "ok");
    let begun = [
        "GET / HT",
        "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhello",
        "GET /big?50000000 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /stream?100000 HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let begun = begun.map(|text| {
        let mut client = server.connect();
        client.send(text);
        client
    });
    wait_until("the stream to begin", || server.gate_files("began-").len() == 1);
    let clients: Vec<Client> = begun.into_iter().chain([idle]).collect();
    clients.iter().for_each(Client::vanish);
    wait_until("the stream to be closed", || server.gate_files("closed-").len() == 1);
    wait_until("the connections' files to be closed", || open_files(worker) <= before);
    assert_eq!(server.get("/").text(), "ok");
    finish(server);
}

#[test]
fn a_spooled_body_that_stops_leaves_no_file_and_no_memory() {
    // SL-07 and AB-04, past `body_buffer`. The first body is not late before the last has come.
    let server = impatient("clients").args(["--client-body-timeout", "5"]).start();
    let worker = server.wait_for_workers(1)[0];
    let files = server.files_at_rest(worker);
    let memory = anonymous(worker);
    let body = vec![b'x'; 500_000];
    let clients: Vec<Client> = (0..40)
        .map(|number| {
            let mut client = server.connect();
            client.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
            client.send(&body);
            // Its file is open besides its connection.
            wait_until("the body to be spooled", || open_files(worker) >= files + 2 * (number + 1));
            client
        })
        .collect();
    for (number, mut client) in clients.into_iter().enumerate() {
        if number % 2 == 0 {
            client.reset();
        } else {
            assert_eq!(client.read().status, 408);
        }
    }
    wait_until("the files to be closed", || open_files(worker) <= files);
    let grown = anonymous(worker).saturating_sub(memory);
    assert!(grown < 4 << 20, "{grown} bytes more");
    // Once: to find the worker at rest.
    assert_eq!(server.get("/calls").text(), "1", "the app was called for half a body");
    finish(server);
}

#[test]
fn a_client_that_reads_slowly_but_steadily_gets_everything() {
    let server = impatient("clients").start();
    let mut client = Client::connect_narrow(&server.address);
    client.send("GET /big?3000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_head().expect("a head");
    // SL-13: pauses, none of them as long as the timeout; all of them together are longer.
    let mut left = head.content_length().expect("a length");
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(300));
        let now = left.min(100_000);
        client.read_exactly(now);
        left -= now;
    }
    client.read_exactly(left);
    assert_eq!(client.get("/").text(), "ok");
    server.finish();
}

#[test]
fn clients_that_never_pause_do_not_delay_others() {
    // SL-12
    let server = Server::start("clients", []);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let mut client = server.connect();
                while !is_over.load(Ordering::Relaxed) {
                    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50));
                    (0..50).for_each(|_| assert_eq!(client.read().status, 200));
                }
            });
        }
        for _ in 0..50 {
            assert_eq!(server.get("/").text(), "ok");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    server.finish();
}

#[test]
fn a_stopped_worker_that_continues_answers_the_waiting_clients() {
    // SL-15: more connections than the backlog holds.
    let server = Server::start("clients", ["--backlog", "8", "--timeout", "0"]);
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/").text(), "ok");
    send(worker, Signal::SIGSTOP);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..30).map(|_| scope.spawn(|| server.get("/").text())).collect();
        thread::sleep(Duration::from_millis(200));
        send(worker, Signal::SIGCONT);
        for client in clients {
            assert_eq!(client.join().expect("an answer"), "ok");
        }
    });
    server.finish();
}

#[test]
fn a_request_at_the_end_of_the_idle_time_is_answered_whole_or_not_at_all() {
    // SL-16
    let server = Server::start("clients", ["--keep-alive", "1"]);
    thread::scope(|scope| {
        for round in 0..30_u64 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.connect();
                assert_eq!(client.get("/").text(), "ok");
                thread::sleep(Duration::from_millis(950 + 40 * round));
                let _ = client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                match client.read_for("GET") {
                    Ok(answer) => assert_eq!(answer.text(), "ok"),
                    Err(Broken::Closed) => {}
                    other => panic!("{other:?}"),
                }
            });
        }
    });
    server.finish();
}

#[test]
fn refusals_in_numbers_do_not_fill_the_log() {
    let mut server = Server::start("clients", []);
    for _ in 0..500 {
        let mut client = server.connect();
        client.send("NONSENSE\r\n\r\n");
        assert_eq!(client.read().status, 400);
    }
    server.wait_for_log("more like it within a second)");
    let lines = server.log().matches("Invalid request").count();
    assert!(lines < 100, "{lines} lines");
    server.allow("Invalid request");
    server.finish();
}

/// A server with short timeouts: every one is a second.
fn impatient(app: &str) -> Plan {
    Plan::app(app).args([
        "--client-header-timeout",
        "1",
        "--client-body-timeout",
        "1",
        "--client-body-min-rate",
        "1000",
        "--write-timeout",
        "1",
        "--timeout",
        "0",
    ])
}

fn finish(mut server: Server) {
    server.allow("Invalid request");
    server.allow("does not read its response");
    server.finish();
}
