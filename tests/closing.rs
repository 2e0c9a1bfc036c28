//! How connections end. A connection that was announced as kept alive is not closed while a request
//! of its client is on its way, and none stays open because a child of the app holds a copy of its
//! descriptor.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::util::client::Client;
use crate::util::process::is_stopped;
use crate::util::server::{Plan, Server, send};
use crate::util::wait_until;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A server that is told to end, or to reload, while the app is in the `close()` of a response that
/// the client has received; and that client.
fn told_to_end(args: &[&str], signal: Signal) -> (Server, Client) {
    let server = args.iter().fold(Plan::app("closing"), |plan, arg| plan.args([arg])).start();
    let mut client = server.connect();
    let promised = client.get("/slow-to-close");
    assert_eq!((promised.text().as_str(), promised.header("Connection")), ("ok", Some("keep-alive")));
    wait_until("the app to be in close()", || server.entered() == 1);
    server.signal(signal);
    match signal {
        // After a reload in place the old worker may still take a connection, which then waits for
        // it.
        Signal::SIGHUP => wait_until("an answer of the new worker", || {
            let mut other = server.connect();
            other.send(REQUEST);
            other.read_within("GET", Duration::from_millis(500)).is_ok_and(|answer| answer.text() == "ok")
        }),
        _ => wait_until("the worker to accept no more", || Client::try_connect(&server.address).is_err()),
    }
    (server, client)
}

const WORKERS: &[&[&str]] = &[&[], &["--threads", "4"], &["--preload"]];

/// RFC 9112, 2.2: some clients send an empty line behind a body.
#[test]
fn a_line_end_behind_a_body_is_no_request_that_is_late() {
    let server = Server::start("echo", ["--threads", "2", "--keep-alive", "1", "--client-header-timeout", "3"]);
    for then in ["", "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nok"] {
        let mut client = server.connect();
        client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nok\r\n");
        assert_eq!(client.read().status, 200);
        client.send(then);
        if !then.is_empty() {
            assert_eq!(client.read().status, 200);
        }
        client.expect_closed(Duration::from_secs(10));
    }
    server.finish();
}

/// RFC 9112, 8: the end of the connection would look like the body's.
#[test]
fn a_body_that_only_the_end_ends_is_reset_where_the_worker_ends_before_it() {
    let app = "def application(environ, start_response):\n\
        \x20   start_response('200 OK', [])\n\
        \x20   return [bytes(64 << 20)]\n";
    let plan = Plan::app("app").in_own_folder().file("app.py", app);
    let mut server = plan.args(["--graceful-timeout", "4"]).start();
    let mut client = TcpStream::connect(("127.0.0.1", server.address.port())).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    client.read_exact(&mut [0; 1000]).unwrap();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(!server.log().contains("SIGKILL"), "{}", server.log());
    assert_eq!(client.read_to_end(&mut Vec::new()).unwrap_err().kind(), ErrorKind::ConnectionReset);
    server.expect_gone();
}

#[test]
fn a_silent_client_before_a_proxy_header_holds_up_no_stop() {
    let mut server = Server::start("echo", ["--proxy-protocol", "v1", "--graceful-timeout", "20"]);
    let mut silent = server.connect();
    // It was accepted before this one.
    let mut other = server.connect();
    other.send(["PROXY UNKNOWN\r\n", REQUEST].concat());
    assert_eq!(other.read().status, 200);
    server.signal(Signal::SIGTERM);
    let (status, took) = server.wait_for_exit_within(Duration::from_secs(30));
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    silent.expect_closed(Duration::from_secs(10));
    server.expect_gone();
}

#[test]
fn a_request_that_comes_while_the_app_closes_its_response_is_answered_whatever_the_server_was_told() {
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        for args in WORKERS {
            let (mut server, mut client) = told_to_end(args, signal);
            client.send(REQUEST);
            server.release();
            let answer = client.read_for("GET").unwrap_or_else(|broken| panic!("{signal} {args:?}: {broken:?}"));
            assert_eq!(answer.text(), "ok");
            match signal {
                // Only the old worker knows whether it had been told yet.
                Signal::SIGHUP => server.finish(),
                _ => {
                    assert!(answer.says_close());
                    client.expect_closed(Duration::from_secs(5));
                    assert_eq!(server.wait_for_exit().code(), Some(0));
                }
            }
        }
    }
}

#[test]
fn a_promised_connection_is_kept_for_a_moment_after_the_app_was_done_with_it() {
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        for args in WORKERS {
            let (mut server, mut client) = told_to_end(args, signal);
            // Longer than the wait for idle clients: what counts is when this client becomes idle.
            assert!(client.is_silent(Duration::from_millis(2500)), "{signal} {args:?}: it has an end already");
            server.release();
            wait_until("close() to return", || server.path("gate/closed").exists());
            assert!(client.is_silent(Duration::from_millis(300)), "{signal} {args:?}: closed at once");
            client.send(REQUEST);
            let answer = client.read_for("GET").unwrap_or_else(|broken| panic!("{signal} {args:?}: {broken:?}"));
            assert!(answer.says_close());
            match signal {
                Signal::SIGHUP => server.finish(),
                _ => assert_eq!(server.wait_for_exit().code(), Some(0)),
            }
        }
    }
}

/// When the worker continues, long after their deadlines, there are more events than one turn of
/// the event loop takes from the kernel.
#[test]
fn requests_that_wait_in_the_kernel_at_their_connections_deadline_are_answered() {
    let server = Server::start("closing", ["--keep-alive", "5"]);
    let worker = server.wait_for_workers(1)[0];
    let mut clients: Vec<_> = (0..600).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(REQUEST));
    clients.iter_mut().for_each(|client| assert_eq!(client.read().status, 200));
    send(worker, Signal::SIGSTOP);
    // The worker is stopped by the time the last request is on its way.
    clients.iter_mut().for_each(|client| client.send(REQUEST));
    assert!(clients[0].is_silent(Duration::from_millis(6500)));
    send(worker, Signal::SIGCONT);
    let lost = clients.iter_mut().filter_map(|client| client.read_for("GET").err()).count();
    assert_eq!(lost, 0, "requests got no answer");
    server.finish();
}

#[test]
fn the_client_sees_the_end_though_a_child_of_the_app_holds_the_connection() {
    for args in [["--keep-alive", "1"], ["--keep-alive", "1000"]] {
        let mut server = Server::start("closing", args);
        let [mut idle, mut closing, mut forking, mut wrong] = [(); 4].map(|()| server.connect());
        assert_eq!(idle.get("/").status, 200);
        // These were accepted before the child was made, so the child has them open as well.
        for client in [&mut closing, &mut wrong] {
            client.send("GET / HTTP/1.1\r\n");
        }
        assert_eq!(idle.get("/").status, 200);
        assert_eq!(forking.get("/fork").status, 200);
        closing.send("Host: test\r\nConnection: close\r\n\r\n");
        assert!(closing.read().says_close());
        closing.expect_closed(Duration::from_secs(5));
        server.allow("Invalid request");
        wrong.send("Host: one\r\nHost: two\r\n\r\n");
        assert_eq!(wrong.read().status, 400);
        wrong.expect_closed(Duration::from_secs(5));
        if args[1] == "1000" {
            server.signal(Signal::SIGTERM);
        }
        for client in [&mut idle, &mut forking] {
            client.expect_closed(Duration::from_secs(8));
        }
        server.release();
        match args[1] {
            "1000" => assert_eq!(server.wait_for_exit().code(), Some(0)),
            _ => server.finish(),
        }
    }
}

/// At the limit of connections the one that is closed is not one that has just sent a request.
#[test]
fn an_idle_connection_is_read_once_more_before_it_is_closed_for_room() {
    let server = Server::start("closing", ["--worker-connections", "600"]);
    let worker = server.wait_for_workers(1)[0];
    let mut clients: Vec<_> = (0..600).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    send(worker, Signal::SIGSTOP);
    wait_until("the worker to stand still", || is_stopped(worker));
    let mut newcomers: Vec<_> = (0..50).map(|_| server.connect()).collect();
    newcomers.iter_mut().for_each(|client| client.send(REQUEST));
    // The oldest connections send requests. When the worker looks for one to close, it has seen
    // only the last of these.
    let (asking, _idle) = clients.split_at_mut(400);
    asking.iter_mut().rev().for_each(|client| client.send(REQUEST));
    send(worker, Signal::SIGCONT);
    let lost = asking.iter_mut().chain(&mut newcomers).filter_map(|client| client.read_for("GET").err()).count();
    assert_eq!(lost, 0, "requests got no answer");
    server.finish();
}

#[test]
fn a_full_worker_that_stops_serves_the_clients_in_the_kernels_queue() {
    let mut server = Plan::app("process").args(["--worker-connections", "4"]).start();
    let mut idle: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    // A connection keeps its place for a moment (CROWDED_TIME).
    std::thread::sleep(Duration::from_millis(100));
    let mut busy = server.connect();
    busy.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the worker to be busy", || server.entered() == 1);
    let mut queued: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    queued.iter_mut().for_each(|client| client.send(REQUEST));
    server.signal(Signal::SIGTERM);
    wait_until("the worker to accept no more", || Client::try_connect(&server.address).is_err());
    server.release();
    assert_eq!(busy.read().status, 200);
    queued.iter_mut().for_each(|client| assert_eq!(client.read().status, 200));
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
}

/// The worker's loop and the application's threads look for such clients. Whoever sees it first,
/// the client is reset.
#[test]
fn a_client_that_does_not_read_a_live_response_is_reset() {
    let plan = Plan::app("slow_readers").args(["--threads", "4", "--write-timeout", "1"]);
    let mut server = plan.start();
    let mut clients: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut client = TcpStream::connect(("127.0.0.1", server.address.port())).expect("the server accepts");
            client.write_all(b"GET /drip HTTP/1.0\r\n\r\n").expect("the server reads");
            client
        })
        .collect();
    wait_until("all to be given up", || server.gate_files("closed-").len() == clients.len());
    for client in &mut clients {
        let end = client.read_to_end(&mut Vec::new());
        assert_eq!(end.expect_err("half a response looks whole").kind(), ErrorKind::ConnectionReset);
    }
    server.allow("does not read");
    server.finish();
}
