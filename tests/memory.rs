//! What a server costs while it does nothing, by proportional set size.

use std::thread;

use crate::util::process::{anonymous, open_files, pss};
use crate::util::server::{Plan, Server};
use crate::util::{self, wait_until};

#[test]
fn a_master_stays_under_3_mb_and_a_hello_worker_under_9() {
    let server = Plan::app("wsgi").chdir(crate::util::root().join("examples/hello")).start();
    let worker = server.wait_for_workers(1)[0];
    let mut client = server.connect();
    for _ in 0..1000 {
        assert_eq!(client.get("/").status, 200);
    }
    let (master, worker) = (pss(server.pid()), pss(worker));
    println!("master {} kB, worker {} kB", master / 1024, worker / 1024);
    // The wheel's master holds an interpreter, of which the kernel counts the half that it shares with its worker.
    let limit = if util::is_wheel() { 8_000_000 } else { 3_000_000 };
    assert!(master < limit, "the master takes {master} bytes");
    assert!(worker < 9_000_000, "the worker takes {worker} bytes");
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
