//! What a server costs while it does nothing, by proportional set size.

use std::thread;

use crate::util::process::{anonymous, open_files, pss};
use crate::util::server::{Plan, Server};
use crate::util::{self, wait_until};

#[test]
fn a_master_and_a_hello_worker_hold_little() {
    let server = Plan::app("wsgi").chdir(util::root().join("examples/hello")).start();
    let worker = server.wait_for_workers(1)[0];
    let mut client = server.connect();
    for _ in 0..1000 {
        assert_eq!(client.get("/").status, 200);
    }
    // The program is measured by what is its alone: how much of its file the kernel maps besides
    // depends on what lies in the page cache. The wheel's master holds an interpreter, of which the
    // kernel counts the half that it shares with its worker.
    let (measure, [most_of_master, most_of_worker]): (fn(i32) -> u64, _) =
        if util::is_wheel() { (pss, [8_000_000, 9_000_000]) } else { (anonymous, [2_500_000, 6_000_000]) };
    let (master, worker) = (measure(server.pid()), measure(worker));
    println!("master {} kB, worker {} kB", master / 1024, worker / 1024);
    assert!(master < most_of_master, "the master takes {master} bytes");
    assert!(worker < most_of_worker, "the worker takes {worker} bytes");
    server.finish();
}

#[test]
fn a_worker_does_not_grow_with_the_requests_it_serves() {
    let server = Server::start("echo", []);
    let worker = server.wait_for_workers(1)[0];
    let load = || {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = server.connect();
                    (0..1500)
                        .for_each(|_| assert_eq!(client.request("POST", "/", &["X-A: b"], b"some body").status, 200));
                });
            }
        });
    };
    load();
    let (memory, files) = (anonymous(worker), open_files(worker));
    load();
    load();
    let grown = anonymous(worker).saturating_sub(memory);
    assert!(grown < 500_000, "12000 more requests left {grown} bytes behind");
    wait_until("the clients' connections to be closed", || open_files(worker) <= files);
    server.finish();
}

/// Names that clients invent must not stay in memory: CPython 3.12 keeps interned strings for ever,
/// and no table may grow with the requests.
#[test]
fn header_names_that_never_come_again_take_no_memory() {
    // Many short names, and some that are as long as they may be; each never seen before. What is
    // being read takes room, in each thread.
    let cases = [
        ("1", util::count(50_000, 4000), 24, 4_000_000),
        ("1", util::count(50_000, 400), 8000, 4_000_000),
        ("8", util::count(50_000, 400), 8000, 16_000_000),
    ];
    for (threads, requests, length, limit) in cases {
        let server = Plan::app("wsgi_input").args(["--threads", threads]).start();
        let worker = server.wait_for_workers(1)[0];
        let clients = threads.parse::<usize>().expect("a number");
        // Header blocks that come again have their places, which are few.
        send_random_names(&server, clients, 0..8, 24);
        let before = anonymous(worker);
        send_random_names(&server, clients, 8..8 + requests / clients, length);
        let grown = anonymous(worker).saturating_sub(before);
        println!("{requests} requests with 40 names of {length} bytes, {threads} threads: {grown} bytes more");
        assert!(grown < limit, "{requests} requests, {length} bytes, {threads} threads: {grown} bytes more");
        server.finish();
    }
}

/// Each client sends the `rounds`, each a request with 40 header names of its own.
fn send_random_names(server: &Server, clients: usize, rounds: std::ops::Range<usize>, length: usize) {
    thread::scope(|scope| {
        for client_number in 0..clients {
            let rounds = rounds.clone();
            scope.spawn(move || {
                let mut client = server.connect();
                for round in rounds {
                    let name =
                        |place: usize| format!("{:x<length$}: 1\r\n", format!("n-{client_number}-{round}-{place}-"));
                    let names: String = (0..40).map(name).collect();
                    client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{names}\r\n"));
                    assert_eq!(client.read().status, 200);
                }
            });
        }
    });
}
