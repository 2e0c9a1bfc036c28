//! `defer_accept`: the kernel keeps silent connections back for a while, and no client is lost by
//! it.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal::SIGHUP;

use crate::util::client::Client;
use crate::util::server::{Plan, Server};
use crate::util::wait_until;

/// States of the kernel's table (proc(5), net/tcp).
const ESTABLISHED: &str = "01";
const SYN_RECEIVED: &str = "03";

/// Longer than the kernel keeps a connection, by far.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_silent_client_waits_in_the_kernel_and_is_served_when_it_speaks() {
    let server = Server::start("sharing", ["--defer-accept", "--keep-alive", "60"]);
    let mut client = silent_client(&server, SYN_RECEIVED);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(states(&server), [ESTABLISHED]);
    assert_eq!(client.get("/").status, 200);
    server.finish();
}

#[test]
fn a_silent_client_is_closed_after_its_timeout() {
    let plan = Plan::app("sharing").file("conf.py", "client_header_timeout = 1\ndefer_accept = True");
    let conf = plan.path("conf.py").display().to_string();
    let server = plan.args(["--config", &conf]).start();
    silent_client(&server, SYN_RECEIVED).expect_closed(LONG);
    server.finish();
}

#[test]
fn a_reload_turns_it_on_and_off_for_sockets_in_use() {
    let plan = Plan::app("sharing").file("conf.py", "");
    let conf = plan.path("conf.py").display().to_string();
    let server = plan.args(["--config", &conf]).start();
    for (round, (text, state)) in
        [("defer_accept = True", SYN_RECEIVED), ("defer_accept = False", ESTABLISHED)].into_iter().enumerate()
    {
        let before = server.wait_for_workers(1);
        server.write("conf.py", text);
        server.signal(SIGHUP);
        server.wait_for_log_times("Handling signal: hup", round + 1);
        wait_until("the new generation alone", || server.workers() != before && server.has_serving(1));
        let mut client = silent_client(&server, state);
        assert_eq!(client.get("/").status, 200);
        drop(client);
        wait_until("the connection to end", || states(&server).is_empty());
    }
    server.finish();
}

/// A client that has only connected and whose connection is in `state`: the master sets the option
/// once it knows that a worker serves.
fn silent_client(server: &Server, state: &str) -> Client {
    let mut client = None;
    wait_until("a silent client's state to be the one that is set", || {
        client = None;
        wait_until("the last one to be gone", || states(server).is_empty());
        client = Some(server.connect());
        states(server) == [state]
    });
    client.expect("it has just connected")
}

/// In which of the two states connections to the server's port are, at its end. From one look at
/// the table: beside tests that leave tens of thousands of connections behind that can take so long
/// that the kernel gives one up meanwhile.
fn states(server: &Server) -> Vec<&'static str> {
    let local = format!(":{:04X}", server.address.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_server = fields.filter(|fields| fields[1].ends_with(&local));
    of_server.filter_map(|fields| [ESTABLISHED, SYN_RECEIVED].into_iter().find(|state| fields[3] == *state)).collect()
}
