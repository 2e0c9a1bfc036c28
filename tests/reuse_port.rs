//! `reuse_port`: one port, a socket for each worker. The master owns all of them, so that no
//! backlog is lost with a worker.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal::{SIGHUP, SIGKILL, SIGSTOP, SIGTERM, SIGTTIN, SIGTTOU};

use crate::util::client::{Address, Client};
use crate::util::server::{Plan, Server, send};
use crate::util::wait_until;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// As many connections as leave no socket of a few without one.
const CROWD: usize = 48;

#[test]
fn each_worker_has_a_socket_and_sockets_stay() {
    let plan = Plan::app("sharing").file("conf.py", "workers = 2");
    let conf = plan.path("conf.py").display().to_string();
    let server = plan.args(["--reuse-port", "--config", &conf]).start();
    server.wait_for_workers(2);
    wait_until("an answer", || server.get("/").status == 200);
    assert_eq!(sockets(&server), 2);
    let listening = server.log().lines().find(|line| line.contains("Listening at")).map(str::to_owned);
    assert_eq!(listening.expect("the line").matches("http://").count(), 1, "{}", server.log());
    // More workers in the settings, then fewer: there are never fewer sockets than before.
    for (round, (workers, expected)) in [(4, 4), (1, 4)].into_iter().enumerate() {
        let before = server.workers();
        server.write("conf.py", &format!("workers = {workers}"));
        server.signal(SIGHUP);
        server.wait_for_log_times("Handling signal: hup", round + 1);
        wait_until("the new generation alone", || {
            server.has_serving(workers) && !server.workers().iter().any(|pid| before.contains(pid))
        });
        assert_eq!(sockets(&server), expected);
        expect_all_served(&server, CROWD);
    }
    // A worker added by TTIN shares the socket of another.
    server.signal(SIGTTIN);
    server.wait_for_workers(2);
    assert_eq!(sockets(&server), 4);
    server.finish();
}

#[test]
fn a_reload_cannot_turn_it_on_and_says_so() {
    let plan = Plan::app("sharing").file("conf.py", "workers = 2");
    let conf = plan.path("conf.py").display().to_string();
    let mut server = plan.args(["--config", &conf]).start();
    let before = server.wait_for_workers(2);
    server.write("conf.py", "workers = 2\nreuse_port = True");
    server.signal(SIGHUP);
    server.wait_for_log("takes effect for");
    wait_until("the new generation alone", || {
        server.has_serving(2) && !server.workers().iter().any(|pid| before.contains(pid))
    });
    assert_eq!(sockets(&server), 1);
    expect_all_served(&server, CROWD);
    server.allow("takes effect for");
    server.finish();
}

#[test]
fn connections_at_a_stopped_workers_socket_are_served_by_another() {
    let server = Server::start("sharing", ["--reuse-port", "--workers", "2", "--timeout", "60"]);
    let workers = server.wait_for_workers(2);
    send(workers[0], SIGSTOP);
    let mut clients: Vec<Client> = (0..CROWD).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    // What the stopped one had accepted already is lost with it; it had not.
    let served: Vec<String> = clients.iter_mut().map(served_by).collect();
    assert!(served.iter().all(|pid| *pid == workers[1].to_string()), "{served:?}");
    send(workers[0], SIGKILL);
    wait_until("a replacement", || server.has_serving(2) && !server.workers().contains(&workers[0]));
    let mut server = server;
    server.allow("was sent SIGKILL");
    server.finish();
}

#[test]
fn a_worker_that_ends_leaves_no_client_waiting() {
    let server = Server::start("sharing", ["--reuse-port", "--workers", "2"]);
    server.wait_for_workers(2);
    server.signal(SIGTTOU);
    wait_until("one to go, asked all the while", || {
        expect_all_served(&server, 8);
        server.has_serving(1)
    });
    assert_eq!(sockets(&server), 2);
    expect_all_served(&server, CROWD);
    server.finish();
}

#[test]
fn a_busy_workers_connections_go_to_an_idle_sibling() {
    let server = Server::start("sharing", ["--reuse-port", "--workers", "2"]);
    server.wait_for_workers(2);
    let mut slow = server.connect();
    slow.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the slow request to be inside the app", || server.entered() == 1);
    let mut clients: Vec<Client> = (0..CROWD).map(|_| server.connect()).collect();
    for _ in 0..2 {
        clients.iter_mut().for_each(|client| client.send(GET));
        let mut served: Vec<String> = clients.iter_mut().map(served_by).collect();
        served.dedup();
        assert_eq!(served.len(), 1, "the free worker serves all: {served:?}");
    }
    server.release();
    assert_eq!(slow.read().status, 200);
    server.finish();
}

#[test]
fn the_kernel_spreads_connections_so_that_no_worker_starves() {
    let server = Server::start("sharing", ["--reuse-port", "--workers", "4"]);
    server.wait_for_workers(4);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut clients: Vec<Client> = (0..4 * CROWD).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    clients.iter_mut().for_each(|client| *counts.entry(served_by(client)).or_default() += 1);
    // An even share is 48. By chance a fair distribution of 192 leaves one below 16 once in ten
    // million times.
    assert!(counts.len() == 4 && counts.values().all(|count| (16..=96).contains(count)), "{counts:?}");
    server.finish();
}

#[test]
fn a_stop_serves_what_all_the_backlogs_hold() {
    let mut server = Server::start("sharing", ["--reuse-port", "--workers", "2"]);
    server.wait_for_workers(2);
    let mut slow: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for (place, client) in slow.iter_mut().enumerate() {
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
        wait_until("the slow request to be inside the app", || server.entered() == place + 1);
    }
    let mut queued: Vec<Client> = (0..CROWD).map(|_| server.connect()).collect();
    queued.iter_mut().for_each(|client| client.send(GET));
    server.signal(SIGTERM);
    server.wait_for_log("Handling signal: term");
    server.release();
    for client in slow.iter_mut().chain(&mut queued) {
        assert_eq!(client.read().status, 200);
    }
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(10));
    assert!(status.code() == Some(0) && took < Duration::from_secs(5), "{status} after {took:?}");
    server.expect_gone();
    server.expect_clean_log();
}

fn expect_all_served(server: &Server, count: usize) {
    let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    clients.iter_mut().for_each(|client| assert_eq!(client.read().status, 200));
}

fn served_by(client: &mut Client) -> String {
    client.read().text().split(' ').next().unwrap_or_default().to_owned()
}

/// How many sockets listen on the server's port (proc(5), net/tcp: the local address, then the
/// state, 0A).
fn sockets(server: &Server) -> usize {
    let Address::Tcp(port) = server.address else { panic!("no port: {:?}", server.address) };
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields[1].ends_with(&format!(":{port:04X}")) && fields[3] == "0A").count()
}
