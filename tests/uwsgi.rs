//! `protocol = uwsgi`: packets in the place of heads, by raw frames and from a real nginx.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal::SIGHUP;

use crate::util::client::{Address, Client, Response};
use crate::util::json::Json;
use crate::util::nginx::Nginx;
use crate::util::root;
use crate::util::server::{Plan, Server};
use crate::util::tls::{Authority, Key};
use crate::util::wait_until;

/// What nginx sends by the file that it comes with, of a client elsewhere.
const USUAL: &[(&str, &str)] = &[
    ("QUERY_STRING", "a=1&b=%20x"),
    ("REQUEST_METHOD", "GET"),
    ("CONTENT_TYPE", ""),
    ("CONTENT_LENGTH", ""),
    ("REQUEST_URI", "/caf%C3%A9?a=1&b=%20x"),
    ("PATH_INFO", "/caf\u{e9}"),
    ("DOCUMENT_ROOT", "/usr/share/nginx/html"),
    ("SERVER_PROTOCOL", "HTTP/2.0"),
    ("REQUEST_SCHEME", "https"),
    ("HTTPS", "on"),
    ("REMOTE_ADDR", "192.0.2.1"),
    ("REMOTE_PORT", "40000"),
    ("SERVER_PORT", "443"),
    ("SERVER_NAME", "example.com"),
    ("HTTP_HOST", "example.com"),
];

/// A request's packet.
fn packet(vars: &[(&str, &str)]) -> Vec<u8> {
    let mut pairs = Vec::new();
    for text in vars.iter().flat_map(|(name, value)| [name, value]) {
        pairs.extend((text.len() as u16).to_le_bytes());
        pairs.extend_from_slice(text.as_bytes());
    }
    framed(0, &pairs)
}

fn framed(modifier1: u8, pairs: &[u8]) -> Vec<u8> {
    let [low, high] = (pairs.len() as u16).to_le_bytes();
    [&[modifier1, low, high, 0], pairs].concat()
}

fn get(path: &str) -> Vec<u8> {
    packet(&[("REQUEST_METHOD", "GET"), ("PATH_INFO", path)])
}

/// A packet that announces so many bytes.
fn post(path: &str, length: usize) -> Vec<u8> {
    let length = length.to_string();
    packet(&[("REQUEST_METHOD", "POST"), ("PATH_INFO", path), ("CONTENT_LENGTH", &length)])
}

/// The answer to a request on a connection of its own, which ends with it.
#[track_caller]
fn asked(server: &Server, bytes: &[u8]) -> Response {
    let mut client = server.connect();
    client.send(bytes);
    last(&mut client)
}

#[track_caller]
fn last(client: &mut Client) -> Response {
    let answer = client.read();
    assert!(answer.says_close() && answer.version == "HTTP/1.1" && !answer.is_chunked(), "{:?}", answer.headers);
    client.expect_closed(Duration::from_secs(5));
    answer
}

fn uwsgi<const N: usize>(app: &str, args: [&str; N]) -> Plan {
    Plan::app(app).args(["--protocol", "uwsgi"]).args(args)
}

#[test]
fn a_packet_is_a_request_and_its_variables_are_the_environs() {
    let own = [
        ("REMOTE_USER", "alice"),
        ("SSL_CLIENT_S_DN", "CN=alice"),
        ("HTTP_X_A", "one"),
        ("HTTP_X_A", "two"),
        ("HTTP_COOKIE", "a=1"),
        ("HTTP_COOKIE", "b=2"),
        ("HTTP_PROXY", "http://evil"),
        ("HTTP_TRANSFER_ENCODING", "chunked"),
        ("HTTP_CONTENT_LENGTH", "9"),
        ("wsgi.input", "text"),
        ("gunicorn.socket", "text"),
    ];
    for class in ["sync", "gthread", "gevent"] {
        let server = uwsgi("echo", ["-k", class]).start();
        let report = asked(&server, &packet(&[USUAL, &own].concat())).json();
        let expected = [
            ("REQUEST_METHOD", "GET"),
            ("QUERY_STRING", "a=1&b=%20x"),
            ("REQUEST_URI", "/caf%C3%A9?a=1&b=%20x"),
            ("RAW_URI", "/caf%C3%A9?a=1&b=%20x"),
            ("SCRIPT_NAME", ""),
            // The two bytes of an e with an accent, as PEP 3333 has it.
            ("PATH_INFO", "/caf\u{c3}\u{a9}"),
            ("DOCUMENT_ROOT", "/usr/share/nginx/html"),
            ("SERVER_PROTOCOL", "HTTP/2.0"),
            ("REQUEST_SCHEME", "https"),
            ("HTTPS", "on"),
            ("wsgi.url_scheme", "https"),
            ("REMOTE_ADDR", "192.0.2.1"),
            ("REMOTE_PORT", "40000"),
            ("SERVER_PORT", "443"),
            ("SERVER_NAME", "example.com"),
            ("HTTP_HOST", "example.com"),
            ("REMOTE_USER", "alice"),
            ("SSL_CLIENT_S_DN", "CN=alice"),
            ("HTTP_X_A", "one,two"),
            ("HTTP_COOKIE", "a=1; b=2"),
        ];
        for (key, value) in expected {
            assert_eq!(report.get(key).map(Json::text), Some(value), "{key} under {class}");
        }
        for absent in ["CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_PROXY", "HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_LENGTH"]
        {
            assert!(report.get(absent).is_none(), "{absent} under {class}");
        }
        assert_ne!(report["types"]["wsgi.input"], "str");
        assert_ne!(report["types"]["gunicorn.socket"], "str");
        server.finish();
    }
}

#[test]
fn what_a_packet_does_not_say_is_the_connections_or_plain() {
    let server = uwsgi("echo", []).env("SCRIPT_NAME", "/app").start();
    let report = asked(&server, &packet(&[("PATH_INFO", "/app/a b%")])).json();
    for (key, value) in [
        ("REQUEST_METHOD", "GET"),
        ("RAW_URI", "/app/a%20b%25"),
        ("PATH_INFO", "/a b%"),
        ("SCRIPT_NAME", "/app"),
        ("QUERY_STRING", ""),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", "127.0.0.1"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("wsgi.url_scheme", "http"),
    ] {
        assert_eq!(report[key], value, "{key}");
    }
    assert!(report.get("REMOTE_PORT").is_some_and(|port| !port.text().is_empty()));
    // A proxy that says where the app is mounted has taken that off the path; an empty name says
    // nothing.
    let mounted = asked(&server, &packet(&[("SCRIPT_NAME", "/shop"), ("PATH_INFO", "/cart")])).json();
    assert_eq!((mounted["SCRIPT_NAME"].text(), mounted["PATH_INFO"].text()), ("/shop", "/cart"));
    let unsaid = asked(&server, &packet(&[("SCRIPT_NAME", ""), ("PATH_INFO", "/app/cart")])).json();
    assert_eq!((unsaid["SCRIPT_NAME"].text(), unsaid["PATH_INFO"].text()), ("/app", "/cart"));
    // The port of the proxy is not the client's.
    let elsewhere = asked(&server, &packet(&[("REMOTE_ADDR", "unix:"), ("PATH_INFO", "/app/")])).json();
    assert_eq!(elsewhere["REMOTE_ADDR"], "unix:");
    assert!(elsewhere.get("REMOTE_PORT").is_none());
    server.finish();
}

#[test]
fn however_a_packet_is_cut_it_is_the_same_request() {
    let server = uwsgi("echo", []).start();
    let body = b"four\r\n\r\nlines\0\x05\0\0";
    let length = body.len().to_string();
    let vars = [USUAL, &[("CONTENT_LENGTH", length.as_str()), ("REQUEST_METHOD", "POST")]].concat();
    let whole = [&packet(&vars)[..], body].concat();
    let head = whole.len() - body.len();
    for cuts in [vec![1], vec![2], vec![3], vec![4], vec![5], vec![head - 1], vec![head], vec![head + 1], vec![2, head]]
    {
        let mut client = server.connect();
        let mut start = 0;
        for end in cuts.iter().copied().chain([whole.len()]) {
            client.send(&whole[start..end]);
            start = end;
        }
        let report = last(&mut client).json();
        assert_eq!(report["body"].text().as_bytes(), body, "cut at {cuts:?}");
        assert_eq!(report["REMOTE_ADDR"], "192.0.2.1", "cut at {cuts:?}");
    }
    let mut client = server.connect();
    whole.chunks(1).for_each(|byte| client.send(byte));
    assert_eq!(last(&mut client).json()["body"].text().as_bytes(), body);
    server.finish();
}

#[test]
fn a_body_is_as_long_as_the_packet_says() {
    // In memory, in a file, and read as it comes.
    for args in [
        ["--body-buffer", "5000000", "--body-spool", "0"],
        ["--body-buffer", "1000", "--body-spool", "9000000"],
        ["--body-buffer", "1000", "--body-spool", "1000"],
    ] {
        let server = uwsgi("uwsgi", args).start();
        for length in [0, 1, 70_000, 3_000_000] {
            let body = vec![b'x'; length];
            assert_eq!(
                asked(&server, &[&post("/length", length)[..], &body].concat()).text(),
                format!("{length} {length}")
            );
            // What the app leaves unread the server need not take to the end.
            let mut client = server.connect();
            let _ = client.try_send([&post("/unread", length)[..], &body].concat());
            assert_eq!(last(&mut client).text(), "unread");
        }
        // What stands behind it is nobody's: a connection is for one request.
        let twice = [&post("/length", 1)[..], b"x", &post("/length", 1), b"x"].concat();
        assert_eq!(asked(&server, &twice).text(), "1 1");
        server.finish();
    }
}

/// nginx decodes `$uri`, and may put it into the query string. A response may repeat that.
#[test]
fn a_query_that_ends_a_line_is_refused() {
    let mut server = uwsgi("uwsgi", []).start();
    let vars = [USUAL, &[("QUERY_STRING", "a\r\nX-Injected: 1")]].concat();
    assert_eq!(asked(&server, &packet(&vars)).status, 400);
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn a_body_that_is_too_long_is_refused_in_the_clients_name() {
    let plan = uwsgi("uwsgi", ["--limit-request-body", "10"]);
    let access = plan.path("access.log");
    let mut server = plan.args(["--access-logfile", access.to_str().expect("a plain path")]).start();
    let vars = [USUAL, &[("CONTENT_LENGTH", "11"), ("REQUEST_METHOD", "POST")]].concat();
    assert_eq!(asked(&server, &packet(&vars)).status, 413);
    server.wait_for_log("Invalid request from ip=192.0.2.1: The request body is too large");
    wait_until("the line", || read(&access).contains("192.0.2.1 - - "));
    assert!(read(&access).contains("\"POST /caf%C3%A9?a=1&b=%20x HTTP/2.0\" 413 "), "{}", read(&access));
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn what_is_no_request_is_refused_in_one_line_and_costs_nothing_else() {
    let plan = uwsgi("echo", []);
    let access = plan.path("access.log");
    let mut server = plan.args(["--access-logfile", access.to_str().expect("a plain path")]).start();
    let rows: [(Vec<u8>, u16, &str); 12] = [
        (b"GET /curl HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400, "HTTP was sent to a port that speaks uwsgi"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(), 400, "TLS was sent to a port that speaks plain uwsgi"),
        (framed(5, b""), 501, "Unsupported uWSGI modifier1: 5"),
        (framed(100, b""), 501, "Unsupported uWSGI modifier1: 100"),
        (framed(0, b"\x01"), 400, "Invalid uWSGI header: truncated key size"),
        (framed(0, b"\x09\0short"), 400, "Invalid uWSGI header: truncated key"),
        (framed(0, b"\x01\0a\xff\xffb"), 400, "Invalid uWSGI header: truncated value"),
        (framed(0, &b"\x01\0a\0\0".repeat(1001)), 400, "Invalid uWSGI header: too many variables"),
        (packet(&[("REQUEST_METHOD", "get x")]), 400, "Invalid HTTP method: "),
        (packet(&[("CONTENT_LENGTH", "-1")]), 400, "CONTENT-LENGTH"),
        (packet(&[("HTTP_X", "a\r\nb")]), 400, "Invalid HTTP Header: "),
        (packet(&[("HTTP_X Y", "a")]), 400, "Invalid HTTP header name: "),
    ];
    for (bytes, status, why) in rows {
        let answer = asked(&server, &bytes);
        assert!(answer.status == status && answer.text().contains(why), "{why}: {}", answer.text());
        assert_eq!(asked(&server, &get("/")).status, 200, "{why}");
    }
    // The first of a cause has a line at once.
    for line in
        ["HTTP was sent to a port that speaks uwsgi", "Unsupported uWSGI modifier1: 5", "Invalid uWSGI header: "]
    {
        server.wait_for_log(&format!("Invalid request from ip=127.0.0.1: {line}"));
    }
    wait_until("the lines", || read(&access).matches("\"GET / HTTP/1.1\" 200 ").count() == 12);
    assert!(read(&access).contains("\"GET /curl HTTP/1.1\" 400 "), "{}", read(&access));
    assert!(!server.log().contains("Traceback"), "{}", server.log());
    // Whoever breaks off is no event: balancers look whether the port is open.
    for bytes in [&b""[..], b"\0", b"\0\x10\0\0", b"\0\x10\0\0half"] {
        let mut client = server.connect();
        client.send(bytes);
        client.shutdown_write();
        client.expect_closed(Duration::from_secs(5));
    }
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn only_those_who_are_allowed_may_speak_it() {
    for (allowed, status) in [("10.0.0.0/8,::1", 403), ("127.0.0.0/8", 200), ("*", 200), ("", 403)] {
        let mut server = uwsgi("echo", ["--uwsgi-allow-from", allowed]).start();
        // Whom `forwarded_allow_ips` trusts has no say here.
        let answer = asked(&server, &get("/"));
        assert_eq!(answer.status, status, "{allowed}");
        if status == 403 {
            server.wait_for_log(
                "Invalid request from ip=127.0.0.1: uWSGI request from an address outside uwsgi_allow_ips",
            );
            assert_eq!(asked(&server, b"GET / HTTP/1.1\r\n\r\n").status, 403);
            server.allow("Invalid request");
        }
        server.finish();
    }
    let server = uwsgi("echo", ["--uwsgi-allow-from", ""]).unix().start();
    let report = asked(&server, &packet(&[USUAL, &[("HTTP_HOST", "other.example:81")]].concat())).json();
    let names = ["SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT"].map(|key| report[key].text().to_owned());
    assert_eq!(names, ["example.com", "443", "192.0.2.1", "40000"]);
    let report = asked(&server, &packet(&[("HTTP_HOST", "other.example:81"), ("REMOTE_ADDR", "::1")])).json();
    assert_eq!((report["SERVER_NAME"].text(), report["SERVER_PORT"].text()), ("other.example", "81"));
    assert!(report["REMOTE_ADDR"] == "::1" && report.get("REMOTE_PORT").is_none());
    server.finish();
}

#[test]
fn responses_of_every_kind_are_what_a_proxy_expects() {
    for class in ["sync", "gevent"] {
        let mut server = uwsgi("uwsgi", ["-k", class]).start();
        let stream = asked(&server, &get("/stream"));
        assert!(stream.content_length().is_none() && stream.text().ends_with("block 999\n"), "until the end");
        assert_eq!(asked(&server, &get("/write")).text(), "written and returned");
        let hints = asked(&server, &get("/hints"));
        assert!(hints.interim.is_empty() && hints.text() == "after the hints", "nginx takes a 103 for the answer");
        for (path, status) in [("/empty", 204), ("/unchanged", 304)] {
            let answer = asked(&server, &get(path));
            assert!(answer.status == status && answer.body.is_empty(), "{path}");
        }
        assert_eq!(asked(&server, &get("/raises")).status, 500);
        let mut client = server.connect();
        client.send(packet(&[("REQUEST_METHOD", "HEAD"), ("PATH_INFO", "/stream")]));
        assert_eq!(client.read_for("HEAD").expect("a head").status, 200);
        client.expect_closed(Duration::from_secs(5));
        server.wait_for_log("the app is broken");
        for provoked in ["Error handling request", "Traceback", "the app is broken"] {
            server.allow(provoked);
        }
        server.finish();
    }
}

#[test]
fn it_is_spoken_under_tls_as_well() {
    let root = Authority::root("Test root");
    let issued = root.server(Key::Ecdsa, &["localhost"]);
    let server = uwsgi("echo", []).tls(&issued).start().trusting(root.trust());
    assert_eq!(asked(&server, &get("/")).json()["wsgi.url_scheme"], "https");
    let said = [("PATH_INFO", "/"), ("REQUEST_SCHEME", "http")];
    assert_eq!(asked(&server, &packet(&said)).json()["wsgi.url_scheme"], "http", "the proxy knows its client");
    server.finish();
}

#[test]
fn the_server_itself_answers_checks_and_requests_for_files() {
    let plan = uwsgi("echo", ["--health-path", "/healthz"]);
    let folder = plan.path("files");
    fs::create_dir(&folder).expect("our own folder");
    fs::write(folder.join("a b.txt"), "a file").expect("our own folder");
    let server = plan.args(["--static-map", &format!("/static={}", folder.display())]).start();
    assert_eq!(asked(&server, &get("/healthz")).text(), "ok\n");
    assert_eq!(asked(&server, &get("/static/a b.txt")).text(), "a file");
    let range = [("PATH_INFO", "/static/a b.txt"), ("HTTP_RANGE", "bytes=2-")];
    let part = asked(&server, &packet(&range));
    assert_eq!((part.status, part.text().as_str()), (206, "file"));
    assert_eq!(asked(&server, &get("/static/%61 b.txt")).status, 404, "the proxy has decoded it already");
    assert_eq!(asked(&server, &get("/calls")).text(), "0");
    server.finish();
}

#[test]
fn a_client_that_takes_too_long_is_told_so() {
    let args = ["--client-header-timeout", "1", "--client-body-timeout", "1"];
    let mut server = uwsgi("uwsgi", args).start();
    let mut silent = server.connect();
    let mut halfway = server.connect();
    halfway.send(&packet(USUAL)[..40]);
    let mut without_body = server.connect();
    without_body.send(packet(&[USUAL, &[("CONTENT_LENGTH", "5")]].concat()));
    silent.expect_closed(Duration::from_secs(5));
    assert_eq!(halfway.read().status, 408);
    assert_eq!(without_body.read().status, 408);
    server.wait_for_log("Invalid request from ip=");
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn the_access_log_names_the_client_and_its_user() {
    let plan = uwsgi("echo", ["--access-logformat", "%(h)s %({REMOTE_USER}e)s %(r)s %(U)s %(q)s %({host}i)s %(s)s"]);
    let access = plan.path("access.log");
    let server = plan.args(["--access-logfile", access.to_str().expect("a plain path")]).start();
    asked(&server, &packet(&[USUAL, &[("REMOTE_USER", "alice")]].concat()));
    // The path is decoded, byte by byte, as in HTTP.
    let line = "192.0.2.1 alice GET /caf%C3%A9?a=1&b=%20x HTTP/2.0 /caf\u{c3}\u{a9} a=1&b=%20x example.com 200\n";
    wait_until("the line", || read(&access).ends_with('\n'));
    assert_eq!(read(&access), line);
    server.finish();
}

#[test]
fn hooks_see_the_request() {
    let plan = uwsgi("echo", []).file(
        "conf.py",
        "def pre_request(worker, req):\n    worker.log.info('saw %s %s %s %s %s', req.method, req.uri, req.scheme, \
         req.remote_addr, dict(req.headers).get('X-A'))\n",
    );
    let conf = plan.path("conf.py");
    let server = plan.args(["-c", conf.to_str().expect("a plain path")]).start();
    asked(&server, &packet(&[USUAL, &[("HTTP_X_A", "one")]].concat()));
    server.wait_for_log("saw GET /caf%C3%A9?a=1&b=%20x https ('192.0.2.1', 40000) one");
    server.finish();
}

#[test]
fn a_request_on_a_busy_workers_connection_goes_to_an_idle_sibling() {
    let server = uwsgi("sharing", ["--workers", "2"]).start();
    server.wait_for_workers(2);
    let request =
        [&packet(&[USUAL, &[("PATH_INFO", "/length"), ("CONTENT_LENGTH", "4")]].concat())[..], b"body"].concat();
    // Both workers have some of them, with a part of a packet.
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&request[..10]));
    let mut slow = server.connect();
    slow.send(get("/wait"));
    wait_until("the slow request to be inside the app", || server.entered() == 1);
    for client in &mut clients {
        client.send(&request[10..]);
        let text = last(client).text();
        assert!(text.ends_with(" 4"), "{text}");
    }
    server.release();
    assert_eq!(slow.read().status, 200);
    server.finish();
}

#[test]
fn a_reload_changes_what_is_spoken() {
    let plan = Plan::app("echo").file("conf.py", "protocol = 'http'\n");
    let conf = plan.path("conf.py");
    let mut server = plan.args(["-c", conf.to_str().expect("a plain path")]).start();
    let first = server.wait_for_workers(1);
    assert_eq!(server.get("/").status, 200);
    server.write("conf.py", "protocol = 'uwsgi'\n");
    server.signal(SIGHUP);
    wait_until("the new worker alone", || server.has_serving(1) && !server.workers().contains(&first[0]));
    assert_eq!(asked(&server, &get("/")).status, 200);
    assert_eq!(server.get("/").status, 400);
    server.allow("Invalid request");
    server.finish();
}

#[test]
fn other_words_are_refused_and_a_proxy_header_is_told_of() {
    let finished = Plan::app("echo").args(["--protocol", "fastcgi"]).run();
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("'fastcgi' is not one of 'http', 'uwsgi'"), "{}", finished.stderr);
    let finished = uwsgi("echo", ["--proxy-protocol", "v1", "--check-config"]).run();
    assert!(finished.stderr.contains("the setting 'proxy_protocol' has no effect"), "{}", finished.stderr);
    let finished = uwsgi("echo", ["--uwsgi-allow-from", "10.0.0.1/8"]).run();
    assert!(finished.stderr.contains("has bits set after its prefix"), "{}", finished.stderr);
}

#[test]
fn nginx_speaks_it_over_either_kind_of_socket() {
    for is_unix in [true, false] {
        let plan = uwsgi("echo", ["-k", "gthread", "--threads", "4"]);
        let server = if is_unix { plan.unix().start() } else { plan.start() };
        let Some(nginx) = nginx(&server, "uwsgi_param REMOTE_USER alice; uwsgi_param HTTP_X_SET here;") else {
            return server.finish();
        };
        // One connection to nginx, one to the server for each request.
        let mut client = nginx.connect();
        let port = client.port().to_string();
        let headers =
            ["X-A: 1", "X-A: 2", "Cookie: a=1", "Proxy: evil", "X-Set: by the client", "X-Forwarded-Proto: https"];
        for _ in 0..3 {
            let report = client.request("GET", "/caf%C3%A9/a%20b%25?q=%20x", &headers, b"").json();
            for (key, value) in [
                ("REQUEST_METHOD", "GET"),
                ("PATH_INFO", "/caf\u{c3}\u{a9}/a b%"),
                ("QUERY_STRING", "q=%20x"),
                ("RAW_URI", "/caf%C3%A9/a%20b%25?q=%20x"),
                ("REMOTE_ADDR", "127.0.0.1"),
                ("REMOTE_PORT", &port),
                ("REMOTE_USER", "alice"),
                ("SERVER_NAME", "example.com"),
                ("SERVER_PROTOCOL", "HTTP/1.1"),
                ("HTTP_X_SET", "here"),
                ("HTTP_COOKIE", "a=1"),
                ("wsgi.url_scheme", "http"),
            ] {
                assert_eq!(report.get(key).map(Json::text), Some(value), "{key}");
            }
            // Newer ones join them.
            assert!(["1,2", "1, 2"].contains(&report["HTTP_X_A"].text()), "{:?}", report["HTTP_X_A"]);
            assert!(report.get("HTTP_PROXY").is_none() && report.get("CONTENT_LENGTH").is_none());
        }
        let body = vec![b'x'; 300_000];
        let report = client.request("POST", "/", &["Content-Type: text/plain"], &body).json();
        assert_eq!((report["body_length"].number(), report["CONTENT_TYPE"].text()), (300_000.0, "text/plain"));
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        );
        let report = client.read().json();
        assert_eq!((report["body"].text(), report["CONTENT_LENGTH"].text()), ("hello world", "11"));
        assert!(report.get("HTTP_TRANSFER_ENCODING").is_none());
        assert!(!nginx.log().contains("[error]"), "{}", nginx.log());
        drop(nginx);
        server.finish();
    }
}

#[test]
fn nginx_passes_on_responses_of_every_kind() {
    let server = uwsgi("uwsgi", []).start();
    let Some(nginx) = nginx(&server, "") else { return server.finish() };
    let mut client = nginx.connect();
    for _ in 0..3 {
        assert!(client.get("/stream").text().ends_with("block 999\n"));
        assert_eq!(client.get("/write").text(), "written and returned");
        assert_eq!(client.get("/hints").text(), "after the hints");
        assert_eq!(client.get("/empty").status, 204);
        assert_eq!(client.get("/unchanged").status, 304);
        assert_eq!(client.get("/cookies").all("Set-Cookie"), ["a=1", "b=2"]);
        assert_eq!(client.request("HEAD", "/stream", &[], b"").status, 200);
        assert_eq!(client.request("POST", "/unread", &[], &[b'x'; 100_000]).text(), "unread");
        assert_eq!(client.request("POST", "/length", &[], &[b'x'; 100_000]).text(), "100000 100000");
    }
    assert!(!nginx.log().contains("[error]"), "{}", nginx.log());
    drop(nginx);
    server.finish();
}

#[test]
fn the_sample_for_nginx_is_right() {
    let page = fs::read_to_string(root().join("docs/hosts/process-managers.md")).expect("the page is there");
    let (_, rest) = page.split_once("## nginx by uwsgi").expect("a heading");
    let sample = rest.split("```").nth(1).and_then(|block| block.split_once('\n')).expect("a block").1.to_owned();
    let server = uwsgi("echo", []).unix().start();
    let Address::Unix(socket) = &server.address else { panic!("a unix socket") };
    let socket = socket.display().to_string();
    assert!(sample.contains("unix:/run/monoceros.sock") && sample.contains("listen 80;"), "{sample}");
    let params = Path::new("/etc/nginx/uwsgi_params");
    if !params.is_file() {
        println!("skipped: no {}", params.display());
        return server.finish();
    }
    let nginx = Nginx::start(&server.path("nginx"), |port| {
        let sample = sample.replace("include uwsgi_params", &format!("include {}", params.display()));
        sample.replace("/run/monoceros.sock", &socket).replace("listen 80;", &format!("listen 127.0.0.1:{port};"))
    });
    let Some(nginx) = nginx else { return server.finish() };
    assert_eq!(nginx.connect().get("/a").json()["PATH_INFO"], "/a");
    drop(nginx);
    server.finish();
}

/// nginx before the server, with these further lines.
fn nginx(server: &Server, more: &str) -> Option<Nginx> {
    let to = match &server.address {
        Address::Unix(path) => format!("unix:{}", path.display()),
        address => format!("127.0.0.1:{}", address.port()),
    };
    // What its own file says, which packages put in different places.
    let params = [
        ("QUERY_STRING", "$query_string"),
        ("REQUEST_METHOD", "$request_method"),
        ("CONTENT_TYPE", "$content_type"),
        ("CONTENT_LENGTH", "$content_length"),
        ("REQUEST_URI", "$request_uri"),
        ("PATH_INFO", "$document_uri"),
        ("DOCUMENT_ROOT", "$document_root"),
        ("SERVER_PROTOCOL", "$server_protocol"),
        ("REQUEST_SCHEME", "$scheme"),
        ("HTTPS", "$https if_not_empty"),
        ("REMOTE_ADDR", "$remote_addr"),
        ("REMOTE_PORT", "$remote_port"),
        ("SERVER_PORT", "$server_port"),
        ("SERVER_NAME", "$server_name"),
    ];
    let params: String = params.map(|(name, value)| format!("uwsgi_param {name} {value};\n")).concat();
    Nginx::start(&server.path("nginx"), |port| {
        format!(
            "server {{ listen 127.0.0.1:{port}; server_name example.com; client_max_body_size 0;\n\
             location / {{ uwsgi_pass {to};\n{params}{more} }} }}\n"
        )
    })
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
