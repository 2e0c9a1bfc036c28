//! Blocks that an app yields one right behind the other: some leave together, none waits for the
//! app.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::util::client::Client;
use crate::util::server::{Plan, Server};
use crate::util::tls::{Authority, Key};
use crate::util::wait_until;

const STREAMED: &str = "Transfer-Encoding: chunked";

fn start(args: [&str; 2]) -> Server {
    Plan::app("streams").args(args).start()
}

/// Each in a chunk of its own, as they stand on the wire.
fn chunks(name: &str) -> Vec<u8> {
    (0..20)
        .map(|number| format!("{name} {number}\n"))
        .map(|block| format!("{:X}\r\n{block}\r\n", block.len()))
        .collect::<String>()
        .into()
}

#[test]
fn blocks_are_with_the_client_while_the_app_is_at_its_next_one() {
    for args in [["--threads", "1"], ["--threads", "4"]] {
        let server = start(args);
        let mut client = server.connect();
        client.send("GET /pause HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let before = client.read_until(&chunks("before"));
        assert!(memchr::memmem::find(&before, STREAMED.as_bytes()).is_some());
        // Also after the standby thread has stopped looking for them.
        client.read_until(&chunks("again"));
        server.release();
        assert_eq!(client.take_rest(Duration::from_secs(10)), [&chunks("after")[..], b"0\r\n\r\n"].concat());
        server.finish();
    }
}

#[test]
fn blocks_are_with_the_client_while_the_app_closes_them() {
    let server = start(["--threads", "1"]);
    let mut client = server.connect();
    client.send("GET /pause-in-close HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    client.read_until(&chunks("all"));
    server.release();
    assert_eq!(client.take_rest(Duration::from_secs(10)), b"0\r\n\r\n");
    server.finish();
}

#[test]
fn the_rest_of_a_long_response_is_sent_while_the_app_is_busy() {
    let server = start(["--threads", "1"]);
    let mut client = server.connect();
    client.send("GET /long-before-pause HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the app to be at something else", || server.entered() == 1);
    assert_eq!(client.read().body.len(), 20_000_000);
    server.release();
    server.finish();
}

#[test]
fn blocks_are_with_the_client_while_the_app_reads_what_it_sends() {
    let server = Plan::app("streams").args(["--body-buffer", "1000", "--body-spool", "1000"]).start();
    let mut client = server.connect();
    client.send("POST /pause-in-input HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n");
    client.send([b'x'; 5000]);
    client.read_until(&chunks("before"));
    client.send([b'x'; 95_000]);
    assert_eq!(client.take_rest(Duration::from_secs(10)), b"D\r\n100000 bytes\n\r\n0\r\n\r\n");
    server.finish();
}

#[test]
fn blocks_before_an_error_arrive_and_look_incomplete() {
    let mut server = start(["--threads", "1"]);
    let mut client = server.connect();
    client.send("GET /raises HTTP/1.1\r\nHost: test\r\n\r\n");
    client.read_until(&chunks("before"));
    assert_eq!(client.take_rest(Duration::from_secs(10)), b"");
    server.allow("Error handling request GET /raises");
    server.allow("Traceback");
    server.finish();
}

/// Without chunks or a length only the end of the connection ends a body (RFC 9112, 8).
#[test]
fn a_response_that_only_the_close_ends_looks_incomplete_too() {
    let mut server = start(["--threads", "1"]);
    for (target, is_whole) in [("/raises", false), ("/sizes", true)] {
        let mut client = TcpStream::connect(("127.0.0.1", server.address.port())).expect("a connection");
        client.write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes()).expect("a request");
        let end = client.read_to_end(&mut Vec::new());
        assert_eq!(end.is_ok(), is_whole, "{target}: {end:?}");
    }
    server.allow("Error handling request /raises");
    server.allow("Error handling request GET /raises");
    server.allow("Traceback");
    server.finish();
}

#[test]
fn a_million_blocks_are_not_a_million_segments() {
    let server = start(["--threads", "1"]);
    let mut client = server.connect();
    client.send("GET /crowd HTTP/1.1\r\nHost: test\r\n\r\n");
    client.read_until(&b"1\r\nx\r\n".repeat(1000));
    assert_eq!(client.read_exactly(6 * 999_000 + 5), [&b"1\r\nx\r\n".repeat(999_000)[..], b"0\r\n\r\n"].concat());
    let segments = client.segments_received();
    assert!(segments < 100_000, "{segments} segments");
    server.finish();
}

#[test]
fn a_client_that_reads_slowly_gets_all_of_it() {
    let server = start(["--threads", "1"]);
    let mut client = Client::connect_narrow(&server.address);
    let flood: String = (0..10_000).map(|number| format!("{number:07}\n").repeat(100)).collect();
    assert!(client.get("/flood").body == flood.as_bytes());
    server.finish();
}

#[test]
fn under_tls_nothing_waits_either() {
    let root = Authority::root("Test root");
    let plan = Plan::app("streams").tls(&root.server(Key::Ecdsa, &["localhost"]));
    let server = plan.start().trusting(root.trust());
    let mut client = server.connect();
    client.send("GET /pause HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.read_until(&chunks("before"));
    client.read_until(&chunks("again"));
    server.release();
    assert_eq!(client.take_rest(Duration::from_secs(10)), [&chunks("after")[..], b"0\r\n\r\n"].concat());
    server.finish();
}

#[test]
fn blocks_of_every_length_arrive_whole() {
    let server = start(["--threads", "1"]);
    let mut client = server.connect();
    let sizes: Vec<u8> =
        (0..200).flat_map(|number| vec![number; [1, 700, 9_000, 40_000][usize::from(number) % 4]]).collect();
    assert!(client.get("/sizes").body == sizes);
    server.finish();
}
