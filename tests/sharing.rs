//! Threads of a worker and workers of a server share the work: no request waits behind another
//! while a thread or a worker is free.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::util::client::Client;
use crate::util::server::{Plan, Server};
use crate::util::wait_until;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn ask(client: &mut Client, path: &str) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
}

fn served_by(client: &mut Client) -> i32 {
    let text = client.read().text();
    text.split(' ').next().and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("{text:?}"))
}

/// Six clients, some of whose connections one of two workers has; and the client whose request that
/// worker runs.
fn clients_of_a_busy_worker_among_others(server: &Server) -> (Vec<Client>, Client) {
    server.wait_for_workers(2);
    let mut clients: Vec<Client> = (0..6).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(GET);
        served_by(client);
    }
    let mut slow = server.connect();
    ask(&mut slow, "/wait");
    wait_until("the slow request to be inside the app", || server.entered() == 1);
    (clients, slow)
}

#[test]
fn threads_serve_at_the_same_time_and_say_so() {
    for args in [["--threads", "3"], ["-k", "gthread"]] {
        let server = Server::start("sharing", args);
        assert!(server.get("/").text().ends_with(" True"), "wsgi.multithread");
        server.wait_for_log("Using worker: gthread");
        server.finish();
    }
    let server = Server::start("sharing", ["--threads", "3"]);
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| ask(client, "/meet"));
    clients.iter_mut().for_each(|client| assert_eq!(client.read().status, 200));
    server.finish();
}

#[test]
fn one_thread_is_the_main_thread() {
    let server = Server::start("sharing", []);
    assert!(server.get("/").text().ends_with(" MainThread False"));
    server.finish();
}

#[test]
fn a_request_on_a_busy_workers_connection_goes_to_an_idle_sibling_with_its_connection() {
    let server = Server::start("sharing", ["--workers", "2"]);
    let (mut clients, mut slow) = clients_of_a_busy_worker_among_others(&server);
    // All six are answered though some of their connections were the busy worker's; twice, the
    // second time where they are now.
    for body in ["Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n1\r\nb\r\n3\r\nody\r\n0\r\n\r\n"] {
        let served: Vec<i32> = clients
            .iter_mut()
            .map(|client| {
                client.send(format!("POST /length HTTP/1.1\r\nHost: a\r\n{body}"));
                let text = client.read().text();
                let (pid, length) = text.split_once(' ').unwrap_or_else(|| panic!("{text:?}"));
                assert_eq!(length, "4", "the body travels too");
                pid.parse().expect("a pid")
            })
            .collect();
        assert!(served.windows(2).all(|pair| pair[0] == pair[1]), "the free worker serves all: {served:?}");
    }
    server.release();
    assert_eq!(slow.read().status, 200);
    server.finish();
}

#[test]
fn a_worker_whose_threads_are_all_busy_goes_on_with_everything_else() {
    let server = Plan::app("sharing").args(["--threads", "2", "--keep-alive", "1", "--workers", "1"]).start();
    let mut idle = server.connect();
    idle.send(GET);
    idle.read();
    let mut malformed = server.connect();
    malformed.send("GET / HTTP/1.1\r\n");
    let mut reader = server.connect();
    ask(&mut reader, "/big?8000000");
    let mut busy: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    busy.iter_mut().for_each(|client| ask(client, "/wait"));
    wait_until("both threads to be inside the app", || server.entered() == 2);
    malformed.send("No colon\r\n\r\n");
    assert_eq!(malformed.read().status, 400, "a malformed head is refused at once");
    assert_eq!(reader.read().body.len(), 8_000_000, "a slow response goes on being written");
    idle.expect_closed(Duration::from_secs(5));
    server.release();
    busy.iter_mut().for_each(|client| assert_eq!(client.read().status, 200));
    let mut server = server;
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn new_connections_spread_evenly_over_idle_workers() {
    // A worker leaves a connection to its siblings for 5 ms, and a busy machine may let them wait
    // for longer.
    let mut seen = Vec::new();
    for _ in 0..5 {
        let server = Server::start("sharing", ["--workers", "4"]);
        server.wait_for_workers(4);
        let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
        let serve = |_| {
            let mut client = server.connect();
            client.send(GET);
            *counts.entry(served_by(&mut client)).or_default() += 1;
            client
        };
        let clients: Vec<Client> = (0..16).map(serve).collect();
        drop(clients);
        server.finish();
        if counts.len() == 4 && counts.values().all(|count| (3..=5).contains(count)) {
            return;
        }
        seen.push(counts);
    }
    panic!("{seen:?}");
}

#[test]
fn a_client_that_has_finished_sending_gets_a_long_response_whole() {
    let server = Server::start("sharing", []);
    let mut client = server.connect();
    ask(&mut client, "/big?30000000");
    client.shutdown_write();
    assert_eq!(client.read().body.len(), 30_000_000);
    server.finish();
}

#[test]
fn garbage_behind_a_request_does_not_cut_its_response() {
    let mut server = Server::start("sharing", []);
    let mut client = server.connect();
    ask(&mut client, "/big?30000000");
    client.send("no request\r\n\r\n");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(client.read().body.len(), 30_000_000);
    assert_eq!(client.read().status, 400);
    server.allow("Invalid request");
    server.finish();
}

/// In memory, and in a file already; of a known length, and in chunks; with another request behind
/// it.
#[test]
fn a_request_with_a_long_body_goes_to_an_idle_sibling_too() {
    let server = Server::start("sharing", ["--workers", "2", "--body-buffer", "200000"]);
    let (mut clients, mut slow) = clients_of_a_busy_worker_among_others(&server);
    for length in [100_000, 900_000] {
        let body = "b".repeat(length);
        let plain = format!("Content-Length: {length}\r\n\r\n{body}");
        let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
        for framed in [plain, chunked] {
            let served: Vec<String> = clients
                .iter_mut()
                .flat_map(|client| {
                    client.send(format!("POST /length HTTP/1.1\r\nHost: a\r\n{framed}{GET}"));
                    let (text, behind) = (client.read().text(), client.read().text());
                    let (pid, travelled) = text.split_once(' ').unwrap_or_else(|| panic!("{text:?}"));
                    assert_eq!(travelled, length.to_string());
                    [pid.to_owned(), behind.split(' ').next().unwrap_or_default().to_owned()]
                })
                .collect();
            assert!(served.windows(2).all(|pair| pair[0] == pair[1]), "the free worker serves all: {served:?}");
        }
    }
    server.release();
    assert_eq!(slow.read().status, 200);
    server.finish();
}

/// What lies unread when a connection is closed makes the kernel reset it, and drop whatever it has
/// not sent yet.
#[test]
fn bytes_behind_the_last_request_do_not_cost_its_response() {
    let server = Server::start("sharing", []);
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    wait_until("the request to be inside the app", || server.entered() == 1);
    client.send("\r\n");
    server.release();
    assert_eq!(client.read().status, 200);
    server.finish();
}

#[test]
fn a_block_is_sent_whole_before_the_app_makes_the_next() {
    let server = Plan::app("sharing").unix().start();
    let mut client = server.connect();
    ask(&mut client, "/blocks");
    client.read_until(b"\r\n\r\n");
    // The chunk's size line, the block and its end, while the app still waits.
    client.read_exactly("16E360\r\n".len() + 1_500_000 + 2);
    server.release();
    client.read_until(b"0\r\n\r\n");
    server.finish();
}

#[test]
fn a_thread_of_the_app_that_goes_on_reading_disturbs_no_other_request() {
    let mut server = Server::start(
        "sharing",
        ["--body-buffer", "1000", "--body-spool", "0", "--client-body-timeout", "2", "--threads", "2"],
    );
    let worker = server.wait_for_workers(1);
    let mut client = server.connect();
    client.send("POST /leave-a-reader HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
    client.send(vec![b'x'; 100_000]);
    for _ in 0..20 {
        assert_eq!(server.get("/").status, 200);
    }
    drop(client);
    wait_until("the request to end", || server.get("/").status == 200);
    assert_eq!(server.workers(), worker);
    server.allow("");
    server.finish();
}

#[test]
fn a_second_head_that_cannot_be_read_is_no_head() {
    let mut server = Server::start("sharing", []);
    assert_eq!(server.get("/bad-second-start").status, 500);
    server.allow("");
    server.finish();
}

#[test]
fn quick_requests_do_not_wait_behind_slow_ones() {
    const LIMIT: Duration = Duration::from_millis(20);
    // A busy machine may not schedule a process for longer than that. A server that makes clients
    // wait has no good round.
    let mut seen = Vec::new();
    for _ in 0..5 {
        let server = Plan::app("process").args(["--workers", "2"]).start();
        server.wait_for_workers(2);
        let p99 = quick_p99(&server);
        server.finish();
        if p99 < LIMIT {
            return println!("p99 {p99:?}");
        }
        seen.push(p99);
    }
    panic!("quick requests waited: {seen:?}");
}

/// What 99 of 100 quick requests on eight kept connections take at most, while a ninth client asks
/// for a second of sleep each time.
fn quick_p99(server: &Server) -> Duration {
    const SLOW: usize = 4;
    let is_over = AtomicBool::new(false);
    let mut took: Vec<Duration> = thread::scope(|scope| {
        let quick = || {
            let mut client = server.connect();
            let mut took = Vec::new();
            while !is_over.load(Relaxed) {
                let start = Instant::now();
                assert_eq!(client.get("/").status, 200);
                took.push(start.elapsed());
                thread::sleep(Duration::from_millis(2));
            }
            took
        };
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(quick)).collect();
        let mut slow = server.connect();
        (0..SLOW).for_each(|_| assert_eq!(slow.get("/sleep?1").status, 200));
        is_over.store(true, Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect()
    });
    took.sort_unstable();
    assert!(took.len() > 1000, "only {} requests", took.len());
    took[took.len() * 99 / 100]
}
