//! TLS from outside: openssl, curl, Python and a client of our own, which may stall, send garbage,
//! leave, or have a certificate.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::SIGTERM;

use crate::util::client::{Address, Broken, Client};
use crate::util::process::open_files;
use crate::util::server::{Plan, Server};
use crate::util::tls::{Authority, Issued, Key, curl, end_of, openssl, python, word};
use crate::util::{PATIENCE, wait_until};

/// A server with a certificate of an authority that is returned with it.
fn start(plan: Plan) -> (Server, Authority) {
    let root = Authority::root("Test root");
    let issued = root.server(Key::Ecdsa, &["localhost"]);
    let server = plan.tls(&issued).start().trusting(root.trust());
    server.write("root.pem", &root.pem());
    (server, root)
}

fn address(server: &Server) -> String {
    format!("127.0.0.1:{}", server.address.port())
}

const REQUEST: &str = "GET /environ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[test]
fn every_kind_of_key_in_every_form_serves_both_versions() {
    let root = Authority::root("Test root");
    let middle = root.intermediate("Test intermediate");
    for (key, form) in [
        (Key::Rsa, "PRIVATE KEY"),
        (Key::Rsa, "RSA PRIVATE KEY"),
        (Key::Ecdsa, "PRIVATE KEY"),
        (Key::Ecdsa, "EC PRIVATE KEY"),
        (Key::Ed25519, "PRIVATE KEY"),
    ] {
        let mut issued = middle.server(key, &["localhost"]).chained(&middle);
        if form != "PRIVATE KEY" {
            issued.key = openssl(&["pkey", "-traditional"], &issued.key).text;
        }
        assert!(issued.key.starts_with(&format!("-----BEGIN {form}-----")), "{}", issued.key);
        let server = Plan::app("tls").tls(&issued).start();
        server.write("root.pem", &root.pem());
        let root = word(server.path("root.pem"));
        for version in ["-tls1_2", "-tls1_3"] {
            let arguments = [
                "s_client",
                "-connect",
                &address(&server),
                version,
                "-CAfile",
                &root,
                "-servername",
                "localhost",
                "-verify_return_error",
                "-ign_eof",
                "-crlf",
            ];
            let said = openssl(&arguments, &REQUEST.replace("\r\n", "\n")).text;
            assert!(said.contains("Verify return code: 0 (ok)"), "{key:?} {form} {version}: {said}");
            assert!(said.contains("HTTP/1.1 200 OK"), "{key:?} {form} {version}: {said}");
        }
        server.finish();
    }
}

#[test]
fn the_log_and_the_environ_say_that_it_is_tls() {
    let (server, _) = start(Plan::app("tls"));
    assert!(server.log().contains("Listening at: https://127.0.0.1:"), "{}", server.log());
    let environ = server.get("/environ").json();
    let say = |key: &str| environ[key].text().to_owned();
    assert_eq!(["wsgi.url_scheme", "HTTPS", "SSL_CLIENT_VERIFY"].map(say), ["https", "on", "NONE"]);
    // A trusted proxy decides the scheme, as in gunicorn.
    let response = server.connect().request("GET", "/environ", &["X-Forwarded-Proto: http"], b"");
    assert_eq!(response.json()["wsgi.url_scheme"].text(), "http");
    server.finish();

    let plain = Server::start("tls", []);
    let environ = plain.get("/environ").text();
    assert!(!environ.contains("HTTPS") && !environ.contains("SSL_CLIENT"), "{environ}");
    assert_eq!(plain.get("/plain").text(), "false");
    plain.finish();
}

#[test]
fn kept_alive_pipelined_and_large_requests_are_served() {
    let (server, _) = start(Plan::app("tls").args(["--body-buffer", "100000", "--body-spool", "300000"]));
    let mut client = server.connect();
    for size in [0, 1, 16_383, 16_384, 16_385, 99_999, 200_000, 400_000, 3_000_000] {
        assert_eq!(client.request("POST", "/read", &[], &vec![b'x'; size]).text(), size.to_string());
        assert_eq!(client.get(&format!("/big?{size}")).body, vec![b'x'; size]);
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20));
    (0..20).for_each(|_| assert_eq!(client.read().text(), "ok"));
    server.finish();
}

#[test]
fn a_handshake_and_a_request_may_come_byte_by_byte() {
    let (server, root) = start(Plan::app("tls"));
    let mut session = root.trust().session();
    let mut stream = TcpStream::connect(("127.0.0.1", server.address.port())).expect("the server accepts");
    stream.set_nodelay(true).expect("a TCP stream");
    session.writer().write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("room for it");
    let mut answer = Vec::new();
    loop {
        let mut out = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut out).expect("a vector takes all");
        }
        out.iter().for_each(|byte| stream.write_all(&[*byte]).expect("the server takes what is sent"));
        if session.read_tls(&mut stream).expect("the server answers") == 0 {
            break;
        }
        session.process_new_packets().expect("good TLS");
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = session.reader().read(&mut buffer) {
            answer.extend(&buffer[..count]);
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ok"), "{answer}");
    server.finish();
}

#[test]
fn a_hundred_megabytes_go_up_and_down() {
    let (server, _) = start(Plan::app("tls"));
    let url = format!("https://localhost:{}", server.address.port());
    let (root, up, down) = (word(server.path("root.pem")), server.path("up"), server.path("down"));
    std::fs::write(&up, vec![b'u'; 100_000_000]).expect("the test's folder is writable");
    for version in ["1.2", "1.3"] {
        let common = ["--cacert", &root, "--tls-max", version];
        let told = curl(&[&common[..], &["--upload-file", &word(&up), &format!("{url}/read")]].concat());
        assert_eq!(told.text, "100000000");
        let told = curl(&[&common[..], &["--output", &word(&down), &format!("{url}/big?100000000")]].concat());
        assert!(told.succeeded, "{}", told.text);
        let came = std::fs::read(&down).expect("curl has written it");
        assert!(came.len() == 100_000_000 && came.iter().all(|&byte| byte == b'x'), "{} bytes", came.len());
    }
    server.finish();
}

/// Ten connections, each with the session of the one before: how many were resumed, and how many
/// workers served them.
const RESUME: &str = r#"
import http.client, socket, ssl, sys
port, root, version = int(sys.argv[1]), sys.argv[2], getattr(ssl.TLSVersion, sys.argv[3])
context = ssl.create_default_context(cafile=root)
context.minimum_version = context.maximum_version = version
session, resumed, pids = None, 0, set()
for number in range(20):
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost", session=session) as tls:
        tls.sendall(b"GET /pid HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: tls.recv(4096), b""))
        pids.add(answer.split(b"\r\n\r\n")[1])
        resumed += tls.session_reused
        session = tls.session
print(resumed, len(pids))
"#;

#[test]
fn sessions_are_resumed_whichever_worker_is_asked() {
    let (server, _) = start(Plan::app("tls").args(["--workers", "2"]));
    server.wait_for_workers(2);
    let (port, root) = (server.address.port().to_string(), word(server.path("root.pem")));
    for version in ["TLSv1_2", "TLSv1_3"] {
        let told = python(RESUME, &[&port, &root, version]);
        assert!(told.starts_with("19 "), "{version}: {told}");
    }
    let arguments = ["s_client", "-connect", &address(&server), "-tls1_2", "-reconnect", "-no_ign_eof"];
    let said = openssl(&arguments, "").text;
    assert_eq!(said.matches("Reused, TLSv1.2").count(), 5, "{said}");
    server.finish();
}

/// The outcome of a request by openssl with or without a certificate.
fn ask_as(server: &Server, client: Option<&Issued>, version: &str) -> Result<String, String> {
    let mut arguments = vec!["s_client", "-connect", "", version, "-ign_eof", "-crlf", "-quiet"];
    let to = address(server);
    arguments[2] = &to;
    let files = [server.path("client.pem"), server.path("client.key")].map(word);
    if let Some(client) = client {
        server.write("client.pem", &client.certificate);
        server.write("client.key", &client.key);
        arguments.extend(["-cert", &files[0], "-key", &files[1], "-cert_chain", &files[0]]);
    }
    let said = openssl(&arguments, &REQUEST.replace("\r\n", "\n")).text;
    match said.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_owned()),
        None => Err(said),
    }
}

#[test]
fn client_certificates_are_asked_for_demanded_and_checked() {
    let (root, stranger) = (Authority::root("Client root"), Authority::root("Stranger"));
    let (good, expired, wrong) =
        (root.client("alice", 2090), root.client("late", 2001), stranger.client("mallory", 2090));
    let middle = root.intermediate("Client intermediate");
    let chained = middle.client("bob", 2090).chained(&middle);
    for (cert_reqs, nobody_passes) in [("0", true), ("1", true), ("2", false)] {
        let plan = Plan::app("tls").file("clients.pem", &root.pem());
        let authorities = word(plan.path("clients.pem"));
        let (mut server, server_root) = start(plan.args(["--cert-reqs", cert_reqs, "--ca-certs", &authorities]));
        for version in ["-tls1_2", "-tls1_3"] {
            let ask = |client| ask_as(&server, client, version);
            assert_eq!(ask(None).is_ok(), nobody_passes, "{cert_reqs} {version}");
            // Where none is asked for, none is looked at.
            for bad in [&expired, &wrong] {
                assert_eq!(ask(Some(bad)).is_ok(), cert_reqs == "0", "{cert_reqs} {version}");
            }
            for (client, name) in [(&good, "alice"), (&chained, "bob")] {
                let environ = ask(Some(client)).unwrap_or_else(|said| panic!("{cert_reqs} {version}: {said}"));
                let verified = if cert_reqs == "0" { "NONE" } else { "SUCCESS" };
                assert!(environ.contains(&format!("\"SSL_CLIENT_VERIFY\": \"{verified}\"")), "{environ}");
                assert_eq!(environ.contains(&format!("CN={name}")), cert_reqs != "0", "{environ}");
            }
        }
        if cert_reqs != "0" {
            let known = Address::Tls(server.address.port(), server_root.trust_as(&good));
            let environ = Client::connect(&known).get("/environ").json();
            let say = |key: &str| environ[key].text().to_owned();
            assert_eq!(say("SSL_CLIENT_S_DN"), "O=Monoceros,CN=alice");
            assert_eq!(say("SSL_CLIENT_I_DN"), "CN=Client root");
            assert_eq!(say("SSL_CLIENT_M_SERIAL"), "0A1B2C");
            assert_eq!(say("SSL_CLIENT_CERT").replace('\n', ""), good.certificate.replace(['\r', '\n'], ""));
            // PEP 3333: the bytes of UTF-8 as code points.
            let of_utf8 =
                Address::Tls(server.address.port(), server_root.trust_as(&root.client("Ji\u{159}\u{ed}", 2090)));
            let environ = Client::connect(&of_utf8).get("/environ").json();
            assert_eq!(environ["SSL_CLIENT_S_DN"].text(), "O=Monoceros,CN=Ji\u{c5}\u{99}\u{c3}\u{ad}");
            let mut client = Client::connect(&known);
            let peer = client.get("/peer").text();
            assert!(peer.contains(r#"[["commonName", "alice"]]"#) && peer.contains(r#""serial": "0A1B2C""#), "{peer}");
            assert!(peer.contains(&format!("\"der\": {}", good.der().len())) && peer.contains("\"TLSv1.3\""), "{peer}");
            // Asking has not taken the connection.
            assert_eq!(client.get("/").text(), "ok");
        }
        server.allow("Invalid request from ip=127.0.0.1: TLS: ");
        server.finish();
    }
}

#[test]
fn many_handshakes_at_once_are_served() {
    let (server, root) = start(Plan::app("tls"));
    let mut crowd: Vec<_> =
        (0..100).map(|_| root.trust().connect(server.address.port()).expect("the server accepts")).collect();
    // Every hello is there before the first is answered.
    for stream in &mut crowd {
        stream.conn.write_tls(&mut stream.sock).expect("taken");
    }
    for stream in &mut crowd {
        stream.write_all(REQUEST.as_bytes()).expect("taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an end that is announced");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    server.finish();
}

#[test]
fn hundreds_of_stalled_handshakes_do_not_slow_down_others() {
    let (server, root) = start(Plan::app("tls").args(["--client-header-timeout", "5"]));
    let worker = server.wait_for_workers(1)[0];
    let files = server.files_at_rest(worker);
    let alone = latencies(&server);
    let mut hello = Vec::new();
    root.trust().session().write_tls(&mut hello).expect("a vector takes all");
    let stalled: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = TcpStream::connect(("127.0.0.1", server.address.port())).expect("the server accepts");
            // Some say nothing, some stop in the middle of their hello, some never answer the
            // server's.
            let said = [0, 1, hello.len() / 2, hello.len()][number % 4];
            stream.write_all(&hello[..said]).expect("the server takes what is sent");
            stream
        })
        .collect();
    let among = latencies(&server);
    let open = open_files(worker).saturating_sub(files);
    // Give or take an ordinary one that was closing when they were counted.
    assert!(open >= 195, "only {open} of them are there");
    println!("p99 alone {:?}, among stalled handshakes {:?}", p99(&alone), p99(&among));
    // How long the slowest waits depends on the machine; if every second one waits, the fault is
    // the server's.
    assert!(among[among.len() / 2] < Duration::from_millis(100), "{:?}", among[among.len() / 2]);
    wait_until("the stalled ones to be closed", || open_files(worker) <= files);
    drop(stalled);
    server.finish();
}

/// How long an ordinary client waits for handshake and answer, in order.
fn latencies(server: &Server) -> Vec<Duration> {
    let end = Instant::now() + Duration::from_secs(1);
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        assert_eq!(server.get("/").text(), "ok");
        latencies.push(start.elapsed());
    }
    latencies.sort_unstable();
    latencies
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

#[test]
fn a_proper_end_is_announced_and_a_broken_one_is_not() {
    let (mut server, _) = start(Plan::app("tls").args(["--keep-alive", "1"]));
    let (port, root) = (server.address.port(), server.path("root.pem"));
    let cases = [
        (r"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "announced"),
        // It is the keep-alive timeout that ends this one.
        (r"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "announced"),
        (r"GET /big?1000000 HTTP/1.0\r\n\r\n", "announced"),
        (r"nonsense\r\n\r\n", "announced"),
        (r"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n", "ragged"),
    ];
    for version in ["TLSv1_2", "TLSv1_3"] {
        for (request, expected) in cases {
            assert_eq!(end_of(port, &root, version, request), expected, "{version} {request}");
        }
    }
    server.allow("bytes less than its Content-Length");
    server.allow("Invalid request from");
    server.finish();
}

#[test]
fn a_request_that_is_cut_off_is_never_served() {
    let plan = Plan::app("tls").in_own_folder();
    let plan = plan.file("tls.py", "def application(environ, start_response):\n    raise Exception('served')\n");
    let access = word(plan.path("access"));
    let (server, root) = start(plan.args(["--access-logfile", &access]));
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        for announced in [false, true] {
            let mut stream = root.trust().connect(server.address.port()).expect("the server accepts");
            stream.write_all(head.as_bytes()).expect("the server takes what is sent");
            if announced {
                stream.conn.send_close_notify();
                stream.flush().expect("the server takes what is sent");
            }
            stream.sock.shutdown(std::net::Shutdown::Write).expect("a connected socket");
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert_eq!(String::from_utf8_lossy(&rest), "", "{head}");
        }
    }
    wait_until("the lines of those with a head", || {
        std::fs::read_to_string(&access).is_ok_and(|lines| lines.matches(" 499 ").count() == 4)
    });
    server.finish();
}

#[test]
fn a_body_that_is_cut_off_while_the_app_reads_it_is_an_error_to_it() {
    let plan = Plan::app("tls").args(["--body-buffer", "1000", "--body-spool", "0"]);
    let (mut server, root) = start(plan);
    let mut stream = root.trust().connect(server.address.port()).expect("the server accepts");
    stream.write_all(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").expect("taken");
    stream.write_all(&[b'x'; 50_000]).expect("taken");
    stream.sock.shutdown(std::net::Shutdown::Write).expect("a connected socket");
    server.wait_for_log("the request body ends early");
    server.allow("Error handling request");
    server.allow("Traceback");
    server.allow("ends early");
    server.finish();
}

#[test]
fn plain_http_on_the_tls_port_and_tls_on_the_plain_port_are_told_so() {
    let (mut server, _) = start(Plan::app("tls"));
    let mut client = Client::connect(&Address::Tcp(server.address.port()));
    let answer = client.get("/");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("Plain HTTP was sent to a port that speaks HTTPS"), "{}", answer.text());
    client.expect_closed(PATIENCE);
    // What is neither is not answered.
    let mut client = Client::connect(&Address::Tcp(server.address.port()));
    client.send([0xff; 40]);
    let rest = client.take_rest(PATIENCE);
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    assert_eq!(server.get("/").text(), "ok");
    server.allow("Plain HTTP was sent to a port that speaks HTTPS");
    server.allow("TLS: ");
    server.finish();

    let mut plain = Server::start("tls", []);
    let said = curl(&[&format!("https://127.0.0.1:{}/", plain.address.port())]);
    assert!(!said.succeeded && said.text.contains("wrong version number"), "{}", said.text);
    // curl may be gone before it was refused in good order, and then there is no line.
    let mut client = plain.connect();
    client.send(b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03");
    assert!(client.read().text().contains("TLS was sent to a port that speaks plain HTTP"));
    plain.wait_for_log("TLS was sent to a port that speaks plain HTTP");
    plain.allow("TLS was sent to a port that speaks plain HTTP");
    plain.finish();
}

#[test]
fn the_socket_that_the_app_gets_is_a_real_one() {
    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let (server, root) = start(Plan::app("tls"));
    let worker = server.wait_for_workers(1)[0];
    let files = server.files_at_rest(worker);
    for announced in [true, false] {
        let mut stream = root.trust().connect(server.address.port()).expect("the server accepts");
        stream.write_all(b"GET /socket HTTP/1.1\r\nHost: a\r\n\r\n").expect("taken");
        let mut head = [0; HEAD.len()];
        stream.read_exact(&mut head).expect("the app's head");
        assert_eq!(head, HEAD);
        for size in [1, 5000, 300_000] {
            let message: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let mut echo = vec![0; size];
            stream.write_all(&message).expect("taken");
            stream.read_exact(&mut echo).expect("echoed");
            assert!(echo == message, "{size}");
        }
        if announced {
            stream.conn.send_close_notify();
            stream.flush().expect("taken");
        }
        stream.sock.shutdown(std::net::Shutdown::Write).expect("a connected socket");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("an end that is announced");
        assert!(rest.is_empty());
    }
    wait_until("everything to be closed", || open_files(worker) <= files);
    server.finish();
}

#[test]
fn what_a_client_sends_arrives_also_after_the_app_has_ended_its_side() {
    let (server, root) = start(Plan::app("tls"));
    let mut stream = root.trust().connect(server.address.port()).expect("the server accepts");
    stream.write_all(b"GET /half HTTP/1.1\r\nHost: a\r\n\r\n").expect("taken");
    stream.read_to_end(&mut Vec::new()).expect("an end that is announced");
    stream.write_all(&[b'x'; 200_000]).expect("taken");
    stream.conn.send_close_notify();
    stream.flush().expect("taken");
    drop(stream);
    wait_until("all of it", || !server.gate_files("counted-").is_empty());
    assert_eq!(server.gate_files("counted-"), ["counted-200000"]);
    server.finish();
}

#[test]
fn an_app_that_has_the_socket_may_still_answer_in_the_ordinary_way() {
    let (server, _) = start(Plan::app("tls"));
    let worker = server.wait_for_workers(1)[0];
    let files = server.files_at_rest(worker);
    for size in [1, 100_000, 10_000_000] {
        let mut client = server.connect();
        assert_eq!(client.get(&format!("/lent?{size}")).body.len(), size);
        client.expect_closed(PATIENCE);
    }
    wait_until("everything to be closed", || open_files(worker) <= files);
    server.finish();
}

#[test]
fn a_proxy_header_comes_before_tls() {
    let (server, root) = start(Plan::app("tls").args(["--proxy-protocol", "v1"]));
    let port = server.address.port();
    let mut raw = TcpStream::connect(("127.0.0.1", port)).expect("the server accepts");
    raw.write_all(b"PROXY TCP4 203.0.113.7 203.0.113.8 4711 443\r\n").expect("taken");
    let mut stream = rustls::StreamOwned::new(root.trust().session(), raw);
    stream.write_all(REQUEST.as_bytes()).expect("taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an end that is announced");
    assert!(answer.contains(r#""REMOTE_ADDR": "203.0.113.7""#) && answer.contains(r#""HTTPS": "on""#), "{answer}");
    // And it may be missing.
    assert_eq!(server.get("/").text(), "ok");
    server.finish();
}

#[test]
fn a_response_that_the_client_takes_slowly_comes_whole() {
    let (server, root) = start(Plan::app("tls"));
    let port = server.address.port();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("the server accepts");
    let mut stream = rustls::StreamOwned::new(root.trust().session(), TcpStream::from(socket));
    stream.write_all(b"GET /big?20000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("taken");
    // The worker has long gone on to others.
    assert_eq!(server.get("/").text(), "ok");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an end that is announced");
    assert_eq!(answer.iter().filter(|&&byte| byte == b'x').count(), 20_000_000);
    server.finish();
}

#[test]
fn a_unix_socket_speaks_tls_too() {
    let root = Authority::root("Test root");
    let server = Plan::app("tls").unix().tls(&root.server(Key::Ecdsa, &["localhost"])).start();
    let Address::Unix(path) = &server.address else { panic!("a unix socket") };
    let stream = std::os::unix::net::UnixStream::connect(path).expect("the server accepts");
    let mut stream = rustls::StreamOwned::new(root.trust().session(), stream);
    stream.write_all(REQUEST.as_bytes()).expect("taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an end that is announced");
    assert!(answer.contains(r#""HTTPS": "on""#), "{answer}");
    server.finish();
}

#[test]
fn a_stopping_worker_finishes_what_it_has_begun() {
    let (mut server, _) = start(Plan::app("tls"));
    let mut idle = server.connect();
    assert_eq!(idle.get("/").text(), "ok");
    server.signal(SIGTERM);
    // Requests on a kept connection are answered, up to the one whose answer says that it is the
    // last.
    wait_until("the last answer", || {
        let _ = idle.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        match idle.read_for("GET") {
            Ok(answer) => {
                assert_eq!(answer.text(), "ok");
                answer.says_close()
            }
            // It was closed while the request was on its way: HTTP's own race (RFC 9112, section
            // 9.3.1).
            Err(Broken::Closed) => true,
            Err(broken) => panic!("{broken:?}"),
        }
    });
    assert_eq!(server.wait_for_exit().code(), Some(0));
    server.expect_gone();
    server.expect_clean_log();
}

#[test]
fn a_busy_worker_leaves_new_clients_to_an_idle_one() {
    let (server, _) = start(Plan::app("process").args(["--workers", "2"]));
    server.wait_for_workers(2);
    let mut busy = server.connect();
    busy.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request to be in the app", || server.entered() == 1);
    // None of these waits for the one that is busy.
    let answers: Vec<String> = (0..20).map(|_| server.get("/").text()).collect();
    assert!(answers.iter().all(|pid| pid == &answers[0]), "{answers:?}");
    server.release();
    assert_eq!(busy.read().status, 200);
    server.finish();
}

/// Clients under TLS are independent of each other: they share only the listener.
#[test]
fn many_clients_at_once_each_get_their_own_answer() {
    let (server, _) = start(Plan::app("tls").args(["--workers", "2", "--threads", "2"]));
    server.wait_for_workers(2);
    let server = Arc::new(server);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let server = server.clone();
            scope.spawn(move || {
                let mut client = server.connect();
                for round in 0..50 {
                    let size = 1 + (number * 7919 + round * 104_729) % 200_000;
                    assert_eq!(client.get(&format!("/big?{size}")).body.len(), size);
                    assert_eq!(client.request("POST", "/read", &[], &vec![b'x'; size]).text(), size.to_string());
                }
            });
        }
    });
    Arc::into_inner(server).expect("the clients are gone").finish();
}
