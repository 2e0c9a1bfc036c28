//! The limits on a request, and the bytes of the page that refuses it.

use std::time::Duration;

use crate::util::server::Server;

#[test]
fn the_request_line_is_limited() {
    let mut server = Server::start("echo", ["--limit-request-line", "100"]);
    let target = |length: usize| format!("/{}", "a".repeat(length - "GET / HTTP/1.1".len()));
    assert_eq!(server.get(&target(100)).status, 200);
    let refusal = server.get(&target(101));
    assert_eq!((refusal.status, refusal.reason.as_str()), (414, "URI Too Long"));
    assert!(refusal.text().contains("Request Line is too large (101 &gt; 100)"), "{}", refusal.text());
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn header_fields_are_limited_in_number_and_size() {
    let mut server = Server::start("echo", ["--limit-request-fields", "3", "--limit-request-field_size", "50"]);
    let mut client = server.connect();
    assert_eq!(client.request("GET", "/", &["A: 1", "B: 2"], b"").status, 200);
    assert_eq!(client.request("GET", "/", &["A: 1", "B: 2", "C: 3"], b"").status, 431);
    let long = format!("A: {}", "x".repeat(50));
    assert_eq!(server.connect().request("GET", "/", &[&long], b"").status, 431);
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn a_refusal_is_a_page_a_log_line_and_a_close() {
    let mut server = Server::start("echo", []);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\nBad Header: 1\r\n\r\n");
    let refusal = client.read();
    assert_eq!((refusal.status, refusal.reason.as_str()), (400, "Bad Request"));
    assert_eq!(refusal.names(), ["Date", "Connection", "Content-Type", "Content-Length"]);
    assert_eq!(refusal.header("Content-Type"), Some("text/html"));
    let page =
        "<html>\n  <head>\n    <title>Bad Request</title>\n  </head>\n  <body>\n    <h1><p>Bad Request</p></h1>\n    ";
    assert!(refusal.text().starts_with(page), "{}", refusal.text());
    assert!(refusal.text().ends_with("\n  </body>\n</html>\n"), "{}", refusal.text());
    client.expect_closed(Duration::from_secs(3));
    server.wait_for_log("[WARNING] Invalid request from ip=127.0.0.1: ");
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn what_a_client_sends_cannot_become_markup_in_the_page() {
    let mut server = Server::start("echo", []);
    let mut client = server.connect();
    client.send("<script> / HTTP/1.1\r\nHost: test\r\n\r\n");
    let refusal = client.read();
    assert_eq!(refusal.status, 400);
    assert!(!refusal.text().contains("<script>"), "{}", refusal.text());
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn a_refusal_disturbs_no_other_connection() {
    let mut server = Server::start("echo", []);
    let mut good = server.connect();
    assert_eq!(good.get("/").status, 200);
    for _ in 0..50 {
        let mut bad = server.connect();
        bad.send("NONSENSE\r\n\r\n");
        assert_eq!(bad.read().status, 400);
        assert_eq!(good.get("/").status, 200);
    }
    server.allow("Invalid request");
    server.finish();
}
