//! Small points of RFC 9110 and RFC 9112, each with the bytes that show it: status lines, header
//! values, the server's own pages, CONNECT, transfer codings, and which host counts.

use std::time::Duration;

use crate::util::client::{Client, Response};
use crate::util::server::{Plan, Server};

/// Answers as the query string says: `status|name: value|...`, and then `hello`.
const APP: &str = r#"
from urllib.parse import unquote


def application(environ, start_response):
    status, *headers = unquote(environ["QUERY_STRING"]).encode("latin-1").decode("latin-1").split("|")
    start_response(status or "200 OK", [tuple(header.split(": ", 1)) for header in headers])
    return [b"hello"]
"#;

fn answering() -> Server {
    let mut server = Plan::app("app").in_own_folder().file("app.py", APP).start();
    server.allow("Error handling request");
    server.allow("Traceback");
    server.allow("Invalid request");
    server.allow("more like it");
    server
}

/// All that comes back for `request`, on a connection of its own; it must ask for a close.
fn answer_to(server: &Server, request: &str) -> String {
    let mut client = server.connect();
    client.send(request);
    String::from_utf8_lossy(&client.take_rest(Duration::from_secs(10))).into_owned()
}

#[test]
fn a_status_line_ends_its_code_with_a_space() {
    // RFC 9112, 4: the space is there also where no reason phrase follows.
    let server = answering();
    for (status, line) in [("200", "200 "), ("200%20", "200 "), ("404", "404 "), ("200%20Fine", "200 Fine")] {
        for version in ["1.0", "1.1"] {
            let request = format!("GET /?{status} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n");
            let answer = answer_to(&server, &request);
            assert!(answer.starts_with(&format!("HTTP/{version} {line}\r\n")), "{answer:?}");
        }
    }
    server.finish();
}

#[test]
fn a_header_value_has_no_line_end_at_either_end() {
    let server = answering();
    for value in ["v%0a", "%0av", "v%0d%0a", "%0d", "v%0c", "v%0b", "v%00", "%0a"] {
        let mut client = server.connect();
        let answer = client.get(&format!("/?200%20OK|X-A:%20{value}"));
        assert_eq!((answer.status, answer.header("X-A")), (500, None), "{value}");
        let answer = server.get(&format!("/?200%20OK{value}"));
        assert_eq!(answer.status, 500, "{value} in a status");
    }
    // White space around a value is none of it (RFC 9110, 5.5).
    let answer = server.get("/?200%20OK|X-A:%20%20%09v%20%09|X-B:%20%20|Content-Length:%20%205%20");
    assert_eq!((answer.header("X-A"), answer.header("X-B"), answer.text().as_str()), (Some("v"), Some(""), "hello"));
    server.finish();
}

#[test]
fn early_hints_take_no_line_end_either() {
    let app = "def application(environ, start_response):\n\
               \x20   environ['wsgi.early_hints']([('Link', '</a.css>\\n')])\n\
               \x20   start_response('200 OK', [])\n\
               \x20   return [b'ok']\n";
    let mut server = Plan::app("app").in_own_folder().file("app.py", app).start();
    let answer = server.get("/");
    assert_eq!((answer.status, answer.interim.len()), (500, 0));
    server.allow("Error handling request");
    server.allow("Traceback");
    server.finish();
}

/// Requests that the server itself refuses, each with a status.
const REFUSED: &[(&str, u16)] = &[
    ("/ HTTP/1.1\r\nHost: a\r\nBad Header: 1\r\n\r\n", 400),
    ("/ HTTP/1.1\r\n\r\n", 400),
    ("/ HTTP/9.9\r\n\r\n", 400),
    ("/\x01 HTTP/1.1\r\n\r\n", 400),
    ("/ HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417),
    ("/ HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n", 413),
    ("/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ("/ HTTP/1.1\r\nHost: a\r\nX: 0123456789012345678901234567890123456789012345678901234567890123\r\n\r\n", 431),
];

#[test]
fn the_servers_own_pages_have_a_date_and_no_body_for_head() {
    let args = ["--limit-request-body", "50", "--limit-request-field_size", "60", "--client-header-timeout", "1"];
    let mut server = Server::start("echo", args);
    for (rest, status) in REFUSED.iter().copied().chain([("/ HTTP/1.1\r\nHost: a\r\n", 408)]) {
        let of = |method: &str| {
            let mut client = server.connect();
            client.send(format!("{method} {rest}"));
            let answer = client.read_for(method).unwrap_or_else(|broken| panic!("{method} {rest:?}: {broken:?}"));
            assert_eq!((answer.status, answer.says_close()), (status, true), "{method} {rest:?}");
            assert_eq!(answer.names(), ["Date", "Connection", "Content-Type", "Content-Length"], "{method} {rest:?}");
            let date = answer.header("Date").expect("a Date");
            assert!(date.len() == 29 && date.ends_with(" GMT"), "{date:?}");
            // After a HEAD nothing may follow the head (RFC 9110, 9.3.2).
            client.expect_closed(Duration::from_secs(5));
            answer
        };
        let (get, head) = (of("GET"), of("HEAD"));
        assert!(head.body.is_empty() && get.content_length() == Some(get.body.len()), "{rest:?}");
        assert!(head.content_length() > Some(100), "{rest:?}");
    }
    server.allow("Invalid request");
    server.allow("more like it");
    server.finish();
}

#[test]
fn a_failed_head_request_has_no_body_either() {
    let mut server = answering();
    // Outside SCRIPT_NAME, and an app that fails.
    let elsewhere = Plan::app("echo").env("SCRIPT_NAME", "/mounted").start();
    for (server, target) in [(&server, "/?nonsense"), (&elsewhere, "/other")] {
        let request = |method: &str| format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (get, head) = (answer_to(server, &request("GET")), answer_to(server, &request("HEAD")));
        assert!(head.starts_with("HTTP/1.1 500 ") && head.ends_with("\r\n\r\n"), "{head:?}");
        assert!(get.len() > head.len() && get.starts_with(&head), "{get:?} {head:?}");
    }
    server.allow("Configuration problem");
    server.finish();
    let mut elsewhere = elsewhere;
    elsewhere.allow("Configuration problem");
    elsewhere.finish();
}

#[test]
fn a_tunnel_is_not_framed() {
    // RFC 9110, 9.3.6: a 2xx answer to CONNECT has neither Content-Length nor Transfer-Encoding;
    // what follows is the tunnel.
    let server = answering();
    let connect = |query: &str| answer_to(&server, &format!("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n{query}"));
    let tunnel = "def application(environ, start_response):\n\
                  \x20   status, *headers = environ['HTTP_X_ANSWER'].split('|')\n\
                  \x20   start_response(status, [tuple(header.split(': ', 1)) for header in headers])\n\
                  \x20   return [b'hel', b'lo']\n";
    let other = Plan::app("app").in_own_folder().file("app.py", tunnel).start();
    for (status, is_tunnel) in
        [("200 OK", true), ("204 No Content", true), ("205 Reset Content", true), ("407 No", false)]
    {
        for headers in ["", "|Content-Length: 5"] {
            for version in ["1.0", "1.1"] {
                let request =
                    format!("CONNECT a:443 HTTP/{version}\r\nHost: a:443\r\nX-Answer: {status}{headers}\r\n\r\n");
                let answer = answer_to(&other, &request);
                let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
                let framing = ["Content-Length", "Transfer-Encoding"].iter().any(|name| head.contains(name));
                if is_tunnel {
                    assert_eq!((framing, body), (false, "hello"), "{request}{answer}");
                } else {
                    assert_eq!(framing, version == "1.1" || !headers.is_empty(), "{request}{answer}");
                }
                assert!(head.contains("Connection: close"), "{answer}");
            }
        }
    }
    assert!(connect("").starts_with("HTTP/1.1 200 OK"));
    server.finish();
    other.finish();
}

#[test]
fn a_transfer_coding_that_makes_no_sense_is_400_and_an_unknown_one_501() {
    let server = answering();
    let cases = [
        ("", 400),
        (" \t ", 400),
        (", chunked", 400),
        ("chunked,", 400),
        ("gzip,, chunked", 400),
        ("chunked;a=b", 400),
        ("chunked ; a=b", 400),
        ("Chunked;q=0.5", 400),
        ("chunked;", 400),
        ("gzip;q=1, chunked", 400),
        ("gzip, chunked;a=b", 400),
        ("identity;a=b, chunked", 400),
        ("foo", 501),
        ("foo;a=b", 501),
        ("foo, chunked", 501),
        ("xchunked", 501),
    ];
    for (coding, status) in cases {
        for extra in ["", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
            let mut client = server.connect();
            let line = format!("Transfer-Encoding: {coding}\r\n{extra}");
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n5\r\nhello\r\n0\r\n\r\n"));
            let answer = client.read();
            assert_eq!((answer.status, answer.says_close()), (status, true), "{line:?}");
        }
        // An empty one behind a good one is as bad.
        let mut client = server.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n");
        assert_eq!(client.read().status, 400);
    }
    server.finish();
}

#[test]
fn an_absolute_target_names_the_host_and_the_header_is_ignored() {
    // RFC 9112, 3.2.2
    let cases = [
        ("http://evil/x", "Host: a\r\n", "evil"),
        ("http://evil:8080/x?q", "Host: a\r\n", "evil:8080"),
        ("http://user:secret@evil/x", "Host: a\r\n", "evil"),
        ("https://[::1]:8443", "Host: a\r\n", "[::1]:8443"),
        ("http://a/x", "Host: a\r\n", "a"),
        ("http://A:80/x", "Host: a\r\n", "A:80"),
    ];
    let server = Server::start("echo", []);
    let mut client = server.connect();
    for (target, host, seen) in cases {
        // Twice, and with a request in the other form in between.
        for _ in 0..2 {
            client.send(format!("GET {target} HTTP/1.1\r\n{host}\r\n"));
            assert_eq!(client.read().json()["HTTP_HOST"], seen, "{target}");
            client.send(format!("GET /x HTTP/1.1\r\n{host}\r\n"));
            assert_eq!(client.read().json()["HTTP_HOST"], "a", "after {target}");
        }
    }
    // HTTP/1.0 needs no Host; the target has one.
    let mut client = server.connect();
    client.send("GET http://b/x HTTP/1.0\r\n\r\n");
    assert_eq!(client.read().json()["HTTP_HOST"], "b");
    server.finish();
    let server = Plan::app("echo").unix().args(["--permit-missing-host", "--casefold-http-method"]).start();
    let mut client = server.connect();
    for headers in ["Host: a\r\n", "Host:\r\n", ""] {
        client.send(format!("GET http://b:8080/x HTTP/1.1\r\n{headers}\r\n"));
        let seen = client.read().json();
        assert_eq!(seen["HTTP_HOST"], "b:8080", "{headers:?}");
        assert_eq!((seen["SERVER_NAME"].text(), seen["SERVER_PORT"].text()), ("b", "8080"), "{headers:?}");
    }
    server.finish();
}

#[test]
fn a_host_that_breaks_the_rules_is_refused_also_beside_an_absolute_target() {
    let mut server = Server::start("echo", []);
    for headers in ["", "Host:\r\n", "Host: a b\r\n", "Host: a\r\nHost: a\r\n"] {
        assert_eq!(refusal(&mut server.connect(), &format!("GET http://a/ HTTP/1.1\r\n{headers}\r\n")).status, 400);
    }
    server.allow("Invalid request");
    server.allow("more like it");
    server.finish();
}

#[test]
fn strict_host_refuses_a_target_that_contradicts_the_header() {
    let mut server = Server::start("echo", ["--strict-host"]);
    for (target, host) in [("http://evil/x", "a"), ("http://a:81/", "a"), ("https://a/", "a:80"), ("http://a/", "b.a")]
    {
        let answer = refusal(&mut server.connect(), &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(answer.status, 400, "{target} {host}");
    }
    let mut client = server.connect();
    for (target, host) in [("http://a/x", "a"), ("http://a:80/", "A"), ("http://A/", "a:80"), ("/", "a")] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.read().status, 200, "{target} {host}");
    }
    server.allow("Invalid request");
    server.allow("more like it");
    server.finish();
    let plan = Plan::app("echo").file("conf.toml", "strict_host = true\n");
    let path = plan.path("conf.toml").display().to_string();
    let mut server = plan.args(["--config", &path]).start();
    assert_eq!(refusal(&mut server.connect(), "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n").status, 400);
    server.allow("Invalid request");
    server.finish();
}

/// A hook that changes a header changes that one only.
#[test]
fn what_a_hook_does_to_other_headers_leaves_host_and_length_alone() {
    let conf = "def pre_request(worker, req):\n\
                \x20   req.headers = [header for header in req.headers if header[0] != 'X-GONE'] + [('X-NEW', '1')]\n\
                \x20   if req.path == '/host':\n\
                \x20       req.headers = [h for h in req.headers if h[0] != 'HOST'] + [('HOST', 'hooked')]\n";
    let server = Plan::app("echo").config(conf).start();
    let mut client = server.connect();
    for _ in 0..2 {
        client.send("POST http://b/ HTTP/1.1\r\nHost: a\r\nX-Gone: 1\r\nCookie: a=1\r\nCookie: b=2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
        let seen = client.read().json();
        for (key, value) in [
            ("HTTP_HOST", Some("b")),
            ("HTTP_X_NEW", Some("1")),
            ("HTTP_X_GONE", None),
            ("HTTP_COOKIE", Some("a=1; b=2")),
            ("CONTENT_LENGTH", Some("2")),
            ("HTTP_TRANSFER_ENCODING", None),
        ] {
            assert_eq!(seen.get(key).map(|seen| seen.text()), value, "{key}");
        }
        client.send("GET /host HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read().json()["HTTP_HOST"], "hooked");
    }
    server.finish();
}

fn refusal(client: &mut Client, request: &str) -> Response {
    client.send(request);
    client.read()
}
