//! Clients that leave: before, while and after they are served. The rows AB of the fault table.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::util::client::{Broken, Client};
use crate::util::process::{cpu_time, open_files};
use crate::util::server::{Plan, Server};
use crate::util::{PATIENCE, wait_until};

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let server = Server::start("clients", []);
    let worker = server.wait_for_workers(1)[0];
    let before = server.files_at_rest(worker);
    for round in 0..400 {
        // AB-01, AB-02: closed, or reset, at once. AB-03, AB-04: reset in the middle of a head, of
        // a body.
        drop(server.connect());
        server.connect().reset();
        for begun in ["GET / HTTP/1.1\r\nHo", "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome"] {
            let mut client = server.connect();
            client.send(begun);
            if round % 2 == 0 { client.reset() } else { drop(client) }
        }
        // AB-08: a whole exchange, then gone.
        assert_eq!(server.get("/").text(), "ok");
    }
    assert_eq!(server.get("/calls").text(), "401", "the app was called for what never was a request");
    wait_until("the connections' files to be closed", || open_files(worker) <= before);
    server.finish();
}

#[test]
fn a_request_whose_client_has_left_is_not_run() {
    for (plan, is_unix) in [(Plan::app("clients"), false), (Plan::app("clients").unix(), true)] {
        let log = plan.path("access").display().to_string();
        let server = plan.args(["--access-logfile", &log]).start();
        let mut first = server.connect();
        first.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
        wait_until("the first request to be inside the app", || server.entered() == 1);
        // While the only worker is busy, one client asks and is gone, one asks and has only
        // finished sending.
        let mut gone = server.connect();
        gone.send("GET /stream?1 HTTP/1.1\r\nHost: a\r\n\r\n");
        if is_unix {
            drop(gone)
        } else {
            gone.reset()
        }
        let mut patient = server.connect();
        patient.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        patient.shutdown_write();
        // Whether a client is still there is asked only when its request has waited for a while.
        thread::sleep(Duration::from_millis(500));
        server.release();
        assert_eq!(first.read().text(), "waited");
        assert_eq!(patient.read().text(), "ok");
        assert_eq!(server.get("/calls").text(), "2");
        assert_eq!(server.gate_files("began-").len(), 0);
        wait_until("the access line", || read(&server, "access").contains(r#""GET /stream?1 HTTP/1.1" 499 "#));
        server.finish();
    }
}

#[test]
fn a_client_that_leaves_while_the_app_computes_disturbs_no_other() {
    // AB-05, AB-17: writing to it raises no signal that could end the worker.
    let plan = Plan::app("clients");
    let log = plan.path("access").display().to_string();
    let server = plan.args(["--access-logfile", &log]).start();
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request to be inside the app", || server.entered() == 1);
    client.reset();
    thread::sleep(Duration::from_millis(50));
    server.release();
    assert_eq!(server.get("/").text(), "ok");
    wait_until("the access line", || read(&server, "access").contains(r#""GET /wait HTTP/1.1" 499 "#));
    server.finish();
}

#[test]
fn a_client_that_leaves_during_its_response_ends_the_iteration() {
    // AB-07
    let plan = Plan::app("clients");
    let log = plan.path("access").display().to_string();
    let server = plan.args(["--access-logfile", &log]).start();
    let mut client = server.connect();
    client.send("GET /stream?100000&0.01 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_head().expect("a head").status, 200);
    client.read_exactly(100_000);
    client.reset();
    wait_until("the stream to be closed", || server.gate_files("closed-").len() == 1);
    assert_eq!(server.gate_files("exit-").len(), 1, "the generator was not told");
    assert_eq!(server.get("/").text(), "ok");
    wait_until("the access line", || read(&server, "access").contains(r#""GET /stream?100000&0.01 HTTP/1.1" 499 "#));
    server.finish();
}

#[test]
fn a_client_that_has_only_finished_sending_causes_no_wait() {
    // AB-06: without a request it is closed, with one it is answered; nothing spins.
    let server = Server::start("clients", []);
    let worker = server.wait_for_workers(1)[0];
    let mut idle = server.connect();
    idle.shutdown_write();
    idle.expect_closed(PATIENCE);
    let mut busy = server.connect();
    busy.send("GET /stream?3&0.3 HTTP/1.1\r\nHost: a\r\n\r\n");
    busy.shutdown_write();
    let before = cpu_time(worker);
    assert_eq!(busy.read().body.len(), 3 * 65536);
    busy.expect_closed(PATIENCE);
    let spent = cpu_time(worker) - before;
    assert!(spent < Duration::from_millis(300), "{spent:?} of processor time");
    server.finish();
}

#[test]
fn a_client_that_is_still_sending_can_read_its_refusal() {
    // AB-10, AB-11: what is behind it is dropped for a while before the close, which would else
    // reset the connection.
    let mut server = Server::start("clients", ["--limit-request-body", "1000"]);
    let rows = [
        ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n", 413),
        ("POST /read HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 60000\r\n\r\n", 417),
    ];
    for (head, status) in rows {
        let mut client = server.connect();
        client.send(head);
        for _ in 0..60 {
            client.send([b'x'; 1000]);
        }
        assert_eq!(client.read().status, status);
        client.shutdown_write();
        client.expect_closed(PATIENCE);
    }
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn a_body_that_the_app_does_not_read_delays_no_client() {
    // AB-12: kept whole, and dropped. AB-13: streamed, so the connection ends behind the answer,
    // which arrives.
    let server = Server::start("clients", ["--body-buffer", "1000", "--body-spool", "3000000"]);
    let mut client = server.connect();
    assert_eq!(client.request("POST", "/", &[], &vec![b'x'; 2_000_000]).text(), "ok");
    assert_eq!(client.get("/").text(), "ok");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
    client.send(vec![b'x'; 3_010_000]);
    assert_eq!(client.read().text(), "ok");
    client.shutdown_write();
    client.expect_closed(PATIENCE);
    server.finish();
}

#[test]
fn an_urgent_byte_is_no_part_of_the_stream() {
    // AB-14
    let server = Server::start("clients", []);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHo");
    client.send_urgent(b'!');
    client.send("st: a\r\n\r\n");
    assert_eq!(client.read().text(), "ok");
    server.finish();
}

#[test]
fn a_file_that_shrinks_or_a_client_that_leaves_ends_its_transfer() {
    // AB-18
    let server = Server::start("clients", []);
    let worker = server.wait_for_workers(1)[0];
    let files = server.files_at_rest(worker);
    let big = server.path("gate/big");
    fs::write(&big, vec![b'z'; 30_000_000]).expect("the gate is writable");
    let ask = || {
        let mut client = Client::connect_narrow(&server.address);
        client.send("GET /file?big HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_head().expect("a head").status, 200);
        client.read_exactly(1000);
        client
    };
    ask().reset();
    wait_until("the connection's files to be closed", || open_files(worker) <= files);
    let mut client = ask();
    fs::File::options().write(true).open(&big).and_then(|file| file.set_len(5_000_000)).expect("the file shrinks");
    // Nothing is made up for the bytes that are gone: the connection ends before the length that
    // was promised.
    let rest = client.take_rest(4 * PATIENCE);
    assert!(rest.len() < 30_000_000 - 1000, "{} bytes more", rest.len());
    assert_eq!(server.get("/").text(), "ok");
    wait_until("the connection's files to be closed", || open_files(worker) <= files);
    server.finish();
}

#[test]
fn a_body_that_breaks_off_while_it_streams_is_an_error_to_the_app() {
    let mut server = Server::start("clients", ["--body-buffer", "10", "--body-spool", "20"]);
    for rest in ["5\r\nhello\r\n0\r\n\r\n", "zz\r\n"] {
        let mut client = server.connect();
        client.send("POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n0123456789012345678901");
        client.send("2345678901\r\n");
        client.send(rest);
        if rest.starts_with('5') {
            assert_eq!(client.read().text(), "37");
        } else {
            // If the end comes with the bytes that fill the store, the app is not called at all.
            assert!(matches!(client.read_for("POST"), Ok(answer) if [400, 500].contains(&answer.status)));
        }
    }
    let mut client = server.connect();
    client.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n");
    client.send([b'x'; 50]);
    client.shutdown_write();
    assert!(matches!(client.read_for("POST"), Ok(answer) if answer.status == 500));
    assert!(matches!(client.read_for("POST"), Err(Broken::Closed)));
    server.allow("Invalid chunk size");
    server.allow("Error handling request");
    server.allow("Traceback");
    server.finish();
}

fn read(server: &Server, name: &str) -> String {
    fs::read_to_string(server.path(name)).unwrap_or_default()
}
