//! Connections that serve more than one request.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::util::client::Broken;
use crate::util::server::{Plan, Server};

#[test]
fn a_connection_serves_many_requests() {
    for server in [Server::start("echo", []), Plan::app("echo").unix().start()] {
        let mut client = server.connect();
        for number in 0..200 {
            let target = format!("/{number}");
            assert_eq!(client.get(&target).json()["PATH_INFO"], target.as_str());
        }
        server.finish();
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start("echo", []);
    let mut client = server.connect();
    let requests: String = (0..300).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
    client.send(requests);
    for number in 0..300 {
        assert_eq!(client.read().json()["PATH_INFO"], format!("/{number}").as_str());
    }
    server.finish();
}

#[test]
fn version_and_connection_header_decide_whether_it_stays_open() {
    // request line and Connection header, answered Connection header, open afterwards
    let table = [
        ("GET / HTTP/1.1", "", "keep-alive", true),
        ("GET / HTTP/1.1", "Connection: close", "close", false),
        ("GET / HTTP/1.1", "Connection: Close", "close", false),
        ("GET / HTTP/1.1", "Connection: x, close", "close", false),
        ("GET / HTTP/1.0", "", "close", false),
        ("GET / HTTP/1.0", "Connection: Keep-Alive", "keep-alive", true),
    ];
    let server = Server::start("echo", []);
    for (line, connection, answered, open) in table {
        let mut client = server.connect();
        let connection_line = if connection.is_empty() { String::new() } else { format!("{connection}\r\n") };
        client.send(format!("{line}\r\nHost: test\r\n{connection_line}\r\n"));
        assert_eq!(client.read().header("Connection"), Some(answered), "{line} {connection}");
        if open {
            assert_eq!(client.get("/").status, 200, "{line} {connection}");
        } else {
            client.expect_closed(Duration::from_secs(3));
        }
    }
    server.finish();
}

#[test]
fn nothing_is_parsed_behind_a_request_that_closes() {
    let server = Server::start("echo", []);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\nGET /next HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.read().status, 200);
    client.expect_closed(Duration::from_secs(3));
    assert_eq!(server.get("/calls").json().number(), 1.0);
    server.finish();
}

#[test]
fn an_idle_connection_is_closed_after_keepalive() {
    let server = Server::start("echo", ["--keep-alive", "2"]);
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    assert!(client.is_silent(Duration::from_millis(500)), "closed far too early");
    client.expect_closed(Duration::from_secs(5));
    server.finish();
}

#[test]
fn keepalive_0_closes_after_every_response() {
    let server = Server::start("echo", ["--keep-alive", "0"]);
    let mut client = server.connect();
    assert!(client.get("/").says_close());
    client.expect_closed(Duration::from_secs(3));
    server.finish();
}

#[test]
fn idle_connections_delay_no_other_client() {
    let server = Server::start("echo", []);
    let mut idle: Vec<_> = (0..200).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    let silent: Vec<_> = (0..50).map(|_| server.connect()).collect();
    assert_eq!(server.get("/").status, 200);
    idle.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    drop(silent);
    server.finish();
}

#[test]
fn a_client_may_close_its_sending_side_and_still_be_answered() {
    let server = Server::start("process", []);
    let mut client = server.connect();
    client.send("GET /sleep?0.2 HTTP/1.1\r\nHost: test\r\n\r\n");
    client.shutdown_write();
    assert_eq!(client.read().status, 200);
    client.expect_closed(Duration::from_secs(3));
    server.finish();
}

#[test]
fn an_idle_connection_does_not_delay_the_end() {
    let mut server = Server::start("echo", []);
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(matches!(client.read_for("GET"), Err(Broken::Closed)));
}
